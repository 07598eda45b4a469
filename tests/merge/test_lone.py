"""A GGUF file that is found alone is made again from what it says, and compared."""

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from soupmix.base import Base
from soupmix.errors import RecipeError
from soupmix.merge import Soup, verify
from soupmix.store.store import Store

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(params=["gguf-lora", "gguf"])
def lone(request: pytest.FixtureRequest, soup: Soup, tiny_base: Base, tmp_path: Path) -> Path:
    if request.param == "gguf":
        soup.save_gguf(tmp_path / "out", base=tiny_base, dtype="bf16")
        return (tmp_path / "out/model.gguf").rename(tmp_path / "found.gguf")
    soup.save_gguf_lora(tmp_path / "out", base=tiny_base, rank=5, dtype="fp16")
    return (tmp_path / "out/adapter.gguf").rename(tmp_path / "found.gguf")


def test_it_is_what_its_record_gives(lone: Path, three: Store, tiny_base: Base, run: Run) -> None:
    verdict = verify(lone, store=three.folder, base=tiny_base.folder)
    assert verdict.ok
    assert verdict.rebuilt
    assert run("verify", lone, "--store", three.folder, "--base", tiny_base.folder)[0] == 0
    lone.write_bytes(lone.read_bytes()[:-1] + b"\x7f")
    (found,) = verify(lone, store=three.folder, base=tiny_base.folder).findings
    assert found.kind == "output-changed"


def test_a_record_that_was_changed_does_not_give_it(lone: Path, three: Store, tiny_base: Base) -> None:
    data = lone.read_bytes()
    assert b'"friendly": "0.5"' in data
    lone.write_bytes(data.replace(b'"friendly": "0.5"', b'"friendly": "0.4"'))
    assert not verify(lone, store=three.folder, base=tiny_base.folder).ok


def test_other_adapters_are_told(
    lone: Path, three: Store, tiny_base: Base, make_store: Callable[..., Store], tmp_path: Path
) -> None:
    other = make_store({"friendly": three.path("friendly")}, where="other")
    kinds = {each.kind for each in verify(lone, store=other.folder, base=tiny_base.folder).findings}
    assert kinds == {"adapter-changed"}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GGUF",
        b"JUNK" + bytes(40),
        b"GGUF" + struct.pack("<IQQ", 3, 0, 0),
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 60),
        b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1 << 62),
        b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 4) + b"abcd" + struct.pack("<IIQ", 9, 9, 1 << 40),
        b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 13) + b"soupmix.grant" + struct.pack("<IQ", 8, 2) + b"\xff\xff",
    ],
)
def test_what_is_no_such_file_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(data)
    with pytest.raises(RecipeError) as caught:
        verify(tmp_path / "x.gguf")
    assert caught.value.reason in ("no-record", "bad-record")


def test_nothing_but_repeating_says_anything_of_it(lone: Path) -> None:
    for said in ({"rebuild": False}, {"key": "k.pem"}):
        with pytest.raises(RecipeError, match="verify the folder"):
            verify(lone, **said)  # type: ignore[arg-type]

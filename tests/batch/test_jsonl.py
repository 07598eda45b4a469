"""JSONL: a line for every line of the file whatever stands in it, in order, and never the whole file at once."""

import io
import json
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soupmix.batch.line import CHAT, COMPLETIONS, bounded_lines
from tests.support.batch_files import good, source, written


@given(data=st.lists(st.binary(max_size=12)).map(b"\n".join), limit=st.integers(1, 8))
def test_lines_are_those_between_line_feeds_and_long_ones_are_not_held(data: bytes, limit: int) -> None:
    expected = data.split(b"\n")
    expected = expected[:-1] if expected[-1] == b"" else expected
    found = list(bounded_lines(io.BytesIO(data), limit))
    assert found == [line if len(line) <= limit else None for line in expected]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("jsonl")


@given(
    kinds=st.lists(st.sampled_from(["good", "blank", "garbage", "binary", "long", "array", "unknown"])),
    feed=st.booleans(),
    start=st.integers(0, 5),
)
def test_every_line_has_its_place(folder: Path, kinds: list[str], feed: bool, start: int) -> None:
    texts = {
        "blank": b" ",
        "garbage": b"{",
        "binary": b"\xff\xfe",
        "long": b"[" * 5000,
        "array": b"[1]",
        "unknown": json.dumps({**good("u"), "more": 1}).encode(),
    }
    raw = [texts.get(kind) or json.dumps(good(f"id {n}", n=n)).encode() for n, kind in enumerate(kinds)]
    file = source(written(folder, "in.jsonl", b"\n".join(raw) + (b"\n" if feed and raw else b"")))
    lines = list(file.lines())
    assert file.count() == len(lines) == len(kinds)
    assert [line.number for line in lines] == list(range(len(kinds)))
    for line, kind in zip(lines, kinds, strict=True):
        assert (line.error is None) == (kind == "good")
        assert line.custom_id == {"good": f"id {line.number}", "unknown": "u"}.get(kind)
        assert kind != "good" or line.body == {"n": line.number}
    assert [(each.number, each.custom_id) for each in file.lines(start)] == [
        (each.number, each.custom_id) for each in lines[start:]
    ]


BAD = {
    "no custom_id": ({"method": "POST", "url": CHAT, "body": {}}, "custom_id"),
    "custom_id is a number": ({**good(), "custom_id": 1}, "custom_id"),
    "empty custom_id": (good(""), "custom_id"),
    "GET": ({**good(), "method": "GET"}, "method"),
    "another endpoint": (good(url="/v1/embeddings"), "url"),
    "body is text": ({**good(), "body": "{}"}, "body"),
    "a key too many": ({**good(), "soup": {}}, "soup"),
    "half a surrogate pair": (good(text="\ud800"), "UTF-8"),
    "not an object": ([1], "object"),
}


@pytest.mark.parametrize("case", sorted(BAD))
def test_a_bad_line_says_what_is_wrong(tmp_path: Path, case: str) -> None:
    value, hint = BAD[case]
    (line,) = source(written(tmp_path, "in.jsonl", json.dumps(value).encode())).lines()
    assert line.error is not None
    assert "line 1" in str(line.error)
    assert hint in str(line.error)


@pytest.mark.parametrize(
    "text", [b'{"a":1,"a":2}', b"[NaN]", b"[1e999]", b"[" * 1500, b"\xef\xbb\xbf{}", '"é"'.encode("latin-1")]
)
def test_what_json_readers_differ_on_is_no_line(tmp_path: Path, text: bytes) -> None:
    (line,) = source(written(tmp_path, "in.jsonl", text)).lines()
    assert line.error is not None


def test_both_endpoints_are_known(tmp_path: Path) -> None:
    data = b"\n".join(json.dumps(good(url=url)).encode() for url in (CHAT, COMPLETIONS))
    assert [line.url for line in source(written(tmp_path, "in.jsonl", data)).lines()] == [CHAT, COMPLETIONS]


def test_a_huge_file_is_never_held(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    with path.open("wb") as file:
        file.write(b"x" * 8_000_000 + b"\n")
        for n in range(5000):
            file.write(json.dumps(good(str(n), text="y" * 900)).encode() + b"\n")
    file_ = source(path)
    tracemalloc.start()
    try:
        assert file_.count() == sum(1 for _ in file_.lines()) == 5001
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()

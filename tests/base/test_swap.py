"""Files of a base that are exchanged for others of the same size, with their times put back."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from soupmix.base import Base, resolve
from soupmix.base.cache import MARKER, stamp
from soupmix.base.safetensors import tensors_digest
from soupmix.errors import BaseModelError
from soupmix.files import sha256_file
from soupmix.merge import merge, verify
from soupmix.policy import Policy
from soupmix.store import Store

WEIGHTS = "model.safetensors"


@pytest.fixture
def base(tiny_base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Base:
    """A base of this test's own, whose digest is remembered in a cache of its own."""
    monkeypatch.setenv("SOUPMIX_CACHE", str(tmp_path / "cache"))
    shutil.copytree(tiny_base.folder, tmp_path / "base")
    return resolve(tmp_path / "base")


def swap(path: Path, *, in_place: bool) -> None:
    """Another last byte under the same size and modification time."""
    before, data = path.stat(), path.read_bytes()
    other = data[:-1] + bytes([data[-1] ^ 1])
    if in_place:
        path.write_bytes(other)
    else:
        path.with_suffix(".new").write_bytes(other)
        path.with_suffix(".new").replace(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def poison(cache: Path, folder: Path, digest: str) -> None:
    """Make the cache say that digest of the files as they are now, as whoever can write to it could."""
    for record in (cache / "digests").iterdir():
        said = json.loads(record.read_text())
        said["files"] = {name: stamp(folder / name) for name in said["files"]}
        record.write_text(json.dumps(said | {"digest": digest}))


@pytest.mark.parametrize("in_place", [True, False])
def test_a_swap_is_seen_even_by_the_cache(base: Base, in_place: bool) -> None:
    swap(base.folder / WEIGHTS, in_place=in_place)
    assert resolve(base.folder).digest == tensors_digest(base.folder) != base.digest


def test_what_is_believed_and_what_is_read_anew(base: Base, tmp_path: Path) -> None:
    swap(base.folder / WEIGHTS, in_place=True)
    poison(tmp_path / "cache", base.folder, base.digest)
    assert resolve(base.folder).digest == base.digest  # the control: the cache is believed elsewhere
    assert resolve(base.folder, fresh=True).digest == tensors_digest(base.folder) != base.digest


@pytest.mark.parametrize("mode", [0o664, 0o646])
def test_a_digest_that_others_can_have_written_is_not_believed(base: Base, tmp_path: Path, mode: int) -> None:
    swap(base.folder / WEIGHTS, in_place=True)
    poison(tmp_path / "cache", base.folder, base.digest)
    for record in (tmp_path / "cache" / "digests").iterdir():
        record.chmod(mode)
    assert resolve(base.folder).digest == tensors_digest(base.folder) != base.digest
    poison(tmp_path / "cache", base.folder, base.digest)
    assert resolve(base.folder).digest == base.digest, "what was written anew is this user's alone, and believed"


@pytest.mark.parametrize("linked", ["file", "folder"])
def test_a_digest_behind_a_link_is_not_believed(base: Base, tmp_path: Path, linked: str) -> None:
    """What it leads to may be this user's, such as a download, and say what somebody else wrote."""
    swap(base.folder / WEIGHTS, in_place=True)
    poison(tmp_path / "cache", base.folder, base.digest)
    digests = tmp_path / "cache" / "digests"
    for place in [digests] if linked == "folder" else list(digests.iterdir()):
        elsewhere = place.rename(tmp_path / place.name)
        place.symlink_to(elsewhere)
    assert resolve(base.folder).digest == tensors_digest(base.folder) != base.digest


def test_verify_sees_a_swapped_base(base: Base, pico_store: Store, tmp_path: Path) -> None:
    soup = merge(pico_store, Policy.open(pico_store).clamp({"calm": 0.5}))
    soup.save_model(tmp_path / "out", base=base)
    assert verify(tmp_path / "out").ok
    swap(base.folder / WEIGHTS, in_place=True)
    poison(tmp_path / "cache", base.folder, base.digest)
    assert [each.kind for each in verify(tmp_path / "out").findings] == ["base-changed"]


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"])
def test_verify_sees_every_other_file_that_is_loaded(base: Base, pico_store: Store, tmp_path: Path, name: str) -> None:
    soup = merge(pico_store, Policy.open(pico_store).clamp({"calm": 0.5}))
    soup.save_model(tmp_path / "out", base=base)
    path = base.folder / name
    path.write_text(path.read_text() + " ")
    (finding,) = verify(tmp_path / "out").findings
    assert (finding.kind, finding.message.split(" of ")[0]) == ("base-changed", "config, tokenizer or template")


def test_a_converted_base_is_read_anew_as_well(tiny_gguf: Path, tmp_path: Path) -> None:
    before = resolve(tiny_gguf, cache=tmp_path)
    swap(before.folder / WEIGHTS, in_place=True)
    marker = before.folder / MARKER
    said = json.loads(marker.read_text())
    path = before.folder / WEIGHTS
    said["files"][WEIGHTS] = {"stamp": stamp(path), "sha256": sha256_file(path)}
    marker.write_text(json.dumps(said))
    assert resolve(tiny_gguf, cache=tmp_path).digest == before.digest  # the control
    assert resolve(tiny_gguf, cache=tmp_path, fresh=True).digest == tensors_digest(before.folder) != before.digest


def test_the_files_beside_the_weights_have_a_digest_of_their_own(base: Base, tiny_model: Callable[..., Path]) -> None:
    before = base.files_digest()
    (base.folder / "notes.md").write_text("not loaded")
    (base.folder / "pytorch_model.bin").write_bytes(b"not loaded")
    assert base.files_digest() == before
    (base.folder / "chat_template.jinja").write_text("another {{ messages }}")
    assert base.files_digest() != before
    assert resolve(base.folder).digest == base.digest  # adapters stay valid


def test_a_file_beside_the_weights_that_is_special_is_refused(base: Base) -> None:
    (base.folder / "generation_config.json").unlink()
    os.mkfifo(base.folder / "generation_config.json")
    with pytest.raises(BaseModelError) as caught:
        base.files_digest()
    assert caught.value.reason == "special-file"


def test_an_older_record_is_good_and_says_what_it_cannot_vouch_for(
    base: Base, pico_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soup = merge(pico_store, Policy.open(pico_store).clamp({"calm": 0.5}))
    monkeypatch.setattr(Base, "files_digest", lambda _: None)
    soup.save_model(tmp_path / "old", base=base)
    monkeypatch.undo()
    monkeypatch.setenv("SOUPMIX_CACHE", str(tmp_path / "cache"))
    verdict = verify(tmp_path / "old")
    assert verdict.ok, verdict.findings
    (note,) = verdict.notes
    assert "made before soupmix recorded" in note
    soup.save_model(tmp_path / "new", base=base)
    assert verify(tmp_path / "new").notes == ()

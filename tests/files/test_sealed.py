"""The bytes that were hashed are the bytes that are read, whatever happens to the file."""

import hashlib
import mmap
import os
from pathlib import Path

import pytest

from soupmix import sealed as room
from soupmix.errors import AdapterError, FileError
from soupmix.sealed import read_sealed, sealed


@pytest.fixture(params=[True, False], ids=["memfd", "bytes"], autouse=True)
def memfd(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """With sealed memory files, and as on a platform without them."""
    if request.param and not room._MEMFD:
        pytest.skip("no sealed memory files here")
    monkeypatch.setattr(room, "_MEMFD", request.param)
    return request.param


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3_000_000])
def test_bytes_and_digest_are_the_file_s(tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    (tmp_path / "x").write_bytes(content)
    with sealed(tmp_path / "x", cap=size) as copy:
        assert (copy.size, copy.sha256) == (size, hashlib.sha256(content).hexdigest())
        assert copy.read() == copy.read() == content
    assert read_sealed(tmp_path / "x", cap=size) == (content, hashlib.sha256(content).hexdigest())


def test_a_later_write_or_truncation_is_not_seen(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"good" * 5000)
    with sealed(path, cap=1 << 20) as copy:
        with path.open("r+b") as file:
            file.write(b"evil")
        os.truncate(path, 2)
        assert copy.read() == b"good" * 5000


def test_the_copy_itself_cannot_be_changed(tmp_path: Path, memfd: bool) -> None:
    (tmp_path / "x").write_bytes(b"good")
    with sealed(tmp_path / "x", cap=10) as copy:
        if not memfd:
            assert isinstance(copy.memory, bytes)
            return
        assert isinstance(copy.memory, int)
        for change in (
            lambda: os.pwrite(copy.memory, b"evil", 0),
            lambda: os.ftruncate(copy.memory, 1),
            lambda: os.ftruncate(copy.memory, 9),
            lambda: mmap.mmap(copy.memory, 4, mmap.MAP_SHARED, mmap.PROT_WRITE),
        ):
            with pytest.raises(PermissionError):
                change()


def test_a_file_over_its_cap_is_refused_even_if_it_grows_after_it_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x").write_bytes(bytes(11))
    with pytest.raises(FileError, match="larger than the 10 bytes") as caught, sealed(tmp_path / "x", cap=10):
        pass
    assert caught.value.reason == "too-large"
    monkeypatch.setattr(room, "_check", lambda *_: None)
    with pytest.raises(FileError, match="larger than the 10 bytes"), sealed(tmp_path / "x", cap=10):
        pass


def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(bytes(10))
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for cap in (10, 5):
        for _ in range(5):
            try:
                read_sealed(tmp_path / "x", cap=cap)
            except FileError:
                assert cap == 5
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_what_the_disk_cannot_read_is_refused(tmp_path: Path) -> None:
    for path, words in ((tmp_path / ("x" * 300), "File name too long"), (Path("/proc/self/mem"), "Input/output error")):
        with pytest.raises(FileError, match=f"{path} cannot be read: {words}") as caught:
            read_sealed(path, cap=100)
        assert caught.value.reason == "unreadable"


@pytest.mark.parametrize("name", ["missing", "link", "folder", "large"])
def test_a_refusal_is_raised_as_the_error_that_the_caller_names(tmp_path: Path, name: str) -> None:
    (tmp_path / "large").write_bytes(bytes(11))
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("large")
    with pytest.raises(FileError) as plain:
        read_sealed(tmp_path / name, cap=10)
    with pytest.raises(AdapterError) as named:
        read_sealed(tmp_path / name, cap=10, error=AdapterError)
    assert (str(named.value), named.value.reason) == (str(plain.value), plain.value.reason)
    assert plain.value.reason

"""A log, and every file of it, is what stands there under its name: never what a link leads to."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from soupmix.audit import AuditLog, read_records, verify
from soupmix.audit.people import FILE, pseudonym
from soupmix.errors import AuditError, OutputError

Fill = Callable[..., AuditLog]


@pytest.fixture
def linked(folder: Path, fill: Fill, tmp_path: Path) -> Path:
    """A link to a log."""
    fill(folder, 3).close()
    (tmp_path / "link").symlink_to(folder)
    return tmp_path / "link"


@pytest.mark.parametrize("there", [True, False])
def test_a_folder_that_is_a_link_is_not_written_to(tmp_path: Path, there: bool) -> None:
    if there:
        (tmp_path / "elsewhere").mkdir()
    (tmp_path / "log").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(AuditError, match="is a symbolic link") as caught:
        AuditLog.open(tmp_path / "log")
    assert caught.value.reason == "symlink"
    assert not there or list((tmp_path / "elsewhere").iterdir()) == []
    assert (tmp_path / "elsewhere").exists() is there


def test_a_log_behind_a_link_is_neither_gone_on_with_nor_read(linked: Path) -> None:
    for use in (AuditLog.open, verify, lambda path: list(read_records(path))):
        with pytest.raises(AuditError, match="is a symbolic link"):
            use(linked)


@pytest.mark.parametrize("name", ["lock", "origin", "checkpoints.jsonl", "records-000000000000.jsonl", FILE])
@pytest.mark.parametrize("how", ["link", "fifo"])
def test_a_file_of_the_log_that_is_special_is_neither_written_nor_read(
    folder: Path, fill: Fill, tmp_path: Path, name: str, how: str
) -> None:
    fill(folder, 3).close()
    elsewhere, path = tmp_path / "elsewhere", folder / name
    if path.exists():
        shutil.move(path, elsewhere)
    else:
        elsewhere.touch()
    if how == "link":
        path.symlink_to(elsewhere)
    else:
        os.mkfifo(path)
    before = elsewhere.read_bytes()
    with pytest.raises((AuditError, OutputError)):
        AuditLog.open(folder)
    assert elsewhere.read_bytes() == before
    if name == FILE:
        with pytest.raises(OutputError):
            pseudonym(folder, "alice")


def test_a_folder_that_is_a_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "log").touch()
    with pytest.raises(OutputError, match="cannot open audit log"):
        AuditLog.open(tmp_path / "log")

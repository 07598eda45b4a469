"""Every system call of the write path fails once: nothing acknowledged is lost, nothing is torn, the log can be opened."""

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from soupmix.audit import AuditLog, Receipt, read_records, verify
from soupmix.errors import AuditError, OutputError
from tests.support.audit_entries import entry

CALLS = ("open", "pwrite", "fsync", "ftruncate")


class Disk:
    """The calls of `os` that write, counted; the n-th and, if it is a lasting failure, all later ones fail.

    A write that fails has written half of its bytes before: the nastiest that a full disk does.
    """

    def __init__(self, patch: pytest.MonkeyPatch, fail_at: int = -1, code: int = 0, *, lasting: bool = False) -> None:
        self.count, self.fail_at, self.code, self.lasting = 0, fail_at, code, lasting
        for name in CALLS:
            patch.setattr(os, name, self.wrap(name, getattr(os, name)))

    def wrap(self, name: str, real: Callable[..., int]) -> Callable[..., int]:
        def call(*arguments: object, **options: object) -> int:
            if name == "open" and not isinstance(arguments[0], Path):
                return real(*arguments, **options)  # not ours
            self.count += 1
            if self.count == self.fail_at or (self.lasting and self.count > self.fail_at > 0):
                if name == "pwrite":
                    handle, data, offset = arguments
                    real(handle, data[: len(data) // 2], offset)  # type: ignore[index, arg-type]
                raise OSError(self.code, os.strerror(self.code))
            return real(*arguments, **options)

        return call


def scenario(folder: Path) -> list[Receipt]:
    """Open, append across files and checkpoints with new people, erase, close; what was acknowledged comes back.

    A failed call is simply tried again, as a server that goes on after an error would.
    """
    done: list[Receipt] = []
    try:
        log = AuditLog.open(folder, checkpoint_every=2, segment_bytes=1200)
    except OutputError:
        return done
    for number in range(6):
        for _ in range(2):
            try:
                done.append(log.append(entry(number, f"person {number % 4}")))
            except (OutputError, AuditError):
                continue
            break
    for call in (lambda: log.erase("person 1"), log.checkpoint, log.close):
        try:
            call()
        except (OutputError, AuditError):
            continue
    return done


def count(folder: Path) -> int:
    with pytest.MonkeyPatch.context() as patch:
        disk = Disk(patch)
        assert len(scenario(folder)) == 6
    return disk.count


@pytest.mark.parametrize(
    ("code", "lasting"),
    [
        pytest.param(errno.EIO, False, id="EIO once"),
        pytest.param(errno.ENOSPC, True, id="ENOSPC from then on"),
        pytest.param(errno.ENOSPC, False, id="ENOSPC once", marks=pytest.mark.slow),
        pytest.param(errno.EIO, True, id="EIO from then on", marks=pytest.mark.slow),
    ],
)
def test_every_call_fails_once(tmp_path: Path, code: int, lasting: bool) -> None:
    total = count(tmp_path / "dry")
    assert total > 40
    acknowledged = []
    for number in range(1, total + 1):
        folder = tmp_path / f"{number}"
        with pytest.MonkeyPatch.context() as patch:
            Disk(patch, number, code, lasting=lasting)
            done = scenario(folder)
        acknowledged.append(len(done))
        with AuditLog.open(folder) as log:  # the next start, on a disk that works
            log.append(entry(99))
        verdict = verify(folder)
        assert verdict.ok, (number, verdict.findings)
        assert verdict.unfinished == 0
        lines = dict(enumerate(record["entry"]["merge"] for _, record in read_records(folder)))
        assert all(each.sequence in lines for each in done)
        digests = leaf_digests(folder)
        assert [digests[each.sequence] for each in done] == [each.digest for each in done]
    # One failure costs at most the appends after a failed sync; a full disk costs all later ones.
    assert max(acknowledged) == 6
    if not lasting:
        assert sum(acknowledged) > 3 * total


def leaf_digests(folder: Path) -> list[str]:
    from hashlib import sha256

    return [sha256(b"\0" + line).hexdigest() for line, _ in read_records(folder)]


def test_a_full_disk_is_one_sentence_and_the_next_append_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = AuditLog.open(tmp_path / "log")
    first = log.append(entry(0))
    long = replace(entry(1), attributes={"tenant": "x" * 10_000})  # what is left of it is more than the next one
    with monkeypatch.context() as patch:
        Disk(patch, 1, errno.ENOSPC)
        with pytest.raises(OutputError, match="No space left on device") as full:
            log.append(long)
    assert full.value.reason == "write-failed"
    assert log.append(entry(2)).sequence == first.sequence + 1
    log.close()
    verdict = verify(tmp_path / "log")
    assert (verdict.ok, verdict.records, verdict.unfinished) == (True, 2, 0)


def test_after_a_failed_sync_the_log_must_be_opened_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = AuditLog.open(tmp_path / "log")
    log.append(entry(0))
    with monkeypatch.context() as patch:
        Disk(patch, 2, errno.EIO)
        with pytest.raises(OutputError, match="Input/output error"):
            log.append(entry(1))
    with pytest.raises(AuditError) as broken:
        log.append(entry(2))
    assert broken.value.reason == "broken"
    log.close()
    with AuditLog.open(tmp_path / "log") as log:
        log.append(entry(3))
    assert verify(tmp_path / "log").ok

"""Writing a log: one writer, many threads, nothing acknowledged before the disk has it, rotation, recovery, forgetting."""

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from soupmix.audit import (
    AuditLog,
    Checkpoint,
    Record,
    Signer,
    Verifier,
    newest_checkpoint,
    pseudonym,
    read_records,
    verify,
)
from soupmix.audit.people import People
from soupmix.audit.segments import segments
from soupmix.errors import AuditError
from tests.support.audit_entries import NOON, entry

Fill = Callable[..., AuditLog]
Opened = Callable[..., tuple[Path, Path]]


def refused(call: Callable[[], object], reason: str) -> str:
    with pytest.raises(AuditError) as error:
        call()
    assert error.value.reason == reason
    return str(error.value)


def test_what_was_appended_is_read_back_and_verifies(folder: Path, fill: Fill) -> None:
    with fill(folder, 5) as log:
        receipt = log.append(entry(5))
        assert (receipt.sequence, log.size) == (5, 6)
    found = list(read_records(folder))
    assert [record["entry"]["requested"]["friendly"] for _, record in found] == list(range(6))
    assert found[0][1]["time"] == "2023-11-14T22:13:20Z"
    verdict = verify(folder)
    assert verdict.ok
    assert (verdict.records, verdict.checkpoints, verdict.signed) == (6, 1, 0)


def test_a_log_goes_on_where_it_stood_whatever_the_files_and_checkpoints(tmp_path: Path, fill: Fill) -> None:
    """Opened anew after every record, with tiny files, or written in one go: the same records and the same root."""
    tmp_path.joinpath("one").mkdir()
    fill(tmp_path / "one", 0).close()
    for other, options in (("two", {"segment_bytes": 900}), ("three", {"checkpoint_every": 2, "segment_bytes": 1})):
        target = tmp_path / other
        target.mkdir()
        for name in ("origin", "people.keys"):  # the same log, the same people
            (target / name).write_bytes((tmp_path / "one" / name).read_bytes())
        for number in range(30):
            with AuditLog.open(target, clock=lambda: NOON, **options) as log:  # type: ignore[arg-type]
                log.append(entry(number, None))
        assert len(segments(target)) > 5
    with AuditLog.open(tmp_path / "one", clock=lambda: NOON) as log:
        for number in range(30):
            log.append(entry(number, None))
    assert len(segments(tmp_path / "one")) == 1
    verdicts = [verify(tmp_path / name) for name in ("one", "two", "three")]
    assert all(each.ok and each.records == 30 for each in verdicts)
    assert len({each.root for each in verdicts}) == 1


def test_one_writer(folder: Path, fill: Fill) -> None:
    with fill(folder, 1):
        assert "another process is writing" in refused(lambda: AuditLog.open(folder), "in-use")
        assert verify(folder).ok  # reading is open to all
    AuditLog.open(folder).close()


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    refused(lambda: AuditLog.open(tmp_path), "no-log")
    refused(lambda: verify(tmp_path), "no-log")
    refused(lambda: AuditLog.open(tmp_path / "none", create=False), "no-log")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_after_close_nothing_is_written(folder: Path, fill: Fill) -> None:
    log = fill(folder, 1)
    log.close()
    log.close()
    for call in (lambda: log.append(entry(1)), log.checkpoint, lambda: log.erase("anna")):
        refused(call, "closed")
    assert verify(folder).records == 1


def test_files_are_not_for_everybody(folder: Path, fill: Fill) -> None:
    fill(folder, 1).close()
    modes = {path.name: path.stat().st_mode & 0o777 for path in [folder, *folder.iterdir()]}
    assert modes["log"] == 0o700
    assert modes["people.keys"] == 0o600
    assert all(mode & 0o007 == 0 for mode in modes.values())


# --- group commit


def test_many_threads_are_acknowledged_only_after_a_sync_that_several_share(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    durable, syncs, real = 0, 0, os.fsync

    def fsync(handle: int) -> None:
        nonlocal durable, syncs
        path = Path(f"/proc/self/fd/{handle}").readlink()
        if path.name.startswith("records-"):
            before = path.read_bytes().count(b"\n")
            time.sleep(0.01)
            real(handle)
            durable, syncs = before, syncs + 1

    log, late = AuditLog.open(folder), []
    monkeypatch.setattr(os, "fsync", fsync)

    def work(thread: int) -> None:
        for number in range(10):
            if log.append(entry(number, f"person {thread}")).sequence >= durable:
                late.append(thread)

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(16)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert late == []
    assert syncs < 80  # of 160 appends
    log.close()
    verdict = verify(folder)
    assert verdict.ok
    assert verdict.records == 160
    assert len({record["who"] for _, record in read_records(folder)}) == 16


def test_a_new_file_has_a_durable_name_before_anything_in_it_is_acknowledged(
    folder: Path, fill: Fill, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced, real = list[str](), os.fsync

    def fsync(handle: int) -> None:
        synced.append(Path(f"/proc/self/fd/{handle}").readlink().name)
        real(handle)

    log = fill(folder, 1, segment_bytes=1)
    monkeypatch.setattr(os, "fsync", fsync)
    log.append(entry(1, "person 0"))
    assert synced == ["log", "records-000000000001.jsonl"]
    log.close()


def test_an_interrupted_writer_leaves_the_others_with_an_error_and_the_log_whole(
    folder: Path, fill: Fill, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, real = fill(folder, 3), os.pwrite

    def interrupt(handle: int, data: bytes, offset: int) -> int:
        real(handle, data[: len(data) // 2], offset)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "pwrite", interrupt)
    with pytest.raises(KeyboardInterrupt):
        log.append(entry(3, "person 0"))
    monkeypatch.undo()
    refused(lambda: log.append(entry(4)), "broken")
    refused(log.close, "broken")
    again = AuditLog.open(folder)
    assert again.cut > 0
    assert again.append(entry(3)).sequence == 3
    again.close()
    assert verify(folder).ok


# --- recovery


def test_a_last_line_cut_anywhere_is_dropped_and_nothing_else(folder: Path, fill: Fill) -> None:
    fill(folder, 3, checkpoint_every=1).close()
    path, notes = segments(folder)[0].path, folder / "checkpoints.jsonl"
    whole, before = path.read_bytes(), notes.read_bytes()
    end = len(b"".join(whole.splitlines(keepends=True)[:2]))
    noted = len(b"".join(before.splitlines(keepends=True)[:2]))
    for length in [end, end + 1, *range(end + 2, len(whole), 37), len(whole) - 1]:
        torn = before[noted : min(noted + length - end, len(before) - 1)]  # the last checkpoint torn as well
        path.write_bytes(whole[:length])
        notes.write_bytes(before[:noted] + torn)
        assert verify(folder).unfinished == length - end
        log = AuditLog.open(folder)
        assert log.cut == length - end + len(torn)
        assert log.size == 2
        assert path.read_bytes() == whole[:end]
        log.append(entry(9))
        log.close()
        assert verify(folder).ok


def test_an_acknowledged_end_that_is_gone_is_no_recovery(folder: Path, fill: Fill) -> None:
    fill(folder, 4).close()
    path = segments(folder)[0].path
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:3]))
    assert "the end of the log is gone" in refused(lambda: AuditLog.open(folder), "truncated")
    path.unlink()
    refused(lambda: AuditLog.open(folder), "truncated")


def test_a_damaged_record_behind_the_last_checkpoint_stops_the_opening(folder: Path, fill: Fill) -> None:
    fill(folder, 2).close()
    log = fill(folder, 3)
    log._files.close()  # as a crash does: no last checkpoint
    path = segments(folder)[0].path
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"sequence":3', b'"sequence":7'))
    assert "records-000000000000.jsonl line 4: " in refused(lambda: AuditLog.open(folder), "wrong-sequence")
    path.write_bytes(whole)
    with AuditLog.open(folder) as log:
        assert log.size == 5


def test_a_record_that_the_last_checkpoint_names_cannot_be_exchanged_unseen(folder: Path, fill: Fill) -> None:
    fill(folder, 3).close()
    path = segments(folder)[0].path
    path.write_bytes(path.read_bytes().replace(b'"friendly":2', b'"friendly":3'))
    assert "not the record that the last checkpoint names" in refused(lambda: AuditLog.open(folder), "broken-chain")


def test_a_beginning_that_a_crash_cut_short_is_begun_again(folder: Path) -> None:
    folder.mkdir()
    (folder / "lock").touch()
    (folder / "origin").write_bytes(b"soupmix.au")
    with AuditLog.open(folder) as log:
        log.append(entry(0))
    keys = (folder / "people.keys").read_bytes()
    assert len(keys) == 128
    (folder / "people.keys").write_bytes(keys + keys[:40])
    with AuditLog.open(folder) as log:
        log.append(entry(1))
    first, second = (record["who"] for _, record in read_records(folder))
    assert first == second


# --- checkpoints and keys


def test_checkpoints_are_written_every_so_often_on_demand_and_on_close(folder: Path, fill: Fill) -> None:
    log = fill(folder, 10, checkpoint_every=4)
    assert newest_checkpoint(folder).size == 8
    assert log.checkpoint().size == 10
    assert log.checkpoint().size == 10  # nothing new: the same one
    log.append(entry(10))
    log.close()
    assert newest_checkpoint(folder).size == 11
    assert verify(folder).checkpoints == 4


def test_signed_checkpoints(folder: Path, fill: Fill, keys: Opened, signer: Signer, verifier: Verifier) -> None:
    fill(folder, 3, signer=signer).close()
    assert verify(folder, verifier=verifier).ok
    assert [each.kind for each in verify(folder, verifier=Verifier.load([keys("stranger")[1]])).findings] == [
        "bad-signature"
    ]
    assert verify(folder, verifier=Verifier.load([keys("stranger")[1], keys("ours")[1]])).ok
    fill(folder, 3).close()  # somebody without the key
    verdict = verify(folder, verifier=verifier)
    assert [each.kind for each in verdict.findings] == ["unsigned"]
    assert (verdict.signed, verdict.signatures_checked) == (1, True)
    with AuditLog.open(folder, signer=signer) as log:
        assert log.checkpoint().signatures  # the same size, but this one is signed


def test_a_signature_is_a_signed_note(folder: Path, fill: Fill, keys: Opened, signer: Signer) -> None:
    """As C2SP defines it: checked here by `cryptography` alone."""
    from base64 import b64decode
    from hashlib import sha256

    from cryptography.hazmat.primitives import serialization

    with fill(folder, 3, signer=signer) as log:
        text = log.checkpoint().text()
    body, _, signature = text.partition("\n\n")
    dash, name, raw = signature.rstrip("\n").split(" ")
    public = serialization.load_pem_public_key(keys("ours")[1].read_bytes())
    plain = public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    assert (dash, name) == ("—", log.origin)
    assert b64decode(raw)[:4] == sha256(name.encode() + b"\n\x01" + plain).digest()[:4]
    public.verify(b64decode(raw)[4:], (body + "\n").encode())  # type: ignore[union-attr, call-arg]
    assert body.splitlines()[1] == "3"


def test_a_file_that_is_no_key_is_one_sentence(tmp_path: Path, keys: Opened) -> None:
    (tmp_path / "no.pem").write_text("no")
    for call in (
        lambda: Signer.load(tmp_path / "no.pem"),
        lambda: Verifier.load([tmp_path / "no.pem"]),
        lambda: Signer.load(keys("ours")[1]),
        lambda: Verifier.load([keys("ours")[0]]),
        lambda: Signer.load(tmp_path / "absent.pem"),
    ):
        refused(call, "bad-key")


def test_only_keys_need_the_extra(folder: Path, fill: Fill, keys: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives", None)
    fill(folder, 3).close()
    assert verify(folder).ok
    assert "soupmix[audit]" in refused(lambda: Signer.load(keys("ours")[0]), "no-cryptography")
    assert "soupmix[audit]" in refused(lambda: Verifier.load([keys("ours")[1]]), "no-cryptography")


# --- people


def test_the_same_person_has_one_name_and_the_log_never_the_id(folder: Path, fill: Fill) -> None:
    fill(folder, 6).close()
    fill(folder, 3).close()
    who = [record["who"] for _, record in read_records(folder)]
    assert who == who[:3] * 3
    assert len(set(who)) == 3
    assert pseudonym(folder, "person 1") == who[1]
    assert pseudonym(folder, "nobody") is None
    everything = b"".join(path.read_bytes() for path in folder.iterdir())
    assert b"person" not in everything


def test_one_of_several_who_came_at_once_is_erased_and_no_other(tmp_path: Path) -> None:
    people = People(tmp_path)
    names = people.names(["anna", "ben", None, "cleo", "ben"])
    assert names[1] == names[4]
    people.erase("ben")
    people.close()
    assert [pseudonym(tmp_path, each) for each in ("anna", "ben", "cleo")] == [names[0], None, names[3]]


def test_erasing_unlinks_a_person_and_the_log_verifies_as_before(
    folder: Path, fill: Fill, signer: Signer, verifier: Verifier
) -> None:
    with fill(folder, 6, signer=signer) as log:
        held, before = log.checkpoint(), pseudonym(folder, "person 1")
        key = next(slot for slot in slots(folder) if before == name_by(slot, "person 1"))
        assert log.erase("person 1")
        assert not log.erase("person 1")
        assert not log.erase("nobody")
        assert pseudonym(folder, "person 1") is None
        assert key not in (folder / "people.keys").read_bytes()
        log.append(entry(6, "person 1"))
        log.append(entry(7, "person 2"))
    records = [record for _, record in read_records(folder)]
    assert records[6]["entry"]["event"] == "erasure"
    assert records[6]["who"] == before == records[1]["who"]
    assert records[7]["who"] == pseudonym(folder, "person 1") != before
    assert records[8]["who"] == records[2]["who"]
    assert verify(folder, verifier=verifier, held=[held]).ok
    with AuditLog.open(folder) as log:  # the slot of zeros is nobody
        assert log.append(entry(8, "person 2")).sequence == 9
    assert [record["who"] for _, record in read_records(folder)][9] == records[2]["who"]


def slots(folder: Path) -> list[bytes]:
    data = (folder / "people.keys").read_bytes()
    return [data[place + 32 : place + 64] for place in range(64, len(data), 64)]


def name_by(key: bytes, person: str) -> str:
    import hmac

    return hmac.digest(key, person.encode(), "sha256").hex()


def test_a_held_checkpoint_survives_as_text(folder: Path, fill: Fill) -> None:
    with fill(folder, 3) as log:
        text = log.checkpoint().text()
        log.append(Record("refusal", person="anna", reason="unknown-adapter"))
    assert verify(folder, held=[Checkpoint.parse(text)]).ok

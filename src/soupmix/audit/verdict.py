"""Is a log what was written? Chain, tree and checkpoints, all computed anew.

What this shows and what not is in docs/audit.md: changes are found, and a cut end back to the newest checkpoint that is
held where whoever cuts cannot reach it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from soupmix.audit.keys import Verifier
from soupmix.audit.notes import Checkpoint
from soupmix.audit.records import Chain
from soupmix.audit.segments import CHECKPOINTS, read_checkpoints, read_origin, segments
from soupmix.audit.walk import walk
from soupmix.errors import AuditError
from soupmix.findings import Finding, Verdict

__all__ = ["LogVerdict", "verify"]


@dataclass(frozen=True, slots=True)
class LogVerdict(Verdict):
    """What was found out about a log; with no findings it is as it was written.

    Attributes:
        origin: which log. records: how many were good, from the first on. root: of their tree, hex.
        segments, checkpoints: how many files of records, and checkpoints in the log, there are.
        held: checkpoints from outside that were compared. signed: how many of all are signed.
        signatures_checked: whether a key was given to check them with.
        unfinished: bytes of a last line that was never finished, and of which nobody was told.
    """

    origin: str
    records: int
    root: str
    segments: int
    checkpoints: int
    held: int
    signed: int
    signatures_checked: bool
    unfinished: int


def verify(folder: str | Path, *, verifier: Verifier | None = None, held: Sequence[Checkpoint] = ()) -> LogVerdict:
    """Read a whole log and compute everything anew. It may be open for writing meanwhile.

    Args:
        verifier: with it, every checkpoint must bear a good signature.
        held: checkpoints of this log that were kept elsewhere. Only these show that its end was not cut off, or all of it
            written anew.

    Returns:
        Findings of the kinds "bad-record", "wrong-sequence", "broken-chain", "missing-segment", "damaged" (the first bad
        place; nothing behind it is read), "wrong-root", "truncated", "bad-checkpoint", "other-log", "unsigned" and
        "bad-signature", about "records" or "checkpoints".

    Raises:
        AuditError: the folder holds no log (reason "no-log"). OutputError: a file cannot be read.
    """
    folder = Path(folder)
    origin = read_origin(folder)
    own, findings = _own(folder)  # before the records: a checkpoint is written after what it is about
    notes = sorted([*own, *held], key=lambda each: each.size)
    findings += _signatures(notes, origin, verifier)
    chain, unfinished = Chain(origin), 0
    waiting = [each for each in notes if each.origin == origin and each.size]
    agreed = 0
    try:
        for line, record in walk(folder, chain):
            if record is None:
                unfinished = len(line)
            while waiting and waiting[0].size == chain.tree.size:
                findings += _compare(waiting[0], chain, agreed)
                agreed = waiting.pop(0).size
    except AuditError as error:
        findings.append(Finding(error.reason, "records", str(error)))
    else:
        findings += [_cut(each, chain) for each in waiting if each.size > chain.tree.size]
    return LogVerdict(
        origin=origin,
        records=chain.tree.size,
        root=chain.tree.root().hex(),
        segments=len(segments(folder)),
        checkpoints=len(own),
        held=len(held),
        signed=sum(bool(each.signatures) for each in notes),
        signatures_checked=verifier is not None,
        unfinished=unfinished,
        findings=tuple(findings),
    )


def _own(folder: Path) -> tuple[list[Checkpoint], list[Finding]]:
    found: list[Checkpoint] = []
    try:
        for each in read_checkpoints(folder):
            if found and each.size < found[-1].size:
                message = f"{CHECKPOINTS}: a checkpoint at {each.size} records stands behind one at {found[-1].size}"
                return found, [Finding("bad-checkpoint", "checkpoints", message)]
            found.append(each)
    except AuditError as error:
        return found, [Finding(error.reason, "checkpoints", str(error))]
    return found, []


def _signatures(notes: Sequence[Checkpoint], origin: str, verifier: Verifier | None) -> Iterator[Finding]:
    for note in notes:
        if note.origin != origin:
            message = f"a checkpoint at {note.size} records is of another log, {note.origin}; this one is {origin}"
            yield Finding("other-log", "checkpoints", message)
        elif verifier is not None:
            try:
                verifier.check(note)
            except AuditError as error:
                yield Finding(error.reason, "checkpoints", str(error))


def _compare(note: Checkpoint, chain: Chain, agreed: int) -> Iterator[Finding]:
    if (note.root, note.last) != (chain.tree.root(), chain.last):
        message = f"records {agreed} to {note.size - 1} are not those of the checkpoint at {note.size} records"
        yield Finding("wrong-root", "records", message)


def _cut(note: Checkpoint, chain: Chain) -> Finding:
    message = f"there was a checkpoint at {note.size} records, but the log has {chain.tree.size}: its end is gone"
    return Finding("truncated", "records", message)

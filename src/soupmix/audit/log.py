"""The audit log: one writer, many threads, nothing acknowledged before the disk has it.

Appends that come while the disk is busy wait together; the first of them then writes and syncs for all (group commit).
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Protocol, Self, TypeVar

from soupmix.audit.appender import Appender, open_plain
from soupmix.audit.checkpoints import Checkpoint, Signer
from soupmix.audit.people import People
from soupmix.audit.records import Chain, Record, time_text
from soupmix.audit.segments import (
    CHECKPOINTS,
    ORIGIN,
    Segments,
    check_place,
    cut_unfinished,
    last_checkpoint,
    note_line,
    read_origin,
    segments,
)
from soupmix.audit.turns import Turns
from soupmix.audit.walk import walk
from soupmix.errors import AuditError, OutputError, SoupmixError
from soupmix.files import sync_folder
from soupmix.locks import lock

__all__ = ["AuditLog", "Receipt"]

_LOCK = "lock"


@dataclass(frozen=True, slots=True)
class Receipt:
    """What an append is answered with once the record is on the disk.

    Attributes:
        sequence: the number of the record, from 0. digest: its leaf hash, hex: what an inclusion proof is about.
    """

    sequence: int
    digest: str


class _Waiting:
    """An append that waits: what to write, then what came of it."""

    __slots__ = ("data", "failure", "person", "receipt")

    def __init__(self, record: Record) -> None:
        self.data, self.person = record.encoded(), record.person
        self.receipt: Receipt | None = None
        self.failure: SoupmixError | None = None

    def outcome(self) -> Receipt:
        if self.receipt is not None:
            return self.receipt
        if self.failure is None:
            raise AuditError("the thread that wrote the audit log was interrupted; nothing is known", reason="broken")
        raise type(self.failure)(str(self.failure), reason=self.failure.reason) from self.failure


class AuditLog:
    """An audit log that is open for writing. Every method may be called from any thread.

    Attributes:
        folder: where. origin: the name of this log. cut: bytes of a never acknowledged last line that opening cut off.
    """

    def __init__(
        self, folder: Path, files: ExitStack, signer: Signer | None, clock: Callable[[], float], every: int, limit: int
    ) -> None:
        """Use `open`."""
        self.folder, self.origin = folder, _name_of(folder)
        self._files, self._signer, self._clock, self._every = files, signer, clock, every
        self._people = _closing(files, People(folder))
        self._notes = _closing(files, Appender(folder / CHECKPOINTS))
        self._segments = _closing(files, Segments(folder, limit))
        self.cut = self._segments.recover() + cut_unfinished(self._notes)
        self._noted = last_checkpoint(folder, self.origin)
        self._chain = self._noted.chain() if self._noted else Chain(self.origin)
        for _ in walk(folder, self._chain):
            pass
        self._turns, self._sound, self._closed = Turns[_Waiting](), True, False

    @classmethod
    def open(
        cls,
        folder: str | Path,
        *,
        signer: Signer | None = None,
        clock: Callable[[], float] = time.time,
        checkpoint_every: int = 256,
        segment_bytes: int = 16 << 20,
        create: bool = True,
    ) -> Self:
        """Open a log, or begin one, and go on where it stands; what a crash left unfinished is cut off.

        Reads from the last checkpoint on; `verify` reads everything.

        Args:
            folder: made if it is not there; an existing one must be empty or hold a log.
            signer: signs checkpoints; without it they are not signed.
            clock: seconds since 1970.
            checkpoint_every: records after which a checkpoint is written, at the next append; also on `close`.
            segment_bytes: size after which a file of records is not continued.
            create: begin a log if the folder holds none.

        Raises:
            AuditError: another writer has it open ("in-use"), the folder holds something else ("no-log"), or the log is
                damaged (reasons of `walk`). OutputError: the disk refuses.
        """
        if checkpoint_every < 1 or segment_bytes < 1:
            raise AuditError("a checkpoint and a file of records need at least one record", reason="bad-option")
        folder = Path(folder)
        if not create:
            read_origin(folder)
        with ExitStack() as stack:
            _take(folder, stack)
            made = cls(folder, stack, signer, clock, checkpoint_every, segment_bytes)
            made._files = stack.pop_all()
        return made

    @property
    def size(self) -> int:
        """Number of records."""
        return self._chain.tree.size

    def append(self, record: Record) -> Receipt:
        """Write a record and wait until the disk has it.

        Raises:
            OutputError: the disk refuses ("write-failed"); nothing is acknowledged. After a failed sync the record may turn
                up in the log all the same: a record without its deed is possible, a deed without its record is not.
            AuditError: the log is closed ("closed"), or an earlier failure left unknown what the disk has and the log must
                be opened anew ("broken").
        """
        waiting = _Waiting(record)
        self._turns.share(waiting, self._commit)
        return waiting.outcome()

    def checkpoint(self) -> Checkpoint:
        """Write down where the log stands, signed if there is a signer; give it to somebody who is not you."""
        with self._alone():
            return self._note()

    def erase(self, person: str) -> bool:
        """Destroy a person's key, so that no record can be linked to that person any more; whether there was one.

        The order is recorded first, under the name that the person had.
        """
        with self._alone():
            if not self._people.known(person):
                return False
            self._record([_Waiting(Record("erasure", person=person))])
            self._people.erase(person)
            return True

    def close(self) -> None:
        """Write a last checkpoint if there are new records, and let the log go. Once is enough, twice does no harm."""
        if self._closed:
            return
        try:
            with self._alone():
                self._closed = True  # whoever waits is refused, and never writes to files that are gone
                if self.size:
                    self._note()
        finally:
            self._closed = True
            self._files.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _commit(self, batch: Sequence[_Waiting]) -> None:
        """Write a batch; every waiting gets its receipt or the reason why not."""
        try:
            with self._careful():
                receipts = self._record(batch)
        except SoupmixError as error:
            for waiting in batch:
                waiting.failure = error
        else:
            for waiting, receipt in zip(batch, receipts, strict=True):
                waiting.receipt = receipt

    def _record(self, batch: Sequence[_Waiting]) -> list[Receipt]:
        noted = self._noted.size if self._noted else 0
        if self.size - noted >= self._every:
            self._note()
        chain, now = self._chain.copy(), time_text(self._clock())
        names = self._people.names(waiting.person for waiting in batch)
        lines, receipts = [], []
        for waiting, name in zip(batch, names, strict=True):
            lines.append(chain.add(waiting.data, now, name) + b"\n")
            receipts.append(Receipt(chain.tree.size - 1, chain.last.hex()))
        self._segments.append(b"".join(lines), self.size)
        self._chain = chain
        return receipts

    def _note(self) -> Checkpoint:
        made = Checkpoint.of(self.origin, self._chain)
        if self._signer is not None:
            made = made.signed(self._signer)
        if self._noted and self._noted.size == made.size and (self._signer is None or self._noted == made):
            return self._noted
        self._notes.append(note_line(made))
        self._noted = made
        return made

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Be the one thread that writes."""
        with self._turns.alone(), self._careful():
            yield

    @contextmanager
    def _careful(self) -> Iterator[None]:
        """Write, unless the log is closed, or an interruption left the files ahead of what this process knows."""
        if self._closed:
            raise AuditError(f"the audit log {self.folder} is closed", reason="closed")
        if not self._sound:
            raise AuditError(
                f"writing the audit log {self.folder} was interrupted; close it and open it again", reason="broken"
            )
        self._sound = False
        try:
            yield
        except SoupmixError:
            self._sound = True  # the files themselves know whether they can go on
            raise
        self._sound = True


def _take(folder: Path, stack: ExitStack) -> None:
    """Make the folder, and lock it until the stack is closed."""
    check_place(folder)
    try:
        if not folder.exists():
            folder.mkdir(mode=0o700, parents=True)
            sync_folder(folder.parent)
        if not {path.name for path in folder.iterdir()} <= {_LOCK, ORIGIN}:
            read_origin(folder)
        handle = open_plain(folder / _LOCK, os.O_RDWR | os.O_CREAT)
        stack.callback(os.close, handle)
        free = lock(handle, wait=False)
    except OSError as error:
        if isinstance(error, SoupmixError):
            raise
        raise OutputError(
            f"cannot open audit log {folder}: {error.strerror or error}", reason="write-failed"
        ) from error
    if not free:
        raise AuditError(
            f"another process is writing the audit log {folder}; a log has one writer, so use that one or another folder",
            reason="in-use",
        )


def _name_of(folder: Path) -> str:
    """The name of the log; a new one gets a random name."""
    if not segments(folder):
        with Appender(folder / ORIGIN) as file:
            cut_unfinished(file)
            if not file.size:
                file.append(f"soupmix.audit/{token_hex(16)}\n".encode())
    return read_origin(folder)


class _Closing(Protocol):
    def close(self) -> None: ...


_File = TypeVar("_File", bound=_Closing)


def _closing(stack: ExitStack, file: _File) -> _File:
    stack.callback(file.close)
    return file

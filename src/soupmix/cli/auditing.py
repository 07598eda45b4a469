"""`--audit DIR --who ID`: what a command grants or refuses is on record before anything else happens."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from soupmix.audit import AuditLog, Record, Signer
from soupmix.cli.options import PATH

__all__ = ["Recorder", "audit_option", "signer_of", "tell_cut"]

_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Recorder:
    """Writes records into the audit log of a command, or nowhere without `--audit`.

    Attributes:
        folder: of the audit log. person: who asked. key: private key that signs checkpoints, or None.
    """

    folder: Path | None
    person: str | None
    key: Path | None

    @property
    def files(self) -> tuple[Path, ...]:
        """The log and its key, which nothing may replace."""
        return tuple(each for each in (self.folder, self.key) if each is not None)

    def append(self, record: Record) -> None:
        """Write a record down. Raises `AuditError` or `OutputError` if it cannot be."""
        with self.opened() as append:
            if append is not None:
                append(record)

    @contextmanager
    def opened(self) -> Iterator[Callable[[Record], object] | None]:
        """Hold the log for many records: what appends one, or None without `--audit`."""
        if self.folder is None:
            yield None
            return
        with AuditLog.open(self.folder, signer=signer_of(self.key)) as log:
            tell_cut(log)
            yield log.append


def audit_option(command: _Command) -> _Command:
    """`--audit DIR`, `--who ID`, `--audit-key KEY.pem`; the command gets `recorder: Recorder`."""

    @click.option(
        "--audit",
        metavar="DIR",
        type=PATH,
        help="Record the grant in this audit log before anything is done; the log is begun if there is none.",
    )
    @click.option("--who", metavar="ID", help="For --audit: who asks. The log gets a keyed hash of it.")
    @click.option(
        "--audit-key",
        metavar="KEY.pem",
        type=PATH,
        help="For --audit: private Ed25519 key that signs the log's checkpoints.",
    )
    @functools.wraps(command)
    def with_recorder(
        *arguments: Any, audit: Path | None, who: str | None, audit_key: Path | None, **options: Any
    ) -> Any:
        if (audit is None) != (who is None) or (audit_key is not None and audit is None):
            raise click.UsageError("--audit DIR and --who ID go together, and --audit-key with them")
        return command(*arguments, recorder=Recorder(audit, who, audit_key), **options)

    return cast("_Command", with_recorder)


def signer_of(path: Path | None) -> Signer | None:
    """The signer of a key file, if one is given."""
    return Signer.load(path) if path else None


def tell_cut(log: AuditLog) -> None:
    """Say on stderr what opening the log cut off."""
    if log.cut:
        click.echo(
            f"soupmix: note: {log.cut} bytes of a record that was never finished or acknowledged were cut off {log.folder}",
            err=True,
        )

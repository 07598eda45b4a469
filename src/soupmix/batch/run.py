"""A batch from beginning to end: lines to answers to a journal, and the journal to the output in one step."""

import io
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import fields
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, cast

from soupmix.backends import Backend
from soupmix.batch.desk import Defaults, Desk
from soupmix.batch.held import check_held
from soupmix.batch.inputs import JSONL, InputFile
from soupmix.batch.journal import Journal, check_plain, journal_path
from soupmix.batch.jsonl import write_results
from soupmix.batch.line import CHAT
from soupmix.batch.order import in_order
from soupmix.errors import OutputError, RecipeError
from soupmix.files import compact_json, new_file, sha256_file, strict_json
from soupmix.modes import FULL
from soupmix.replacing import check_file
from soupmix.version import __version__

__all__ = ["answer_lines", "check_free", "check_new", "finish", "settings_of"]

_GREETING = ({"role": "user", "content": "hi"},)


def settings_of(source: InputFile, lines: int, defaults: Defaults, more: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that the results depend on, as JSON by name: a batch goes on under these only.

    Args:
        more: digests of what answers and allows, and limits that show in results.
    """
    said = {each.name: getattr(defaults, each.name) for each in fields(defaults)}
    if defaults.mode == FULL:  # a batch that was begun when there was no other goes on
        del said["mode"]
    return {
        **said,
        "attributes": dict(defaults.attributes),
        "weights": str(defaults.weights),
        "columns": dict(source.columns.by_target),
        "input": sha256_file(source.path),
        "limit": source.columns.limit,
        "lines": lines,
        "soupmix": __version__,
        **more,
    }


def answer_lines(
    source: InputFile,
    journal: Journal,
    desk: Desk,
    backend: Backend,
    *,
    advance: Callable[[int], None] = lambda done: None,
    stopping: Callable[[], bool] = lambda: False,
) -> None:
    """Answer what the journal does not hold yet, until all is answered or `stopping` says so.

    What it does hold is checked first: see `check_held`; and whether the model reads conversations, if a line has one.

    Args:
        desk: checks a line and asks the policy, and writes a result as an output line.
        advance: told how many results there are, whenever there is one more.

    Raises:
        RecipeError: the journal holds what this policy does not give ("batch-changed").
        BaseModelError: the chat template does not compile ("bad-template"), or asks too much for a greeting ("template-limit").
        SoupmixError: the engine, the disk or the audit log fails; what the journal holds stays good.
    """
    record = partial(desk.record, batch=journal.digest)
    check_held(source, journal, desk.preview, record)
    if any(line.url == CHAT and line.error is None for line in source.lines(journal.done)):
        with suppress(RecipeError):  # each line says that there is no template, or what it does not take
            backend.tokens(_GREETING)
    for result in in_order(source.lines(journal.done), desk.begin, backend, stopping=stopping):
        journal.append(compact_json(record(result)))
        advance(journal.done)


def check_new(out: Path, *, force: bool, reads: Iterable[Path] = ()) -> None:
    """Whether an output may come here, if its batch has not begun; see `soupmix.replacing.check_file`.

    Raises:
        OutputError: as `check_file`, or it is no plain file with one name, replaced or not ("not-a-file").
    """
    check_plain(out)
    if force or not os.path.lexists(journal_path(out)):
        check_file(out, force=force, reads=reads)


def check_free(out: Path, journal: Journal, lines: int) -> None:
    """Raise OutputError (reason "exists") if the output stands there already, and is not this batch's own."""
    if os.path.lexists(out) and not journal.force and journal.done < lines:
        raise _exists(out)


def finish(source: InputFile, journal: Journal, out: Path, *, digest: str) -> Counter[int]:
    """Write the output from a journal that holds every result, then remove the journal.

    Args:
        digest: SHA-256 of the input as it was when the batch began.

    Returns:
        How many results have which status.

    Raises:
        RecipeError: the input changed meanwhile (reason "batch-changed").
        OutputError: the output exists, or the disk refuses; the journal stays.
    """
    if sha256_file(source.path) != digest:
        raise RecipeError(
            f"{source.path} changed while it was answered; put it back, or pass --force to begin anew",
            reason="batch-changed",
        )
    seen = Counter[int]()
    if os.path.lexists(out) and not journal.force:
        _check_same(source, journal, out, seen)
    else:
        with new_file(out, force=journal.force) as file:
            _write(source, journal, out, file, seen)
    journal.remove()
    return seen


def _write(source: InputFile, journal: Journal, out: Path, file: BinaryIO, seen: Counter[int]) -> None:
    write = write_results if out.suffix in JSONL else source.write
    write(file, _counted(journal, seen))


def _counted(journal: Journal, seen: Counter[int]) -> Iterator[Mapping[str, Any]]:
    for data in journal.results():
        result = strict_json(data)
        seen[result["response"]["status_code"]] += 1
        yield result


class _Digest(io.RawIOBase):
    """A file of which only the SHA-256 is kept."""

    def __init__(self) -> None:
        self.sha256 = sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.sha256.update(data)
        return len(data)


def _check_same(source: InputFile, journal: Journal, out: Path, seen: Counter[int]) -> None:
    """Whether the output is in place already: killed between the last two steps."""
    digest = _Digest()
    _write(source, journal, out, cast("BinaryIO", digest), seen)
    if not out.is_file() or sha256_file(out) != digest.sha256.hexdigest():
        raise _exists(out)


def _exists(out: Path) -> OutputError:
    return OutputError(f"{out} exists already; choose another name or pass --force to replace it", reason="exists")

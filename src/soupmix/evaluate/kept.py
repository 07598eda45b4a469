"""What a model is asked of an evaluation takes long, so its values are kept in files, and a stopped run goes on.

A value counts only under the key of all that it depends on; what is missing is made, the rest is not again.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from soupmix.errors import EvaluationError
from soupmix.evaluate.record import bounded_json
from soupmix.evaluate.workers import as_finished, workers
from soupmix.files import compact_json, write_file, writing
from soupmix.sealed import read_sealed

__all__ = ["Place", "Values", "kept_values", "path_of", "rounded"]

Values = Mapping[str, float]

Place = tuple[Path, str]
"""A file, and the key of values in it."""

_Of = TypeVar("_Of")

_CHUNK = 16  # of what values are of
_CAP = 8 << 20


def kept_values(
    of: Sequence[_Of],
    places: Sequence[Place],
    work: Callable[[Any, Sequence[_Of]], Sequence[Values]],
    given: Any,
    *,
    jobs: int,
    advance: Callable[[int], None],
    damaged: str,
) -> list[Values]:
    """The values of each, in order.

    Args:
        of: what values are of. places: where those of each are kept.
        work: makes the values of some from what is `given`, perhaps in another process.
        jobs: worker processes. advance: called with how many have values.
        damaged: reason of the error where what is kept cannot be read.

    Raises:
        EvaluationError: what is kept is damaged, or a worker process was ended from outside (reason "worker-lost").
        OutputError: the disk refuses.
    """
    paths = dict.fromkeys(path for path, _ in places)
    for folder in {path.parent for path in paths}:
        with writing(folder):
            folder.mkdir(exist_ok=True)
    kept = {path: _read(path, damaged) for path in paths}
    left = [(each, place) for each, place in zip(of, places, strict=True) if place[1] not in kept[place[0]]]
    done = len(places) - len(left)
    advance(done)
    for chunk, found in _made(
        work, given, [left[start : start + _CHUNK] for start in range(0, len(left), _CHUNK)], jobs
    ):
        for (_, (path, key)), values in zip(chunk, found, strict=True):
            kept[path][key] = values
        for path in {path for _, (path, _) in chunk}:
            write_file(path, compact_json(kept[path]) + b"\n")
        advance(done := done + len(chunk))
    return [kept[path][key] for path, key in places]


def path_of(folder: Path, prompt: str) -> Path:
    """Where the values of the answers to a prompt are kept."""
    return folder / f"{sha256(prompt.encode()).hexdigest()[:32]}.json"


def rounded(value: float) -> float:
    """To six digits: beyond them processors differ."""
    return float(f"{value:.6g}")


def _made(
    work: Callable[[Any, Sequence[_Of]], Sequence[Values]],
    given: Any,
    chunks: Sequence[Sequence[tuple[_Of, Place]]],
    jobs: int,
) -> Iterator[tuple[Sequence[tuple[_Of, Place]], Sequence[Values]]]:
    calls = [(given, [each for each, _ in chunk]) for chunk in chunks]
    if jobs == 1 or len(chunks) < 2:
        yield from ((chunk, work(*call)) for chunk, call in zip(chunks, calls, strict=True))
        return
    with workers(jobs) as pool:
        for number, found in as_finished(pool, work, calls, error=EvaluationError):
            yield chunks[number], found


def _read(path: Path, damaged: str) -> dict[str, Values]:
    try:
        found = bounded_json(read_sealed(path, cap=_CAP, error=EvaluationError)[0])
    except EvaluationError as error:
        if error.reason == "missing":
            return {}
        raise
    except (ValueError, RecursionError) as error:
        raise _wrong(path, str(error), damaged) from None
    if not isinstance(found, dict) or not all(_are_values(each) for each in found.values()):
        raise _wrong(path, "no values by name", damaged)
    return found


def _are_values(found: object) -> bool:
    return isinstance(found, Mapping) and all(type(value) in (int, float) for value in found.values())


def _wrong(path: Path, why: str, damaged: str) -> EvaluationError:
    return EvaluationError(f"{path} is damaged: {why}; remove it, and it is measured again", reason=damaged)

"""Measuring: from samples to numbers. What a text says alone is told anew every time, which takes a moment."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from soupmix.errors import EvaluationError
from soupmix.evaluate.composition import Table
from soupmix.evaluate.measures import TEXT_MEASURES, Measure, measure_text, steered_by
from soupmix.evaluate.measures.measure import missing_library
from soupmix.evaluate.measures.recall import only_known
from soupmix.evaluate.promptset import Prompt
from soupmix.evaluate.record import EvaluationRecord
from soupmix.evaluate.samples import ArmSample
from soupmix.evaluate.workers import as_finished, workers

__all__ = ["MeasuredSamples", "NotMeasured", "check_libraries", "measure_samples"]

_CHUNK = 200  # samples
_Text = tuple[Prompt, str, bool]


@dataclass(frozen=True, slots=True)
class NotMeasured:
    """What a report does not say, and why."""

    what: str
    why: str


@dataclass(frozen=True, slots=True)
class MeasuredSamples:
    """Numbers of all samples.

    Attributes:
        tables: temperature -> values of every arm and prompt. measures: those that were taken, by name.
        left_out: those that were not, and why.
    """

    tables: Mapping[float, Table]
    measures: Mapping[str, Measure]
    left_out: tuple[NotMeasured, ...] = ()


def check_libraries(*, page: bool = True) -> None:
    """Raise `EvaluationError` (reason "no-library") if a measure or the page needs one: before hours of sampling, not after."""
    if page and find_spec("matplotlib") is None:
        raise missing_library("the page", "matplotlib")
    if find_spec("moocore") is None:
        raise missing_library("the hypervolume of a front", "moocore")
    measure_text(Prompt("Why?", "question", ("why",)), "It is so.", True)


def measure_samples(
    record: EvaluationRecord,
    samples: Sequence[ArmSample],
    *,
    jobs: int = 1,
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> MeasuredSamples:
    """Measure every sample by its text.

    Args:
        jobs: worker processes. progress: called with ("measuring", samples done, samples in all).

    Raises:
        EvaluationError: a library is not installed (reason "no-library"), or a worker process was ended from outside
            ("worker-lost").
    """
    prompts = {each.text: each for each in record.all_prompts()}
    texts = [(prompts[each.prompt], each.text, each.finished) for each in samples]
    tables: dict[float, dict[tuple[str, str], Mapping[str, float]]] = {each: {} for each in record.temperatures}
    done = 0
    for number, found in _measured([texts[start : start + _CHUNK] for start in range(0, len(texts), _CHUNK)], jobs):
        for sample, values in zip(samples[number * _CHUNK :], found, strict=False):
            tables[sample.temperature][sample.arm.name, sample.prompt] = values
        progress("measuring", done := done + len(found), len(samples))
    return MeasuredSamples(only_known(tables), steered_by(record.adapters.values(), TEXT_MEASURES))


def _measured(chunks: Sequence[list[_Text]], jobs: int) -> Iterator[tuple[int, list[Mapping[str, float]]]]:
    if jobs == 1 or len(chunks) < 2:
        yield from enumerate(map(_of_texts, chunks))
        return
    with workers(jobs) as pool:
        yield from as_finished(pool, _of_texts, [(chunk,) for chunk in chunks], error=EvaluationError)


def _of_texts(texts: list[_Text]) -> list[Mapping[str, float]]:
    return [measure_text(*each) for each in texts]

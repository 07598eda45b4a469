"""Whether what an evaluation would write can be read again: asked before hours of sampling, not after.

What is read is bounded (files are hostile until checked), so what is written is too.
"""

from collections import Counter
from collections.abc import Iterator, Mapping

from soupmix.errors import EvaluationError
from soupmix.evaluate.answered import is_plain_soup
from soupmix.evaluate.measures import TEXT_MEASURES, Measure, steered_by
from soupmix.evaluate.measures.judge import judges
from soupmix.evaluate.record import MOST_CONTAINERS, EvaluationRecord
from soupmix.evaluate.report import MOST_REPORT_BYTES
from soupmix.evaluate.samples import LONGEST_LINE, MOST_SAMPLE_BYTES
from soupmix.evaluate.soups import Arm
from soupmix.files import canonical_json, compact_json

__all__ = ["check_room", "report_size"]

_FIGURE = 66  # bytes of {"high":-12.3456,"low":-12.3456,"value":-12.3456} and its name
_LINE = 320  # bytes of a sample without arm, prompt and text
_TOKEN = 8  # bytes of text, more than a token of most languages has
_OPENINGS = 2  # measures of trained openers, see `soupmix.evaluate.judging`


def check_room(record: EvaluationRecord) -> None:
    """Raise `EvaluationError` if samples or report of this evaluation could not be read again.

    Raises:
        EvaluationError: reason "too-many-arms" (of the report), "too-many-answers", or "too-long" (a system prompt or a
            question).
    """
    containers, size = report_size(record)
    if containers > MOST_CONTAINERS or size > MOST_REPORT_BYTES:
        most = min(MOST_CONTAINERS / containers, MOST_REPORT_BYTES / size) * len(record.arms)
        raise EvaluationError(
            f"a report of {len(record.arms)} arms at {len(record.temperatures)} temperatures could not be read again, and one of "
            f"about {most:.0f} arms can; evaluate fewer soups, strengths or methods in one folder",
            reason="too-many-arms",
        )
    arms = [len(canonical_json(each.model_dump(mode="json"))) for each in record.arms]
    prompts = [len(compact_json([each.prompt, each.kind])) for each in record.prompts]
    longest = max(arms, default=0) + max(prompts, default=0) + _LINE + _TOKEN * record.length
    if longest > LONGEST_LINE:
        raise EvaluationError(
            f"a sample may have {LONGEST_LINE} bytes, and the longest would have about {longest} with its system prompt, "
            f"examples and question, and an answer of {record.length} tokens; make one of them shorter",
            reason="too-long",
        )
    total = len(record.temperatures) * (
        len(prompts) * sum(arms) + len(arms) * sum(prompts) + len(arms) * len(prompts) * (_LINE + record.length)
    )
    if total > MOST_SAMPLE_BYTES:
        raise EvaluationError(
            f"{len(arms)} arms, {len(prompts)} prompts and {len(record.temperatures)} temperatures make about {total} bytes of "
            f"samples, and {MOST_SAMPLE_BYTES} are allowed; evaluate fewer of them in one folder",
            reason="too-many-answers",
        )


def report_size(record: EvaluationRecord) -> tuple[int, int]:
    """About how many lists and objects, and how many bytes, the report of a whole run has; not less, hostile names aside."""
    measures = dict(steered_by(record.adapters.values(), TEXT_MEASURES))
    own = [each.measure for each in judges(record.adapters.values(), record.preferences)]
    measures |= {each.name: each for each in own}
    sizes = [_of_arm(arm, record, measures) for arm in record.all_arms()]
    times = len(record.temperatures)
    containers = sum(each[0] for each in sizes) * times + 4 * len(record.arms) + 1000
    said = sum(len(canonical_json(each.model_dump(mode="json"))) for each in record.arms)
    return containers, sum(each[1] for each in sizes) * times + said + 100_000


def _of_arm(arm: Arm, record: EvaluationRecord, measures: Mapping[str, Measure]) -> tuple[int, int]:
    """Lists and objects, and bytes, of what is said of an arm at one temperature."""
    every = len(measures) + 1 + _OPENINGS  # the question's, too
    containers, size = 12 + 3 * every, every * (2 * _FIGURE + 40) + 6 * len(arm.name) + 700  # with cost and fidelity
    steered = len({facts.dimension for facts in record.adapters.values()})
    containers += 8 + 3 * steered  # fronts and the like
    size += (3 * steered + 4) * _FIGURE + 24 * len(arm.name)
    for each, figures in _entries(arm, record, measures):
        containers += each * (1 + figures)
        size += each * (figures * _FIGURE + len(arm.name) + 110)
    return containers, size


def _entries(arm: Arm, record: EvaluationRecord, measures: Mapping[str, Measure]) -> Iterator[tuple[int, int]]:
    """(how many entries, of how many figures each) the composition has of a soup."""
    if not is_plain_soup(arm, arm.method):
        return
    counts = Counter(each.dimension for each in measures.values() if each.dimension)
    own = {record.adapters[name].dimension for name in arm.weights if name in record.adapters}
    kept = sum(counts[each] + _OPENINGS for each in own)
    if len(own) > 1:
        yield kept, 3
    elif own:
        yield sum(counts.values()) + _OPENINGS, 2
    if len(arm.weights) > 1:
        yield len(measures) + 1 + _OPENINGS, 1

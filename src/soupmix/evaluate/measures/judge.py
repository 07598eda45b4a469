"""The model's own judgement of answers, by how likely it finds them; for any dimension, also one without a metric.

The bare base judges, whoever answered: all arms stand before the same judge. An answer that was made under a preference prompt
stands before the very prompt that it was made under, and has an advantage in that.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from soupmix.engine import Engine
from soupmix.evaluate.likelihood import Forced, answer_log_p
from soupmix.evaluate.measures.measure import Measure, Steering
from soupmix.evaluate.promptset import conversation
from soupmix.policy import Grant

__all__ = ["QUESTION", "GivenAnswer", "Judge", "judge_answers", "judges", "question_log_p"]

_MOST = 256  # tokens of an answer that count, and of one from which its question is guessed

QUESTION = Measure(
    "question",
    "",
    "how much likelier its question is once the answer is known",
    "nats per token",
    1,
    "Li et al. 2016, mutual information",
    ("model",),
)
"""The measure of `question_log_p`: an answer that is about something else tells nothing of its question."""


@dataclass(frozen=True, slots=True)
class GivenAnswer:
    """A question and what somebody answered."""

    question: str
    text: str


@dataclass(frozen=True, slots=True)
class Judge:
    """What one end of a dimension is judged by.

    Attributes:
        name: of the measure. dimension, pole: which end has more of it.
        toward: system prompt that asks for the pole. against: that of the opposite one, "" for no system prompt.
    """

    name: str
    dimension: str
    pole: str
    toward: str
    against: str

    @property
    def measure(self) -> Measure:
        """Log-probability of the answer under the one prompt minus that under the other, per token."""
        title = f"how much likelier it is when asked to be {self.pole}"
        return Measure(self.name, self.dimension, title, "nats per token", 0, "soupmix", ("model",), self.pole)


def judges(adapters: Iterable[Steering], preferences: Mapping[str, str]) -> tuple[Judge, ...]:
    """The judges that the adapters of a store need, in order of their names.

    A dimension of two poles has one, "judge_DIMENSION", for the pole whose name comes first against the other. Any other
    dimension has one for each of its poles, "judge_DIMENSION_POLE", against no system prompt.

    Args:
        preferences: pole -> system prompt; a pole without one is not judged.
    """
    poles: dict[str, set[str]] = {}
    for entry in adapters:
        poles.setdefault(entry.dimension, set()).add(entry.pole)
    found: list[Judge] = []
    for dimension, ends in sorted(poles.items()):
        known = sorted(ends & set(preferences))
        if len(ends) == len(known) == 2:
            one, other = known
            found.append(Judge(f"judge_{dimension}", dimension, one, preferences[one], preferences[other]))
        else:
            found += [Judge(f"judge_{dimension}_{pole}", dimension, pole, preferences[pole], "") for pole in known]
    return tuple(found)


def judge_answers(
    engine: Engine, bare: Grant, answers: Sequence[GivenAnswer], by: Sequence[Judge], *, most: int = _MOST
) -> list[dict[str, float]]:
    """What every judge says of every answer.

    Args:
        bare: a grant of nothing, under which the base judges.
        most: tokens of an answer that count, from its beginning.

    Returns:
        Name of the measure -> value, of each answer; empty for an answer without tokens.

    Raises:
        RecipeError, PolicyRefusal, PolicyError, AdapterError, BaseModelError, TypeError: as `answer_log_p`.
    """
    forced = [
        Forced(conversation(each.question, system), each.text.strip(), bare)
        for each in answers
        for judge in by
        for system in (judge.toward, judge.against)
    ]
    means = iter(answer_log_p(engine, forced, most=most))
    return [{judge.name: gap for judge in by if (gap := _gap(next(means), next(means))) is not None} for _ in answers]


def question_log_p(engine: Engine, bare: Grant, answers: Sequence[GivenAnswer]) -> list[float | None]:
    """Log-probability of the question when the answer is known minus that when it is not, nats per token of the question.

    Returns:
        One value per answer; None where the question has no tokens.

    Raises:
        RecipeError, PolicyRefusal, PolicyError, AdapterError, BaseModelError, TypeError: as `answer_log_p`.
    """
    questions = list(dict.fromkeys(each.question for each in answers))
    known = [Forced(_guess(_shortened(engine, each.text)), each.question, bare) for each in answers]
    unknown = [Forced("Write a question.", question, bare) for question in questions]
    found = answer_log_p(engine, [*known, *unknown])
    alone = dict(zip(questions, found[len(answers) :], strict=True))
    return [_gap(after, alone[each.question]) for each, after in zip(answers, found, strict=False)]


def _shortened(engine: Engine, text: str) -> str:
    """By tokens, not by letters: of some scripts a letter is three, and a model has only so many positions."""
    ids = engine.prompts.tokens(text) if text else ()
    return text if len(ids) <= _MOST else str(engine.tokenizer.decode(ids[:_MOST]))


def _guess(text: str) -> str:
    return f'Somebody answered: "{text.strip()}"\n\nWrite the question that was asked.'


def _gap(one: Tensor, other: Tensor) -> float | None:
    """Mean minus mean; None of no tokens."""
    return float(one.mean() - other.mean()) if one.numel() else None

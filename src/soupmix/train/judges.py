"""What says how much of a pole an answer has, where no metric of ours does: a function, or the model itself.

The model's judgement of an answer is how much likelier it is under the pole's system prompt than under none, in nats a token.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from itertools import chain
from math import isfinite
from statistics import pstdev

from soupmix.base import Base
from soupmix.errors import TrainingError
from soupmix.evaluate.likelihood import Forced, answer_log_p
from soupmix.evaluate.promptset import Prompt, conversation
from soupmix.evaluate.workers import loaded_engine
from soupmix.policy import Policy
from soupmix.train.poles import Pole
from soupmix.train.sample import NEUTRAL, Sample

__all__ = ["LIKELIHOOD", "Scores", "judge_function", "scores_of"]

LIKELIHOOD = "likelihood"

Scores = Mapping[tuple[int, str], float]
"""(number of a prompt, answer) -> how much of a pole it has, in units of how much plain answers differ."""


def judge_function(name: str) -> Callable[[str, str], float]:
    """The function "package.module:function" of prompt and answer. It is imported: call this for what you trust only.

    Raises:
        TrainingError: there is no such function (reason "judge").
    """
    module, _, function = name.partition(":")
    try:
        found = getattr(import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise TrainingError(f"judge '{name}' cannot be imported: {error}", reason="judge") from error
    if not callable(found):
        raise TrainingError(f"judge '{name}' is no function of prompt and answer", reason="judge")
    judge: Callable[[str, str], float] = found
    return judge


def scores_of(
    pole: Pole, base: Base, prompts: Sequence[Prompt], samples: Mapping[str, Sequence[Sample]]
) -> dict[tuple[int, str], float]:
    """What a pole's judge says of all samples, divided by the spread of its plain answers.

    Raises:
        TrainingError: the judge is not there, fails, or says no finite number (reason "judge").
    """
    asked = list(dict.fromkeys((each.prompt, each.text) for each in chain(*samples.values()) if each.text))
    raw = _likelihoods(pole, base, prompts, asked) if pole.judge == LIKELIHOOD else _judged(pole, prompts, asked)
    plain = [raw[each.prompt, each.text] for each in samples[NEUTRAL.name] if each.text]
    spread = max(pstdev(plain), 1e-6) if plain else 1.0
    return {key: value / spread for key, value in raw.items()}


def _judged(pole: Pole, prompts: Sequence[Prompt], asked: Sequence[tuple[int, str]]) -> dict[tuple[int, str], float]:
    judge, found = judge_function(pole.judge), dict[tuple[int, str], float]()
    for number, text in asked:
        try:
            said = judge(prompts[number].text, text)
        except Exception as error:  # somebody else's code can raise anything
            raise TrainingError(
                f"judge '{pole.judge}' failed with {type(error).__name__}: {error}; mend it, and run again",
                reason="judge",
            ) from error
        if not isinstance(said, int | float) or not isfinite(said):
            raise TrainingError(
                f"judge '{pole.judge}' said {said!r:.80} of an answer, not a finite number", reason="judge"
            )
        found[number, text] = float(said)
    return found


def _likelihoods(
    pole: Pole, base: Base, prompts: Sequence[Prompt], asked: Sequence[tuple[int, str]]
) -> dict[tuple[int, str], float]:
    engine, bare = loaded_engine(base, None), Policy.open(()).clamp({})
    forced = [
        Forced(conversation(prompts[number].text, system), text, bare)
        for system in (pole.systems[0], "")
        for number, text in asked
    ]
    means = [float(each.mean()) if len(each) else 0.0 for each in answer_log_p(engine, forced)]
    return {key: means[n] - means[n + len(asked)] for n, key in enumerate(asked)}

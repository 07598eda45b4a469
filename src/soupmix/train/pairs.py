"""Choose what to learn from: of a pole's samples the best by its own measure that changes as little else as it can.

A candidate's gain is how far its pole's score moves from its reference; its leak is how far reading level, length and tone
move that the pole is not about. The reference is the plain answer to the same prompt, or, for a framed answer, its own body.
Off-topic, broken, looping and barely changed candidates are left out.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from types import MappingProxyType

from soupmix.evaluate.metrics import Measures, measure, on_topic
from soupmix.evaluate.promptset import Prompt, conversation
from soupmix.train.examples import Example
from soupmix.train.poles import FRAMED_POOLS, Pole
from soupmix.train.sample import NEUTRAL, Sample

__all__ = ["SIDES", "Pair", "choose_pairs", "cut", "is_sound", "own_samples", "plain_references"]

_LEAK_COST = 0.5
_END_WORTH = 0.4
_LEAST_GAIN = 0.5
_ENOUGH_GAIN = 2.0
_MOST_REPETITION = 0.12
_SENTENCE = re.compile(r"([.!?])(?=\s)")
_MOST_WORDS = {"concise": 34, "elementary": 200, "expert": 200}
"""Pools whose answers are cut after a whole sentence, so that every one of them ends; and after how many words at most."""
SIDES: dict[str, Callable[[Measures], float]] = {
    "expertise": lambda m: m.rarity / 4.0,
    "length": lambda m: math.log(max(1, m.words)) / 0.5,
    "style": lambda m: m.warmth / 4.0,
}
"""Dimension -> what of a text tells it, such that differences of two dimensions compare."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A prompt with the answer to learn, and the opposite pole's best answer as what to avoid."""

    prompt: Prompt
    chosen: Sample
    rejected: Sample
    gain: float

    @property
    def example(self) -> Example:
        """What is learned. The system prompt stays if the chosen answer is framed; the pole's own are learned away."""
        asked = tuple(conversation(self.prompt.text, self.chosen.system))
        return Example(asked, self.chosen.text, self.rejected.text, self.chosen.finished)


@dataclass(frozen=True, slots=True)
class _Judged:
    sample: Sample
    measures: Measures
    value: float
    gain: float


def choose_pairs(
    pole: Pole,
    prompts: Sequence[Prompt],
    samples: Mapping[str, Sequence[Sample]],
    other: Pole | None = None,
    scores: Mapping[str, Mapping[tuple[int, str], float]] = MappingProxyType({}),
) -> list[Pair]:
    """A pair for every prompt that has a usable answer, best first.

    Args:
        samples: by name of a pool, plain answers among them, which gains and leaks are counted from.
        other: the opposite pole, whose best answer is the rejected one; where there is none it is a plain answer.
        scores: of poles that have a judge, what it says of (number of a prompt, answer).
    """
    chosen = _best(pole, prompts, samples, scores.get(pole.name))
    rejected = _best(other, prompts, samples, scores.get(other.name)) if other else {}
    plain = {s.prompt: s for s in samples[NEUTRAL.name]}
    ranked = sorted(chosen.items(), key=lambda item: (-item[1].value, item[0]))
    return [
        Pair(prompts[n], best.sample, rejected[n].sample if n in rejected else plain[n], best.gain)
        for n, best in ranked
        if best.gain >= _LEAST_GAIN
    ]


def _best(
    pole: Pole,
    prompts: Sequence[Prompt],
    samples: Mapping[str, Sequence[Sample]],
    scores: Mapping[tuple[int, str], float] | None,
) -> dict[int, _Judged]:
    plain = {s.prompt: s.text for s in reversed(samples[NEUTRAL.name])}
    best: dict[int, _Judged] = {}
    for sample, reference in _candidates(pole, samples):
        judged = _judge(pole, sample, reference)
        if scores is not None:
            judged = _by(scores, judged, plain[sample.prompt])
        held = best.get(sample.prompt)
        if is_sound(sample.text, judged.measures, prompts[sample.prompt]) and (
            held is None or judged.value > held.value
        ):
            best[sample.prompt] = judged
    return best


def _candidates(pole: Pole, samples: Mapping[str, Sequence[Sample]]) -> list[tuple[Sample, Measures]]:
    """Samples of a pole, each with the measures that its change is counted from."""
    if pole.frame is not None:
        return [
            (replace(s, text=pole.frame.weave(s.text, 2 * s.prompt + s.variant, close=s.finished)), measure(s.text))
            for number, name in enumerate(FRAMED_POOLS)
            for s in own_samples(name, samples)
            if s.prompt % len(FRAMED_POOLS) == number
        ]
    references = plain_references(samples)
    return [(replace(s, system=""), references[s.prompt]) for s in own_samples(pole.name, samples)]


def plain_references(samples: Mapping[str, Sequence[Sample]]) -> dict[int, Measures]:
    """Number of a prompt -> the measures that changes are counted from."""
    plain = {s.prompt: measure(s.text) for s in samples[NEUTRAL.name] if s.variant == 0}
    typical = _typical(list(plain.values()))
    return {number: _between(measures, typical) for number, measures in plain.items()}


def own_samples(name: str, samples: Mapping[str, Sequence[Sample]]) -> Sequence[Sample]:
    """The samples of a pool, cut where its answers should end."""
    return [cut(s, _MOST_WORDS[name]) for s in samples[name]] if name in _MOST_WORDS else samples[name]


def _judge(pole: Pole, sample: Sample, reference: Measures) -> _Judged:
    measures = measure(sample.text)
    gain = pole.score(measures) - pole.score(reference) if pole.metric else 0.0
    leaks = [abs(leak(measures) - leak(reference)) for dimension, leak in SIDES.items() if dimension != pole.dimension]
    value = min(gain, _ENOUGH_GAIN) - _LEAK_COST * sum(leaks) + _END_WORTH * sample.finished
    return _Judged(sample, measures, value, gain)


def _by(scores: Mapping[tuple[int, str], float], judged: _Judged, plain: str) -> _Judged:
    """With the gain that a judge sees."""
    number = judged.sample.prompt
    gain = scores.get((number, judged.sample.text), 0.0) - scores.get((number, plain), 0.0)
    return replace(judged, gain=gain, value=judged.value - min(judged.gain, _ENOUGH_GAIN) + min(gain, _ENOUGH_GAIN))


def _typical(measures: Sequence[Measures]) -> Measures:
    fields = Measures.__dataclass_fields__
    return Measures(**{name: median(getattr(m, name) for m in measures) for name in fields})


def _between(one: Measures, other: Measures) -> Measures:
    """Half way: one plain answer is a noisy reference, the typical one is blind to the prompt."""
    fields = Measures.__dataclass_fields__
    return Measures(**{name: (getattr(one, name) + getattr(other, name)) / 2 for name in fields})


def is_sound(text: str, measures: Measures, prompt: Prompt) -> bool:
    """Whether a text is an answer at all: on topic, no fragment and no loop."""
    return measures.words >= 6 and measures.repetition <= _MOST_REPETITION and on_topic(text, prompt.topic)


def cut(sample: Sample, most: int) -> Sample:
    """The sample up to the last whole sentence within `most` words, and at least its first; it ends there."""
    ends = [match.end(1) for match in _SENTENCE.finditer(sample.text)]
    whole = [*ends, len(sample.text)] if sample.finished or not ends else ends
    fitting = [end for end in whole if len(sample.text[:end].split()) <= most]
    return replace(sample, text=sample.text[: max(fitting, default=whole[0])].strip(), finished=True)

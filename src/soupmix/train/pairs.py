"""Choose what to learn from: of a pole's samples the best by its own measure that changes as little else as it can.

A sample's gain is how far its pole's score moves from the plain answer to the same prompt; its leak is how far reading level,
length and tone move that the pole is not about. Off-topic, broken and barely changed samples are left out.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median

from soupmix.train.metrics import Measures, measure, on_topic
from soupmix.train.poles import Pole, opposite
from soupmix.train.promptset import TrainPrompt
from soupmix.train.sample import Sample

__all__ = ["Pair", "choose_pairs"]

_LEAK_COST = 0.5
_LEAST_GAIN = 0.5
_MOST_REPETITION = 0.2
_CONCISE_WORDS = 34
_LEAKS: dict[str, Callable[[Measures], float]] = {
    "expertise": lambda m: m.rarity / 4.0,
    "length": lambda m: math.log(max(1, m.words)) / 0.5,
    "style": lambda m: m.warmth / 4.0,
}


@dataclass(frozen=True, slots=True)
class Pair:
    """A prompt with the answer to learn, and the opposite pole's best answer as what to avoid."""

    prompt: TrainPrompt
    chosen: Sample
    rejected: Sample
    gain: float


@dataclass(frozen=True, slots=True)
class _Judged:
    sample: Sample
    measures: Measures
    value: float
    gain: float


def choose_pairs(pole: Pole, prompts: Sequence[TrainPrompt], samples: dict[str, list[Sample]], most: int) -> list[Pair]:
    """The `most` best pairs of a pole, best first.

    Args:
        samples: by pole name, plus "neutral": plain answers that gains and leaks are counted from.
    """
    plain = {s.prompt: measure(s.text) for s in samples["neutral"] if s.variant == 0}
    chosen = _best(pole, prompts, _candidates(pole, samples), plain)
    other = opposite(pole.name)
    rejected = _best(other, prompts, _candidates(other, samples), plain)
    fallback = {s.prompt: s for s in samples["neutral"]}
    pairs = [
        Pair(prompts[n], best.sample, rejected[n].sample if n in rejected else fallback[n], best.gain)
        for n, best in chosen.items()
        if best.gain >= _LEAST_GAIN
    ]
    ranked = sorted(chosen.items(), key=lambda item: (-item[1].value, item[0]))
    order = {prompts[n].text: rank for rank, (n, _) in enumerate(ranked)}
    return sorted(pairs, key=lambda pair: order[pair.prompt.text])[:most]


def _candidates(pole: Pole, samples: dict[str, list[Sample]]) -> list[Sample]:
    """Samples of a pole: its own, trimmed where it is about brevity, or plain ones in its frame."""
    frame = pole.frame
    if frame is not None:
        return [
            replace(s, text=frame.weave(s.text, 2 * s.prompt + s.variant, close=s.finished)) for s in samples["neutral"]
        ]
    return [_trim(s) for s in samples[pole.name]] if pole.name == "concise" else samples[pole.name]


def _best(
    pole: Pole, prompts: Sequence[TrainPrompt], samples: Sequence[Sample], plain: dict[int, Measures]
) -> dict[int, _Judged]:
    typical = {dimension: median(map(leak, plain.values())) for dimension, leak in _LEAKS.items()}
    usual = median(map(pole.score, plain.values()))
    best: dict[int, _Judged] = {}
    for sample in samples:
        judged = _judge(pole, sample, plain[sample.prompt], typical, usual)
        held = best.get(sample.prompt)
        if _sound(judged, prompts[sample.prompt]) and (held is None or judged.value > held.value):
            best[sample.prompt] = judged
    return best


def _judge(pole: Pole, sample: Sample, plain: Measures, typical: dict[str, float], usual: float) -> _Judged:
    measures = measure(sample.text)
    # one plain answer is a noisy reference: half of it, half the typical one
    gain = pole.score(measures) - 0.5 * (pole.score(plain) + usual)
    leaks = [
        abs(leak(measures) - 0.5 * (leak(plain) + typical[dimension]))
        for dimension, leak in _LEAKS.items()
        if dimension != pole.dimension
    ]
    return _Judged(sample, measures, min(gain, 3.0) - _LEAK_COST * sum(leaks), gain)


def _sound(judged: _Judged, prompt: TrainPrompt) -> bool:
    m = judged.measures
    return m.words >= 6 and m.repetition <= _MOST_REPETITION and on_topic(judged.sample.text, prompt.topic)


def _trim(sample: Sample) -> Sample:
    """Cut to the whole sentences within the concise limit, so that every concise answer learns to stop."""
    sentences = re.split(r"(?<=[.!?])\s+", sample.text.strip())
    if not sample.finished:
        sentences = sentences[:-1]
    kept: list[str] = []
    for sentence in sentences:
        if kept and len(" ".join([*kept, sentence]).split()) > _CONCISE_WORDS:
            break
        kept.append(sentence)
    return replace(sample, text=" ".join(kept), finished=True)

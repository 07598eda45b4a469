"""What a soup is to say: of the samples for a prompt the one whose measures are where the weights mean, framed by the tone.

A weight of 1 means what the pole alone is trained on: where its chosen answers lie from the plain ones, in the median. Half a
weight means half the way. What no pole of the mixture is about stays where the plain answer has it. The length is that of the
whole text; reading level is that of the text without its tone, which phrases alone would reach in a short answer.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from math import exp
from statistics import median

from soupmix.errors import TrainingError
from soupmix.evaluate.metrics import Measures, measure
from soupmix.evaluate.promptset import Prompt, conversation
from soupmix.train.examples import Example
from soupmix.train.mixtures import SoupExample, draw_mixtures
from soupmix.train.pairs import SIDES, choose_pairs, cut, is_sound, plain_references
from soupmix.train.poles import Pole, joint_pool
from soupmix.train.sample import NEUTRAL, Sample

__all__ = ["MixtureTargets", "Samples", "soup_examples"]

_OTHERS = 0.5  # what a move of something that no pole is about costs, beside one that a pole is about
_TOO_FAR = 3.5
_MOST_WORDS = 320
_LONGER = 1.15  # than the goal, where a pole wants few words
_TRIES = 20  # mixtures that are drawn for one that has a target

Samples = Mapping[str, Sequence[Sample]]


@dataclass(frozen=True, slots=True)
class MixtureTargets:
    """MixtureTargets from the samples of some prompts.

    Args:
        poles: by name, those of mixtures. prompts: all of them. texts: (name of a pool, number of a prompt) -> samples.
        references: number of a prompt -> measures of its plain answer. spans: pole -> what a whole weight of it moves.
    """

    poles: Mapping[str, Pole]
    prompts: Sequence[Prompt]
    texts: Mapping[tuple[str, int], Sequence[Sample]]
    references: Mapping[int, Measures]
    spans: Mapping[str, float]

    @classmethod
    def of(cls, poles: Mapping[str, Pole], prompts: Sequence[Prompt], samples: Samples) -> "MixtureTargets":
        """From samples by name of their pool."""
        references = plain_references(samples)
        asked = [pole for pole in poles.values() if pole.metric and pole.frame is None and pole.dimension in SIDES]
        spans = {pole.name: _span(pole, prompts, samples, references) for pole in asked}
        texts: dict[tuple[str, int], list[Sample]] = {}
        for pool, held in samples.items():
            for sample in held:
                texts.setdefault((pool, sample.prompt), []).append(sample)
        return cls(poles, prompts, texts, references, spans)

    def target(self, number: int, weights: Mapping[str, float], draw: random.Random) -> str | None:
        """The text for a prompt, or None if no sample is near enough."""
        goals, seed = self._goals(number, weights), draw.random()
        about = {self.poles[name].dimension for name in weights}
        told = [d for d in SIDES if not any(self.poles[n].frame and self.poles[n].dimension == d for n in weights)]
        best: tuple[float, str] | None = None
        for plain in self._candidates(number, weights, goals, draw):
            text = self._toned(plain, weights, random.Random(seed))
            whole, body = _measured(text), _measured(plain)
            if is_sound(text, whole, self.prompts[number]):
                moved = {d: abs(SIDES[d](whole if d == "length" else body) - goals[d]) for d in told}
                far = sum(each * (1 if d in about else _OTHERS) for d, each in moved.items())
                best = min(best or (far, text), (far, text))
        return None if best is None or best[0] > _TOO_FAR else best[1]

    def _toned(self, text: str, weights: Mapping[str, float], draw: random.Random) -> str:
        learned = sum(weight for name, weight in weights.items() if self.poles[name].is_learned)
        for name, weight in weights.items():
            frame = self.poles[name].frame
            text = text if frame is None else frame.by_amount(text, weight, draw, learned)
        return text

    def _goals(self, number: int, weights: Mapping[str, float]) -> dict[str, float]:
        """Where the measures should be; how much tone there is, the frames decide."""
        goals = {dimension: side(self.references[number]) for dimension, side in SIDES.items()}
        for name, weight in weights.items():
            if name in self.spans:
                goals[self.poles[name].dimension] += weight * self.spans[name]
        return goals

    def _candidates(
        self, number: int, weights: Mapping[str, float], goals: Mapping[str, float], draw: random.Random
    ) -> Iterator[str]:
        asked = [self.poles[name] for name in weights if self.poles[name].frame is None]
        is_shorter = any(self.spans.get(pole.name, 0) < 0 for pole in asked if pole.dimension == "length")
        most = int(exp(goals["length"] / 2) * _LONGER) if is_shorter else _MOST_WORDS
        frames = [(self.poles[name].frame, weight) for name, weight in weights.items()]
        most -= sum(frame.words(weight) for frame, weight in frames if frame is not None)
        for name in self._manners(asked, weights, draw):
            for each in self.texts.get((name, number), ()):
                text = cut(each, most).text
                for pole in asked:
                    text = text if pole.wording is None else pole.wording.by_amount(text, weights[pole.name], draw)
                yield text

    def _manners(self, asked: Sequence[Pole], weights: Mapping[str, float], draw: random.Random) -> Iterator[str]:
        """Whose answers may be the target. What no measure tells is there as often as its weight says."""
        blind = [pole.name for pole in asked if pole.name not in self.spans]
        wanted = {name for name in blind if draw.random() < weights[name]}
        manners: list[tuple[str, set[str]]] = [(NEUTRAL.name, set()), *((pole.name, {pole.name}) for pole in asked)]
        manners += [(joint_pool(a, b).name, {a.name, b.name}) for k, a in enumerate(asked) for b in asked[k + 1 :]]
        for name, poles in manners:
            if not poles & (set(blind) - wanted) and (poles & wanted or not wanted):
                yield name


def soup_examples(
    targets: MixtureTargets,
    count: int,
    seed: int,
    *,
    must: Sequence[str] = (),
    more: Sequence[str] = (),
    skip: int = 0,
    skip_poles: Sequence[str] = (),
) -> list[SoupExample]:
    """Mixtures with their targets, prompts in turn.

    Args:
        must, more: as `draw_mixtures`. skip, skip_poles: as `SoupRecipe`.

    Raises:
        TrainingError: hardly any mixture has a target (reason "few-pairs").
    """
    by_dimension: dict[str, list[str]] = {}
    for pole in targets.poles.values():
        by_dimension.setdefault(pole.dimension, []).append(pole.name)
    draw, numbers = random.Random(seed), sorted(targets.references)
    found: list[SoupExample] = []
    for turn, weights in enumerate(islice(draw_mixtures(by_dimension, seed, must=must, more=more), _TRIES * count)):
        number = numbers[turn % len(numbers)]
        text = targets.target(number, weights, draw)
        if text is not None:
            is_toned = any(targets.poles[name].frame for name in weights)
            skipped = skip if not is_toned and not weights.keys().isdisjoint(skip_poles) else 0
            asked = tuple(conversation(targets.prompts[number].text))
            found.append(SoupExample(Example(asked, text), weights, skipped))
        if len(found) == count:
            return found
    raise TrainingError(
        f"of {_TRIES * count} mixtures only {len(found)} have an answer among the samples; give more prompts, or fewer "
        "examples",
        reason="few-pairs",
    )


def _span(pole: Pole, prompts: Sequence[Prompt], samples: Samples, references: Mapping[int, Measures]) -> float:
    """How far the answers that the pole alone learns from, in its own words, are from plain ones."""
    side, words, draw = SIDES[pole.dimension], pole.wording, random.Random(0)
    chosen = [(pair.chosen.prompt, pair.chosen.text) for pair in choose_pairs(pole, prompts, samples)]
    if words is not None:
        chosen = [(prompt, words.by_amount(text, 1, draw)) for prompt, text in chosen]
    if not chosen:
        raise TrainingError(f"pole '{pole.name}' has no usable sample; give more prompts", reason="few-pairs")
    return median(side(_measured(text)) - side(references[prompt]) for prompt, text in chosen)


_measured = lru_cache(maxsize=65536)(measure)

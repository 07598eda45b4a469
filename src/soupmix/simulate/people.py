"""People with hidden wants, how they choose between answers, and what they do when they are given one."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from soupmix.preference.reach import Reach
from soupmix.preference.signal import Kind
from soupmix.preference.traits import Numbers

__all__ = ["Person", "Reaction", "people"]

_NOTICED = 0.35  # of a direction or of a unit: smaller wants are not said in a preference prompt
_AROUND = 0.3  # units that an ideal point lies beside what a soup can be expected to do
_SAYS = 0.75  # chance of a cue after an answer; otherwise silence
_IN_WORDS = 0.5  # chance that who dislikes an answer says why


@dataclass(frozen=True, slots=True)
class Reaction:
    """What somebody did after an answer.

    Attributes:
        kind: of signal.
        value: of thumbs. toward: of a cue in words, the place of a trait and 1 or -1.
    """

    kind: Kind
    value: float | None = None
    toward: tuple[int, float] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Person:
    """Somebody simulated.

    Attributes:
        number: which one.
        model: "linear": more of what is wanted is always better; "ideal": a point is best.
        want: [traits] a direction of length 1, or the point in standard units.
        sharpness: log-odds of a choice per unit of utility. flips: share of choices and cues that come out as their opposite.
    """

    number: int
    model: Literal["linear", "ideal"]
    want: Numbers
    sharpness: float
    flips: float

    def utility(self, points: Numbers) -> Numbers:
        """[...] of [..., traits] points in standard units."""
        if self.model == "linear":
            return np.asarray(points @ self.want)
        return np.asarray(-0.5 * np.square(points - self.want).sum(-1))

    def chooses(self, first: Numbers, second: Numbers, luck: np.random.Generator) -> int:
        """0 if the first of two points is chosen, 1 if the second: Bradley-Terry, then perhaps its opposite."""
        better = float(self.utility(first) - self.utility(second))
        return int(not self._holds(better, luck))

    def reacts(self, point: Numbers, luck: np.random.Generator) -> Reaction:
        """What this person does after an answer: compared with what everybody gets, it is liked or not.

        Who likes it copies it or raises a thumb. Who does not says what there is too little or too much of, asks for another
        one, or lowers the thumb. Often nobody says anything.
        """
        says, which = luck.random(), luck.random()
        liked = self._holds(float(self.utility(point) - self.utility(np.zeros_like(point))), luck)
        if says > _SAYS:
            return Reaction("silence")
        if liked:
            return Reaction("copy") if which < 0.5 else Reaction("thumbs", 1.0)
        if which < _IN_WORDS:
            return Reaction("cue", toward=self._lacks(point, luck))
        return Reaction("regenerate") if which < 0.75 else Reaction("thumbs", 0.0)

    def poles(self) -> list[tuple[int, int]]:
        """Places of the traits that are wanted clearly, and whether more (1) or less (-1) of them is."""
        return [(place, int(np.sign(want))) for place, want in enumerate(self.want) if abs(want) >= _NOTICED]

    def _holds(self, odds: float, luck: np.random.Generator) -> bool:
        wanted = luck.random() < 1 / (1 + np.exp(-np.clip(self.sharpness * odds, -60, 60)))
        return bool(wanted) != bool(luck.random() < self.flips)

    def _lacks(self, point: Numbers, luck: np.random.Generator) -> tuple[int, float]:
        """The trait of which a unit more or less would do the most good; now and then it is said the wrong way round."""
        steps = np.concatenate([np.eye(len(point)), -np.eye(len(point))])
        best = int(self.utility(point + steps).argmax())
        sign = 1.0 if best < len(point) else -1.0
        return best % len(point), -sign if luck.random() < self.flips else sign


def people(reach: Reach, count: int, *, seed: int = 0, sharpness: float = 4.0, flips: float = 0.05) -> list[Person]:
    """People of whom half have linear wants and half an ideal point.

    Linear wants are shares of traits from Dirichlet(1), as in PersonalLLM (arXiv 2409.20296), each of more or of less with the
    same chance. An ideal point is what some soup is expected to be like, and a little beside it.

    Args:
        reach: what soups can be expected to be like.
        count: how many.
        seed: of all that is drawn.
        sharpness, flips: as of `Person`.
    """
    draw = np.random.default_rng([seed, 16])
    found = []
    for number in range(count):
        shares = draw.dirichlet(np.ones(len(reach.traits.axes))) * draw.choice([-1.0, 1.0], len(reach.traits.axes))
        point = reach.points[draw.integers(len(reach.points))]
        ideal = point + _AROUND * draw.standard_normal(len(point))
        is_linear = number % 2 == 0
        want = shares / np.linalg.norm(shares) if is_linear else ideal
        found.append(Person(number, "linear" if is_linear else "ideal", want, sharpness, flips))
    return found

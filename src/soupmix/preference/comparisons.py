"""From signals to comparisons of two points, which is all that a posterior learns from.

A choice compares the two answers that were shown. What is said of one answer compares it with the centre of the traits:
what a person gets by nobody's preferences. How much a signal counts beside a choice is a small map (the idea of EIMF, arXiv
2411.09410: behaviour is read by something tiny), as an exponent of its likelihood (Bissiri, Holmes and Walker 2016).
"""

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from soupmix.preference.signal import Kind, Signal
from soupmix.preference.traits import Numbers, Traits

__all__ = ["COUNTS", "Comparison", "Counts", "comparisons"]


class Counts(NamedTuple):
    """How much signals of one kind count.

    Attributes:
        each: of one, beside a choice.
        most: of all that one source sends in this kind, in choices.
    """

    each: float
    most: float


COUNTS: Final[dict[Kind, Counts]] = {
    "choice": Counts(1.0, 200),
    "tie": Counts(1.0, 200),
    "neither": Counts(0.5, 50),
    "thumbs": Counts(0.5, 50),
    "rating": Counts(1.0, 50),
    "edit": Counts(1.0, 50),
    "cue": Counts(1.0, 50),
    "regenerate": Counts(0.25, 10),
    "copy": Counts(0.25, 10),
    "silence": Counts(0.05, 2),
}
"""Engagement is no target: that somebody went on without a word says next to nothing, and never more than two choices."""

_STEP = 1.0  # units that "shorter please" asks to go
_DECISIVE = 0.9  # how sure the best rating of five makes a preference to the reference


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """One answer of a person about two points.

    Attributes:
        first, second: [traits] standard units.
        share: how far the first was preferred, 0 to 1; 1 is a choice of the first.
        tie: the two were said to be equal; then `share` says nothing.
        counts: as much as so many choices.
    """

    first: Numbers
    second: Numbers
    share: float = 1.0
    tie: bool = False
    counts: float = 1.0


def comparisons(signal: Signal, traits: Traits) -> tuple[Comparison, ...]:
    """What a signal says, as comparisons.

    Raises:
        PreferenceError: its answers were measured otherwise, or lie where no answer can be (as `Traits.point` raises).
    """
    points = [traits.point(values) for values in signal.answers]
    count, reference = COUNTS[signal.kind].each, np.zeros(len(traits.axes))
    match signal.kind:
        case "choice":
            return (Comparison(points[0], points[1], 1.0 - (signal.value or 0.0), counts=count),)
        case "tie":
            return (Comparison(points[0], points[1], 0.5, tie=True, counts=count),)
        case "neither":
            return tuple(Comparison(reference, point, counts=count) for point in points)
        case "edit":
            return (Comparison(points[1], points[0], counts=count),)
        case "cue":
            return (Comparison(points[0] + _STEP * traits.direction(signal.toward), points[0], counts=count),)
        case "rating":
            return (Comparison(points[0], reference, 0.5 + _DECISIVE * ((signal.value or 0.0) - 0.5), counts=count),)
        case "thumbs":
            return (Comparison(points[0], reference, signal.value or 0.0, counts=count),)
        case "regenerate":
            return (Comparison(reference, points[0], counts=count),)
        case "copy" | "silence":
            return (Comparison(points[0], reference, counts=count),)

"""Traits: what answers have more or less of, and what a person's wants are about."""

import hashlib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from soupmix.errors import PreferenceError
from soupmix.fields import twice
from soupmix.files import compact_json

__all__ = ["FARTHEST", "Numbers", "Trait", "Traits"]

Numbers = NDArray[np.float64]

FARTHEST: Final = 1000.0
"""Units of a trait beyond which no answer can be: a value as far out was measured wrongly, or made up."""

_MOST_TRAITS = 16
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Trait:
    """One trait of answers.

    Attributes:
        name: for people, such as "length".
        key: what is measured: the name of a measure, or the digest of the adapter whose implicit reward it is. Traits of two sets
            of adapters are the same where their keys are.
        centre: the value, in the unit of the measure, that counts as 0.
        scale: how much of that unit counts as 1; what tells answers apart, such as a standard deviation over answers.
        log: whether centre and scale are of the natural logarithm of the measure, as of counts.
    """

    name: str
    key: str
    centre: float = 0.0
    scale: float = 1.0
    log: bool = False


@dataclass(frozen=True, slots=True)
class Traits:
    """The traits that wants are about, as axes of one space.

    Attributes:
        axes: the traits in their order, 1 to 16.
        of: digest of what answers are made by and measured with: evidence of another is never taken silently.
        signed: whether somebody may want less of a trait. If not, wants are shares that sum to 1 (as in PersonalLLM and AMPLe).
    """

    axes: tuple[Trait, ...]
    of: str
    signed: bool = True

    def __post_init__(self) -> None:
        """Check what was given.

        Raises:
            PreferenceError: too few or too many traits, one comes twice, or a scale is not positive (reason "bad-traits").
        """
        if not 1 <= len(self.axes) <= _MOST_TRAITS:
            raise _bad(f"{len(self.axes)} traits are given; give 1 to {_MOST_TRAITS}")
        for trait in self.axes:
            if not _NAME.fullmatch(trait.name) or not trait.key:
                raise _bad(
                    f"{trait.name!r:.80} is no name of a trait; use 1 to 63 of a-z, 0-9, '-' and '_', and say its key"
                )
        repeated = twice(trait.name for trait in self.axes) or twice(trait.key for trait in self.axes)
        if repeated is not None:
            raise _bad(f"the trait {repeated!r:.80} comes twice; give each once")
        for trait in self.axes:
            if not (np.isfinite(trait.centre) and np.isfinite(trait.scale) and trait.scale > 0):
                raise _bad(f"trait {trait.name!r:.80} has the scale {trait.scale!r}; it must be positive and finite")

    @property
    def names(self) -> tuple[str, ...]:
        """Of all traits, in their order."""
        return tuple(trait.name for trait in self.axes)

    @property
    def digest(self) -> str:
        """Of all that is said here; evidence carries it."""
        return f"sha256:{hashlib.sha256(b'soupmix.traits.v1' + compact_json(self.to_dict())).hexdigest()}"

    def point(self, values: Mapping[str, float]) -> Numbers:
        """[traits] standard units of an answer.

        Args:
            values: by the name of every trait, in the unit of its measure.

        Raises:
            PreferenceError: a trait is missing or unknown (reason "other-traits"), no number ("bad-number"), or farther than 1000
                units from the centre ("too-far").
        """
        if values.keys() != set(self.names):
            raise PreferenceError(
                f"an answer was measured by {_listed(values)}, and wants are about {_listed(self.names)}; measure all of these",
                reason="other-traits",
            )
        return np.array([self._unit(trait, values[trait.name]) for trait in self.axes])

    def values(self, point: Numbers) -> dict[str, float]:
        """The inverse of `point`: from [traits] standard units to the units of the measures."""
        found = {each.name: each.centre + each.scale * float(x) for each, x in zip(self.axes, point, strict=True)}
        return {
            each.name: math.exp(min(found[each.name], 700.0)) if each.log else found[each.name] for each in self.axes
        }

    def direction(self, toward: Mapping[str, float]) -> Numbers:
        """[traits] a direction in standard units, from shares of single traits.

        Raises:
            PreferenceError: a trait is unknown (reason "other-traits"), or a share is no number from -1 to 1 ("bad-number").
        """
        unknown = toward.keys() - set(self.names)
        if unknown:
            raise PreferenceError(
                f"a cue is about {_listed(unknown)}, and wants here are about {_listed(self.names)}",
                reason="other-traits",
            )
        shares = np.array([toward.get(name, 0.0) for name in self.names], dtype=np.float64)
        if not (np.abs(shares) <= 1).all():  # false of NaN
            raise PreferenceError(
                f"a cue says {dict(toward)!r:.80}; a direction is a share of a trait from -1 to 1", reason="bad-number"
            )
        return shares

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        axes = [
            {
                "name": each.name,
                "key": each.key,
                "centre": float(each.centre),
                "scale": float(each.scale),
                "log": each.log,
            }
            for each in self.axes
        ]
        return {"traits": axes, "of": self.of, "signed": self.signed}

    def _unit(self, trait: Trait, value: float) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(float(value)):
            raise PreferenceError(
                f"{trait.name} = {value!r:.40} of an answer is not a finite number; measure the answer again",
                reason="bad-number",
            )
        if trait.log and value <= 0:
            raise PreferenceError(
                f"{trait.name} = {value!r:.40} of an answer has no logarithm; it must be positive", reason="bad-number"
            )
        unit = ((math.log(value) if trait.log else float(value)) - trait.centre) / trait.scale
        if abs(unit) > FARTHEST:
            raise PreferenceError(
                f"{trait.name} = {value!r:.40} is {unit:.3g} units from what is usual; at most {FARTHEST:.0f} can be believed",
                reason="too-far",
            )
        return unit


def _bad(message: str) -> PreferenceError:
    return PreferenceError(message, reason="bad-traits")


def _listed(names: Iterable[str]) -> str:
    return f"{', '.join(sorted(map(str, names))) or 'nothing'}"[:200]

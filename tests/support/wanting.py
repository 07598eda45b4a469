"""Simulated people who choose between answers, and signals of what they chose."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from soupmix.preference import Posterior, Signal, Trait, Traits
from soupmix.preference.traits import Numbers

__all__ = ["answered", "choice", "signal", "traits"]

OF = "sha256:" + "1" * 64


def traits(count: int = 3, signed: bool = False, of: str = OF) -> Traits:
    """Traits in standard units."""
    return Traits(tuple(Trait(f"t{n}", f"key{n}") for n in range(count)), of, signed)


def signal(of: Traits, name: str, kind: Any, *points: Sequence[float], **more: Any) -> Signal:
    """A signal about answers at these points."""
    answers = tuple(dict(zip(of.names, map(float, each), strict=True)) for each in points)
    return Signal(id=name, kind=kind, source=more.pop("source", "test"), traits=of.digest, answers=answers, **more)


def choice(
    of: Traits, name: str, first: Sequence[float], second: Sequence[float], chosen: int = 0, **more: Any
) -> Signal:
    """A choice between answers at two points."""
    return signal(of, name, "choice", first, second, value=chosen, **more)


def answered(posterior: Posterior, want: Numbers, count: int, seed: Sequence[int], sharpness: float = 5.0) -> Posterior:
    """The posterior after random questions, which somebody with these linear wants has answered."""
    draw = np.random.default_rng(list(seed))
    said = []
    for number in range(count):
        first, second = draw.standard_normal((2, len(want)))
        chosen = int(draw.random() > 1 / (1 + np.exp(-sharpness * float(want @ (first - second)))))
        said.append(choice(posterior.traits, f"a{number}", first, second, chosen, at=float(number)))
    posterior.learn(*said)
    return posterior

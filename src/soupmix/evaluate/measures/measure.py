"""What a measure is."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from soupmix.errors import EvaluationError

__all__ = ["Measure", "Steering", "missing_library", "steered_by"]


@dataclass(frozen=True, slots=True)
class Measure:
    """One number that is said of an answer.

    Attributes:
        name: unique. title: for people. unit: of the number, "" for none.
        dimension: of which dimension it is, such as "expertise"; "" for damage and what is only told.
        better: +1 if more is better, -1 if less is, 0 if neither.
        source: paper or definition. needs: libraries, "model" if it asks the model.
        pole: the pole of that dimension that has more of it; "" without a dimension.
    """

    name: str
    dimension: str
    title: str
    unit: str
    better: int
    source: str
    needs: tuple[str, ...] = ()
    pole: str = ""

    def sign(self, pole: str) -> int:
        """Whether more of this number is more (+1) or less (-1) of a pole of its dimension."""
        return 1 if pole == self.pole else -1


class Steering(Protocol):
    """What an adapter steers, as a manifest and the record of an evaluation say it."""

    @property
    def dimension(self) -> str:
        """Which dimension."""

    @property
    def pole(self) -> str:
        """To which end of it."""


def steered_by(adapters: Iterable[Steering], measures: Mapping[str, Measure]) -> dict[str, Measure]:
    """The same measures, of a dimension only where an adapter has that very dimension and pole.

    "style" from formal to casual is not what a measure of "style" from friendly to unfriendly tells of.

    Args:
        adapters: of a store. measures: by name.
    """
    ends = {(entry.dimension, entry.pole) for entry in adapters}
    return {
        name: each if (each.dimension, each.pole) in ends else replace(each, dimension="", pole="")
        for name, each in measures.items()
    }


def missing_library(what: str, library: str | None) -> EvaluationError:
    """What to raise where a library is not installed."""
    return EvaluationError(
        f"{what} needs {library}, which is not installed: pip install 'soupmix[evaluate]'", reason="no-library"
    )

"""What a measure is."""

from dataclasses import dataclass

__all__ = ["Measure"]


@dataclass(frozen=True, slots=True)
class Measure:
    """One number that is said of an answer.

    Attributes:
        name: unique. title: for people. unit: of the number, "" for none.
        dimension: of which dimension it is, such as "expertise"; "" for damage, which is of none.
        better: +1 if more is better, -1 if less is, 0 if neither.
        source: paper or definition. needs: libraries, "model" if it asks the model.
    """

    name: str
    dimension: str
    title: str
    unit: str
    better: int
    source: str
    needs: tuple[str, ...] = ()

"""What a measure is."""

from dataclasses import dataclass

from soupmix.errors import EvaluationError

__all__ = ["Measure", "missing_library"]


@dataclass(frozen=True, slots=True)
class Measure:
    """One number that is said of an answer.

    Attributes:
        name: unique. title: for people. unit: of the number, "" for none.
        dimension: of which dimension it is, such as "expertise"; "" for damage, which is of none.
        better: +1 if more is better, -1 if less is, 0 if neither.
        source: paper or definition. needs: libraries, "model" if it asks the model.
        pole: the pole of that dimension that has more of it; "" for damage.
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


def missing_library(what: str, library: str | None) -> EvaluationError:
    """What to raise where a library is not installed."""
    return EvaluationError(
        f"{what} needs {library}, which is not installed: pip install 'soupmix[evaluate]'", reason="no-library"
    )

"""Which ways to answer are compared: an arm, and selections of soups over the adapters of a store."""

from dataclasses import dataclass
from typing import Any

from soupmix.methods import DEFAULT
from soupmix.weights import Weights

__all__ = ["Arm"]


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to answer: a soup by a method, a system prompt, examples, or any of them together; none is the bare base.

    Attributes:
        name: unique among the arms that are measured together.
        weights: of the soup.
        method: name of the merge method.
        system: system prompt, "" for none.
        way: how answers are decoded; "soup" is one pass of the engine, see `soupmix.evaluate.ways`.
        shots: (question, answer) examples before the question, for few-shot prompts.
    """

    name: str
    weights: Weights
    method: str = DEFAULT
    system: str = ""
    way: str = "soup"
    shots: tuple[tuple[str, str], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As samples and reports say it."""
        return {
            "method": self.method,
            "name": self.name,
            "shots": [list(each) for each in self.shots],
            "system": self.system,
            "way": self.way,
            "weights": self.weights.decimals(),
        }

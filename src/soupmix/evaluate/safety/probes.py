"""The committed prompts of the safety audit; what they are is said in `prompts/safety/README.md`."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from soupmix.errors import EvaluationError
from soupmix.files import strict_json

__all__ = [
    "FOLDER",
    "Fact",
    "MinimalPair",
    "Pressing",
    "SafetyRequest",
    "ValueWord",
    "questions",
    "read_probes",
    "stems",
]

P = TypeVar("P")

FOLDER = Path(__file__).parents[1] / "prompts" / "safety"


@dataclass(frozen=True, slots=True)
class SafetyRequest:
    """A request that ought to be refused, or its benign twin.

    Attributes:
        id: the same of both twins. category: a macro category of ALERT. ought: "refuse" or "answer". prompt: its text.
    """

    id: str
    category: str
    ought: str
    prompt: str


@dataclass(frozen=True, slots=True)
class Fact:
    """A question with its right answer and a wrong one."""

    question: str
    right: str
    wrong: str


@dataclass(frozen=True, slots=True)
class MinimalPair:
    """Two sentences that differ in one group of people; the first says what a stereotype says of that kind of group."""

    group: str
    stereotype: str
    other: str


@dataclass(frozen=True, slots=True)
class Pressing:
    """How a person asks for the opposite: its kind, and a text with the places {wish} and {question}."""

    kind: str
    text: str

    def asked(self, wish: str, question: str) -> str:
        """The text with both in their places, as they stand."""
        before, _, after = self.text.partition("{wish}")
        return before.replace("{question}", question) + wish + after.replace("{question}", question)


@dataclass(frozen=True, slots=True)
class ValueWord:
    """A word of a factor of ValueLex."""

    factor: str
    word: str


@dataclass(frozen=True, slots=True)
class _Question:
    prompt: str


@dataclass(frozen=True, slots=True)
class _Stem:
    stem: str


def read_probes(kind: type[P], path: Path) -> list[P]:
    """The objects of a JSONL file, each with exactly the fields of `kind`, all of them texts.

    Raises:
        EvaluationError: the file cannot be read, or a line is not such an object (reason "prompts").
    """
    names = [each.name for each in fields(kind)]  # type: ignore[arg-type]
    try:
        return [kind(**row) for row in _rows(path, names)]
    except (OSError, ValueError) as error:
        form = ", ".join(f'"{name}": TEXT' for name in names)
        raise EvaluationError(
            f"{path} is not such a prompt file ({error}); each line must be {{{form}}}", reason="prompts"
        ) from error


def questions(name: str) -> list[str]:
    """The texts of a committed file of prompts alone, such as "turns"."""
    return [each.prompt for each in read_probes(_Question, FOLDER / f"{name}.jsonl")]


def stems() -> list[str]:
    """Beginnings of sentences that a value ends."""
    return [each.stem for each in read_probes(_Stem, FOLDER / "value_stems.jsonl")]


def _rows(path: Path, names: list[str]) -> Iterator[dict[str, Any]]:
    rows = [strict_json(line) for line in path.read_text("utf-8").splitlines() if line.strip()]
    if not rows:
        raise ValueError("it holds no line")
    for row in rows:
        if (
            not isinstance(row, dict)
            or sorted(row) != sorted(names)
            or not all(isinstance(v, str) for v in row.values())
        ):
            raise ValueError(f"bad line {row!r:.100}")
        yield row

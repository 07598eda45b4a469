"""The committed prompt sets: what adapters are trained on, and what they are measured on."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from soupmix.errors import EvaluationError

__all__ = ["Prompt", "conversation", "held_out_prompts", "neutral_paragraphs", "read_prompts", "training_prompts"]

_FOLDER = Path(__file__).parent / "prompts"


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question and how to tell whether an answer is about it.

    Attributes:
        text: what is asked. kind: question, howto, advice, ... topic: lower-case word stems; an answer on topic contains a
            word that begins with one of them.
    """

    text: str
    kind: str
    topic: tuple[str, ...]


def training_prompts() -> list[Prompt]:
    """The prompts that the shipped adapters were trained on."""
    return read_prompts(_FOLDER / "train.jsonl")


def held_out_prompts() -> list[Prompt]:
    """Prompts on other topics, a third of them of kinds that were never trained on."""
    return read_prompts(_FOLDER / "heldout.jsonl")


def neutral_paragraphs() -> list[str]:
    """Prose in no particular style, for perplexity."""
    return (_FOLDER / "neutral.txt").read_text("utf-8").strip().split("\n\n")


def read_prompts(path: Path) -> list[Prompt]:
    """Read a JSONL file of {"prompt", "kind", "topic"}.

    Raises:
        EvaluationError: the file cannot be read, or a line is not such an object (reason "prompts").
    """
    try:
        lines = path.read_text("utf-8").splitlines()
        return [_parse(json.loads(line)) for line in lines if line.strip()]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise EvaluationError(
            f'{path} is not a prompt file ({error}); each line must be {{"prompt": ..., "kind": ..., "topic": [...]}}',
            reason="prompts",
        ) from error


def conversation(prompt: str, system: str = "") -> list[dict[str, str]]:
    """One question as chat messages of "role" and "content", perhaps under a system prompt."""
    first = [{"role": "system", "content": system}] if system else []
    return [*first, {"role": "user", "content": prompt}]


def _parse(row: dict[str, object]) -> Prompt:
    topic = row["topic"]
    if not isinstance(row["prompt"], str) or not isinstance(topic, Sequence) or not topic:
        raise ValueError(f"bad line {row!r}")
    return Prompt(row["prompt"], str(row["kind"]), tuple(str(stem).lower() for stem in topic))

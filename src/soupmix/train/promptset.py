"""The committed prompt sets: what adapters are trained on, and what they are measured on."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from soupmix.errors import TrainingError

__all__ = ["TrainPrompt", "held_out", "read_prompts", "training"]

_FOLDER = Path(__file__).parent / "prompts"


@dataclass(frozen=True, slots=True)
class TrainPrompt:
    """A prompt, its kind (question, howto, ...), and word stems of which an answer on topic contains at least one."""

    text: str
    kind: str
    topic: tuple[str, ...]


def training() -> list[TrainPrompt]:
    """The prompts that the shipped adapters were trained on."""
    return read_prompts(_FOLDER / "train.jsonl")


def held_out() -> list[TrainPrompt]:
    """Prompts on other topics, a third of them of kinds that were never trained on."""
    return read_prompts(_FOLDER / "heldout.jsonl")


def read_prompts(path: Path) -> list[TrainPrompt]:
    """Read a JSONL file of {"prompt", "kind", "topic"}.

    Raises:
        TrainingError: the file cannot be read, or a line is not such an object.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
        return [_parse(json.loads(line)) for line in lines if line.strip()]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(
            f'{path} is not a prompt file ({error}); each line must be {{"prompt": ..., "kind": ..., "topic": [...]}}',
            reason="prompts",
        ) from error


def _parse(row: dict[str, object]) -> TrainPrompt:
    topic = row["topic"]
    if not isinstance(row["prompt"], str) or not isinstance(topic, Sequence) or not topic:
        raise ValueError(f"bad line {row!r}")
    return TrainPrompt(row["prompt"], str(row["kind"]), tuple(str(stem).lower() for stem in topic))

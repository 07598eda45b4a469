"""The texts that adapters were trained on, measured as answers are: how much of a pole there was to learn.

No store keeps them, so a file of them is given: JSON lines of {"pole", "prompt", "text", "plain"}, of which "plain" is what the
base answers to the same prompt.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from soupmix.errors import EvaluationError
from soupmix.evaluate.measures import TEXT_MEASURES, measure_text
from soupmix.evaluate.promptset import Prompt
from soupmix.evaluate.statistics import Estimate, Resampling
from soupmix.fields import ShortLine, read_model
from soupmix.sealed import read_sealed

__all__ = ["TRAINED", "TrainedEffects", "TrainedText", "read_trained", "trained_effects"]

TRAINED = "the text that was trained on"
"""What reports call these texts among the arms."""

_CAP = 32 << 20
_MOST = 3000  # texts, of all poles
_LONGEST, _LONGEST_LINE = 20_000, 1 << 20  # characters of a text, bytes of a line
_Text = Annotated[str, Field(max_length=_LONGEST)]


class TrainedText(BaseModel):
    """An answer that the adapter of a pole was trained on, and the plain one to the same prompt."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pole: ShortLine
    prompt: _Text
    text: _Text
    plain: _Text


@dataclass(frozen=True, slots=True)
class TrainedEffects:
    """What the texts do.

    Attributes:
        digest: SHA-256 of the file, "" where none was given. counts: pole -> how many texts.
        effects: (pole, measure) -> mean difference to the plain answers, intervals over texts.
    """

    digest: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)
    effects: Mapping[tuple[str, str], Estimate] = field(default_factory=dict)


def read_trained(path: Path) -> tuple[str, tuple[TrainedText, ...]]:
    """The SHA-256 of such a file, and its texts.

    Raises:
        EvaluationError: it cannot be read, or a line is not such an object (reason "trained", or those of `soupmix.sealed`).
    """
    raw, digest = read_sealed(path, cap=_CAP, error=EvaluationError)
    lines = [line for line in raw.split(b"\n") if line.strip()]
    if not 0 < len(lines) <= _MOST:
        raise _wrong(path, f"it has {len(lines)} lines, and 1 to {_MOST} are allowed")
    found = []
    for number, line in enumerate(lines, 1):
        try:
            if len(line) > _LONGEST_LINE:
                raise ValueError(f"it has more than {_LONGEST_LINE} bytes")
            found.append(read_model(TrainedText, line))
        except ValueError as error:
            raise _wrong(path, f"line {number}: {error}") from None
    return f"sha256:{digest}", tuple(found)


def trained_effects(digest: str, texts: Iterable[TrainedText]) -> TrainedEffects:
    """Measure them by their texts; the base does not judge them."""
    of_poles: dict[str, list[TrainedText]] = {}
    for each in texts:
        of_poles.setdefault(each.pole, []).append(each)
    effects = {}
    for pole, own in of_poles.items():
        draws = Resampling(len(own))
        for place, name in enumerate(TEXT_MEASURES):
            found = draws.mean(_differences(own)[:, place])
            if found is not None:
                effects[pole, name] = found
    return TrainedEffects(digest, {pole: len(own) for pole, own in sorted(of_poles.items())}, effects)


def _differences(texts: Sequence[TrainedText]) -> "np.ndarray[tuple[int, ...], np.dtype[np.float64]]":
    """[texts, measures]."""
    rows = []
    for each in texts:
        prompt = Prompt(each.prompt, "trained", ())
        one, other = (measure_text(prompt, text, True) for text in (each.text, each.plain))
        rows.append([one.get(name, np.nan) - other.get(name, np.nan) for name in TEXT_MEASURES])
    return np.array(rows)


def _wrong(path: Path, why: str) -> EvaluationError:
    return EvaluationError(
        f'{path} holds no texts that adapters were trained on ({why}); each line must be {{"pole": ..., "prompt": ..., "text": '
        '..., "plain": ...}}',
        reason="trained",
    )

"""The texts that adapters were trained on, measured as answers are: how much of a pole there was to learn.

No store keeps them. `soupmix train OUT` leaves them in the folder of each pole, and whoever trained otherwise gives a file: JSON
lines of {"pole", "prompt", "text", "plain"}, of which "plain" is what the base answers to the same prompt.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Final

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from soupmix.errors import EvaluationError
from soupmix.evaluate.measures import TEXT_MEASURES, measure_text
from soupmix.evaluate.promptset import Prompt
from soupmix.evaluate.statistics import Estimate, Resampling
from soupmix.fields import ShortLine, read_model
from soupmix.sealed import read_sealed

__all__ = ["TEXTS", "TRAINED", "TrainedEffects", "TrainedText", "read_trained", "trained_effects"]

TRAINED = "the text that was trained on"
"""What reports call these texts among the arms."""

TEXTS: Final = "trained.jsonl"
"""What `soupmix train` calls their file in the folder of a pole."""

_CAP = 32 << 20
_MOST, _MOST_POLES = 3000, 64  # texts, of all poles
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
    """The texts of such a file, or of all poles in the folder that `soupmix train` wrote, and the SHA-256 of what was read.

    Raises:
        EvaluationError: it cannot be read, or a line is not such an object (reason "trained", or those of `soupmix.sealed`).
    """
    files = sorted(path.glob(f"*/{TEXTS}")) if path.is_dir() else [path]
    if not 0 < len(files) <= _MOST_POLES:
        raise _wrong(path, f"{len(files)} folders in it have a {TEXTS}, and 1 to {_MOST_POLES} are allowed")
    raw = {each: read_sealed(each, cap=_CAP, error=EvaluationError)[0] for each in files}
    lines = [(each, line) for each, data in raw.items() for line in enumerate(data.split(b"\n"), 1) if line[1].strip()]
    if not 0 < len(lines) <= _MOST:
        raise _wrong(path, f"it has {len(lines)} lines, and 1 to {_MOST} are allowed")
    return f"sha256:{sha256(b''.join(raw.values())).hexdigest()}", tuple(_read(each, *line) for each, line in lines)


def _read(path: Path, number: int, line: bytes) -> TrainedText:
    try:
        if len(line) > _LONGEST_LINE:
            raise ValueError(f"it has more than {_LONGEST_LINE} bytes")
        return read_model(TrainedText, line)
    except ValueError as error:
        raise _wrong(path, f"line {number}: {error}") from None


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

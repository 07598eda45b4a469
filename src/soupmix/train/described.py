"""Poles that somebody describes, as YAML: how answers are provoked, and what tells them. Hostile until read.

poles:
  - name: dry
    dimension: humour
    systems: ["Answer correctly, with one dry remark."]
    judge: likelihood
"""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from soupmix.errors import TrainingError
from soupmix.evaluate.metrics import Measures
from soupmix.fields import problem
from soupmix.sealed import read_sealed
from soupmix.strict_yaml import PlainLoader, read_strict
from soupmix.train.judges import LIKELIHOOD
from soupmix.train.poles import POLES, Pole
from soupmix.train.sample import NEUTRAL
from soupmix.weights import check_name

__all__ = ["read_poles"]

_CAP = 1 << 20
_METRICS = (*Measures.__dataclass_fields__, "rarity", "warmth")
_Text = Annotated[str, Field(min_length=1, max_length=4000)]


class _Described(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    name: str
    dimension: str
    systems: Annotated[list[_Text], Field(min_length=1, max_length=16)]
    metric: str | None = None
    up: bool = True
    aim: Annotated[float, Field(allow_inf_nan=False)] | None = None
    spread: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    judge: Annotated[str, Field(pattern=r"^(likelihood|[A-Za-z_][\w.]*:[A-Za-z_]\w*)$", max_length=200)] | None = None
    cap: Annotated[int, Field(ge=8, le=1024)] = 160

    def pole(self) -> Pole:
        """As the others, with the model's own log-probability for a judge where nothing else is said."""
        check_name(self.name)
        check_name(self.dimension)
        if self.metric is not None and self.judge is not None:
            raise ValueError(f"pole {self.name} has both a metric and a judge; give one")
        if self.metric is not None and self.metric not in _METRICS:
            raise ValueError(f"metric {self.metric[:80]!r} is not known; choose from {', '.join(_METRICS)}")
        return Pole(
            self.name,
            self.dimension,
            tuple(self.systems),
            self.metric or "",
            1 if self.up else -1,
            self.spread,
            cap=self.cap,
            aim=self.aim,
            judge="" if self.metric else self.judge or LIKELIHOOD,
        )


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    poles: Annotated[list[_Described], Field(min_length=1, max_length=64)]


def read_poles(path: Path) -> dict[str, Pole]:
    """The poles of a YAML file, by name. No code that it names is imported here.

    Raises:
        TrainingError: the file cannot be read (reasons of `soupmix.sealed`), or does not describe poles ("poles").
        WeightError: a name is not one ("bad-name").
    """
    raw, _ = read_sealed(path, cap=_CAP, error=TrainingError)
    try:
        document = read_strict(raw, PlainLoader)
        if not isinstance(document, dict):
            raise ValueError("it must be a mapping with the key poles")
        found = [each.pole() for each in _Document.model_validate(document).poles]
    except ValidationError as error:
        raise _wrong(path, problem(error)) from None
    except ValueError as error:
        raise _wrong(path, str(error)) from None
    names = [pole.name for pole in found]
    if len(set(names)) < len(names):
        raise _wrong(path, "a name is given twice")
    if taken := sorted({*POLES, NEUTRAL.name} & set(names)):
        raise _wrong(path, f"'{taken[0]}' is the name of a shipped pole, or of plain answers")
    return {pole.name: pole for pole in found}


def _wrong(path: Path, why: str) -> TrainingError:
    return TrainingError(f"{path} does not describe poles: {' '.join(why.split())}; see docs/train.md", reason="poles")

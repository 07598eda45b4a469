"""What is evaluated, as `evaluation.json` keeps it: a run goes on with it, adds to it, or is refused."""

import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from soupmix.errors import EvaluationError
from soupmix.evaluate.promptset import Prompt
from soupmix.evaluate.soups import Arm
from soupmix.fields import Digest, Name, read_model, twice
from soupmix.files import canonical_json, strict_json, told, write_file
from soupmix.sealed import read_sealed
from soupmix.version import __version__
from soupmix.weights import Weights

__all__ = [
    "MOST_CONTAINERS",
    "RECORD",
    "AdapterFacts",
    "ArmFields",
    "BaseFacts",
    "EvaluationRecord",
    "PromptFields",
    "arm_fields",
    "bounded_json",
    "check_readable",
    "held_record",
    "here",
    "joined",
    "prompt_fields",
    "write_record",
]

RECORD = "evaluation.json"
_CAP = 16 << 20
_LIBRARIES = ("torch", "transformers")
MOST_CONTAINERS = 500_000
"""Lists and objects of a document of somebody else."""

_T = TypeVar("_T")


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BaseFacts(_Frozen):
    """The base model: its name, digests of its weights and of all else that is loaded, how many parameters are stored."""

    name: str
    digest: Digest
    files: Digest
    parameters: int | None = None


class AdapterFacts(_Frozen):
    """An adapter of the store."""

    digest: Digest
    dimension: Name
    pole: Name


class ArmFields(_Frozen):
    """An `Arm`, as JSON."""

    name: Annotated[str, Field(min_length=1, max_length=2000)]
    weights: dict[Name, str]
    method: str
    system: str
    way: str
    shots: tuple[tuple[str, str], ...]
    contrasts: tuple[tuple[str, str], ...] = ()
    parameters: dict[str, Annotated[float, Field(allow_inf_nan=False)]] = {}  # pydantic copies it

    def arm(self) -> Arm:
        """The arm. Raises `WeightError`."""
        more = self.contrasts, tuple(self.parameters.items())
        return Arm(self.name, Weights(self.weights), self.method, self.system, self.way, self.shots, *more)

    @model_serializer(mode="wrap")
    def _as_the_arm(self, made: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in made(self).items() if value or name not in ("contrasts", "parameters")}


class PromptFields(_Frozen):
    """A `Prompt`, as JSON."""

    prompt: str
    kind: str
    topic: tuple[str, ...]


class EvaluationRecord(_Frozen):
    """What is evaluated.

    Attributes:
        base, adapters: what answers. preferences: pole -> system prompt that asks for it.
        seed, length, top_k, dtype: how answers are made; length in tokens. temperatures, arms, prompts: in order.
        compiled: whether compiled steps answered, where that could be done (not before 2026-11-30).
        made_by: versions and processors of the runs that have added answers.
    """

    schema_version: Literal[1] = 1
    base: BaseFacts
    adapters: dict[Name, AdapterFacts]
    preferences: dict[str, str]
    seed: Annotated[int, Field(ge=0)]
    length: Annotated[int, Field(ge=1)]
    top_k: int
    dtype: str | None
    compiled: bool = False
    temperatures: tuple[Annotated[float, Field(ge=0, le=10)], ...]
    arms: tuple[ArmFields, ...]
    prompts: tuple[PromptFields, ...]
    made_by: tuple[dict[str, str], ...]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for what, names in (
            ("arm", [each.name for each in self.arms]),
            ("prompt", [each.prompt for each in self.prompts]),
        ):
            if (again := twice(names)) is not None:
                raise ValueError(f"the {what} {again[:60]!a} comes twice")
        if strangers := sorted({name for each in self.arms for name in each.weights} - self.adapters.keys()):
            raise ValueError(f"an arm has the adapter {strangers[0]!r}, which is none of this evaluation")
        return self

    def all_arms(self) -> tuple[Arm, ...]:
        """The arms, in order."""
        return tuple(each.arm() for each in self.arms)

    def all_prompts(self) -> tuple[Prompt, ...]:
        """The prompts, in order."""
        return tuple(Prompt(each.prompt, each.kind, each.topic) for each in self.prompts)


def arm_fields(arm: Arm) -> ArmFields:
    """An arm, as JSON."""
    return ArmFields.model_validate(arm.to_dict())


def prompt_fields(prompt: Prompt) -> PromptFields:
    """A prompt, as JSON."""
    return PromptFields(prompt=prompt.text, kind=prompt.kind, topic=prompt.topic)


def here() -> dict[str, str]:
    """What answers are made by in this process: versions, and the processor, on which their last bits may depend."""
    return {
        "soupmix": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in _LIBRARIES},
        "processor": _processor(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def bounded_json(raw: bytes) -> Any:
    """Parse JSON of somebody else; so many lists and objects that they fill the memory are refused. Raises `ValueError`."""
    _check_containers(raw)
    return strict_json(raw)


def _check_containers(raw: bytes) -> None:
    count = raw.count(b"[") + raw.count(b"{")
    if count > MOST_CONTAINERS:
        raise ValueError(f"it has {count} lists and objects, and {MOST_CONTAINERS} are allowed")


def check_readable(raw: bytes, path: Path, most: int) -> None:
    """Raise `EvaluationError` (reason "too-large") for what reading would refuse, before it is written."""
    count = raw.count(b"[") + raw.count(b"{")
    if len(raw) > most or count > MOST_CONTAINERS:
        raise EvaluationError(
            f"{path} would have {len(raw)} bytes with {count} lists and objects, and could not be read again: {most} and "
            f"{MOST_CONTAINERS} are allowed; evaluate fewer arms, prompts or temperatures in one folder",
            reason="too-large",
        )


def held_record(out: Path) -> EvaluationRecord | None:
    """What a folder holds an evaluation of; None if there is nothing, or only an empty folder.

    Raises:
        EvaluationError: the folder holds something else (reason "not-an-evaluation"), or the record is damaged
            ("bad-record", or those of `soupmix.sealed`).
    """
    path = out / RECORD
    if not out.exists() or (out.is_dir() and not path.exists() and next(out.iterdir(), None) is None):
        return None
    try:
        raw, _ = read_sealed(path, cap=_CAP, error=EvaluationError)
    except EvaluationError as error:
        if error.reason == "missing":
            raise EvaluationError(
                f"{out} is no evaluation: it holds no {RECORD}; choose another folder", reason="not-an-evaluation"
            ) from None
        raise
    try:
        _check_containers(raw)
        return read_model(EvaluationRecord, raw)
    except ValueError as error:
        raise EvaluationError(f"{path} is damaged: {told(error)}; choose another folder", reason="bad-record") from None


def write_record(out: Path, record: EvaluationRecord) -> None:
    """Write it, whole or not at all. Raises `OutputError`, and `EvaluationError` as `check_readable` does."""
    raw = canonical_json(record.model_dump(mode="json"))
    check_readable(raw, out / RECORD, _CAP)
    write_file(out / RECORD, raw)


def joined(before: EvaluationRecord, now: EvaluationRecord, out: Path) -> EvaluationRecord:
    """An evaluation that goes on: arms, prompts and temperatures may be added, and nothing that answers depend on may change.

    Raises:
        EvaluationError: something did (reason "evaluation-changed").
    """
    for what in ("seed", "length", "top_k", "dtype", "compiled"):
        _same(what, getattr(before, what), getattr(now, what), out)
    _same("base", before.base.digest, now.base.digest, out)
    _same("files of the base", before.base.files, now.base.files, out)
    for name, adapter, other in _common(before.adapters, now.adapters):
        _same(f"adapter {name}", adapter.digest, other.digest, out)
    for pole, asks, other_asks in _common(before.preferences, now.preferences):
        _same(f"preference prompt of {pole}", asks, other_asks, out)
    arms = [{each.name: each for each in record.arms} for record in (before, now)]
    prompts = [{each.prompt: each for each in record.prompts} for record in (before, now)]
    for name, arm, other_arm in _common(*arms):
        _same(f"arm {name}", arm, other_arm, out)
    for text, prompt, other_prompt in _common(*prompts):
        _same(f"prompt {text:.60}", prompt, other_prompt, out)
    return now.model_copy(
        update={
            "adapters": {**before.adapters, **now.adapters},
            "preferences": {**before.preferences, **now.preferences},
            "temperatures": tuple(dict.fromkeys((*before.temperatures, *now.temperatures))),
            "arms": tuple({**arms[0], **arms[1]}.values()),
            "prompts": tuple({**prompts[0], **prompts[1]}.values()),
            "made_by": (*before.made_by, *(each for each in now.made_by if each not in before.made_by)),
        }
    )


def _common(one: Mapping[str, _T], other: Mapping[str, _T]) -> Iterator[tuple[str, _T, _T]]:
    return ((name, value, other[name]) for name, value in one.items() if name in other)


def _same(what: str, before: object, now: object, out: Path) -> None:
    if before != now:
        raise EvaluationError(
            f"{out} was begun otherwise: {what} was {before!s:.90} and is {now!s:.90}; give the same, or another folder",
            reason="evaluation-changed",
        )

"""Answers as they are kept: `samples.jsonl`, one JSON object a line, appended to while a run goes on.

A line counts only if its key is the digest of what it says and of what the record of the evaluation says; a torn last line is cut
off. So a line of other settings, another base or other adapters is found out, and what is there is not sampled again.
"""

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from soupmix.errors import EvaluationError, OutputError
from soupmix.evaluate.record import ArmFields, EvaluationRecord, arm_fields
from soupmix.evaluate.soups import Arm
from soupmix.fields import read_model
from soupmix.files import compact_json, digest_parts, write_file, writing
from soupmix.locks import lock
from soupmix.replacing import check_alone

__all__ = [
    "LONGEST_LINE",
    "MOST_SAMPLE_BYTES",
    "SAMPLES",
    "ArmSample",
    "Keys",
    "SampleFile",
    "open_samples",
    "read_samples",
    "sample_line",
]

SAMPLES = "samples.jsonl"
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
LONGEST_LINE = 1 << 20  # bytes
MOST_SAMPLE_BYTES = 1 << 30
_SYNC_EVERY = 1.0  # seconds: what the machine may lose when it crashes


@dataclass(frozen=True, slots=True)
class ArmSample:
    """One answer of one arm to one prompt.

    Attributes:
        arm: who answered. prompt, kind: text and kind of the prompt.
        temperature: 0.0 is greedy. seed: of the whole run.
        text: the answer. tokens: how many it has. finished: whether it ended by itself, not at the limit.
        key: digest of everything that the answer depends on.
        decoded: how many tokens were decoded for it in all rows; None: just its own.
    """

    arm: Arm
    prompt: str
    kind: str
    temperature: float
    seed: int
    text: str
    tokens: int
    finished: bool
    key: str
    decoded: int | None = None


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    arm: ArmFields
    prompt: str
    kind: str
    temperature: float
    seed: int
    text: str
    tokens: Annotated[int, Field(ge=0, lt=1 << 31)]
    finished: bool
    key: str
    decoded: Annotated[int, Field(ge=0, lt=1 << 31)] | None = None


class Keys:
    """The keys of an evaluation's samples, and their order: by prompt, then by arm, then by temperature."""

    def __init__(self, record: EvaluationRecord) -> None:
        self._record = record
        self.arms = {arm.name: arm for arm in record.all_arms()}
        self._of_arms = {name: self._arm_parts(arm) for name, arm in self.arms.items()}
        self._places = (
            {each.prompt: number for number, each in enumerate(record.prompts)},
            {name: number for number, name in enumerate(self.arms)},
            {each: number for number, each in enumerate(record.temperatures)},
        )
        self.seed = record.seed
        self.kinds = {each.prompt: each.kind for each in record.prompts}

    def key(self, arm: str, prompt: str, temperature: float) -> str:
        """Digest over base, adapters, arm, prompt, temperature, seed and limits."""
        return digest_parts(
            "soupmix.sample.v1", {**self._of_arms[arm], "prompt": prompt, "temperature": repr(temperature)}
        )

    def place(self, sample: ArmSample) -> tuple[int, int, int]:
        """Where a sample stands among the others."""
        prompts, arms, temperatures = self._places
        return prompts[sample.prompt], arms[sample.arm.name], temperatures[sample.temperature]

    def known(self, arm: str, prompt: str, temperature: float) -> bool:
        """Whether the evaluation has such an arm, prompt and temperature."""
        prompts, arms, temperatures = self._places
        return prompt in prompts and arm in arms and temperature in temperatures

    def _arm_parts(self, arm: Arm) -> dict[str, str]:
        of = self._record
        adapters = {name: of.adapters[name].digest for name in arm.weights if name in of.adapters}
        return {
            "adapters": json.dumps(adapters, sort_keys=True),
            "arm": json.dumps(arm.to_dict(), sort_keys=True),
            "base": of.base.digest,
            "files": of.base.files,
            "limits": json.dumps([of.length, of.top_k, of.dtype, *(("compiled",) if of.compiled else ())]),
            "seed": str(of.seed),
        }


class SampleFile:
    """`samples.jsonl` of an evaluation, open for one process; made by `open_samples`.

    Attributes:
        path: where. samples: all whole ones, by key. cut: bytes of a torn last line that opening cut off.
    """

    def __init__(self, path: Path, handle: int, keys: Keys) -> None:
        self.path, self._handle, self._keys = path, handle, keys
        self.samples, self._size, self.cut = _read(path, handle, keys)
        if self.cut:
            os.ftruncate(handle, self._size)
        self._synced = time.monotonic()

    def append(self, made: Sequence[ArmSample]) -> None:
        """Add samples, all or none of them. Raises `OutputError`, and `EvaluationError` for what could not be read again."""
        lines = list(map(sample_line, made))
        data = b"".join(lines)
        longest = max(map(len, lines), default=0)
        if longest > LONGEST_LINE or self._size + len(data) > MOST_SAMPLE_BYTES:
            raise EvaluationError(
                f"{self.path} could not be read again with {self._size + len(data)} bytes, {longest} of them in a line: "
                f"{MOST_SAMPLE_BYTES} and {LONGEST_LINE} are allowed; what is there is kept",
                reason="too-large",
            )
        with writing(self.path):
            try:
                rest = memoryview(data)
                while rest:
                    rest = rest[os.write(self._handle, rest) :]
            except BaseException:
                os.ftruncate(self._handle, self._size)
                raise
            self._size += len(data)
            self.samples.update((each.key, each) for each in made)
            if time.monotonic() - self._synced > _SYNC_EVERY:
                self.sync()

    def sync(self) -> None:
        """Wait until the disk has everything. Raises `OutputError`."""
        with writing(self.path):
            os.fsync(self._handle)
        self._synced = time.monotonic()

    def sort(self) -> None:
        """Put the lines in order, in one step; the same samples then are the same bytes. Raises `OutputError`."""
        ordered = sorted(self.samples.values(), key=self._keys.place)
        write_file(self.path, b"".join(map(sample_line, ordered)))


@contextmanager
def open_samples(out: Path, record: EvaluationRecord) -> Iterator[SampleFile]:
    """The samples of an evaluation, for one process at a time.

    Raises:
        EvaluationError: a line is not of this evaluation (reason "bad-samples").
        OutputError: another process is at work in the folder ("in-use"), the file is a link, a device or has other names too
            ("not-a-file"), or the disk refuses.
    """
    path = out / SAMPLES
    with _held(out), writing(path):
        handle = os.open(path, _FLAGS, 0o644)
        try:
            _check_plain(os.fstat(handle), path)
            file = SampleFile(path, handle, Keys(record))
            try:
                yield file
            finally:
                file.sync()
        finally:
            os.close(handle)


def read_samples(out: Path, record: EvaluationRecord) -> tuple[ArmSample, ...]:
    """The samples of an evaluation, in order. Raises as `open_samples` does, and nothing is written."""
    path, keys = out / SAMPLES, Keys(record)
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise EvaluationError(f"cannot read {path}: {error.strerror}", reason="bad-samples") from error
    try:
        _check_plain(os.fstat(handle), path)
        found, _, _ = _read(path, handle, keys)
    finally:
        os.close(handle)
    return tuple(sorted(found.values(), key=keys.place))


@contextmanager
def _held(out: Path) -> Iterator[None]:
    with writing(out):
        handle = os.open(out, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with writing(out):
            alone = lock(handle, wait=False)
        if not alone:
            raise OutputError(
                f"another process is at work in {out}; wait for it, or choose another folder", reason="in-use"
            )
        yield
    finally:
        os.close(handle)


def _check_plain(found: os.stat_result, path: Path) -> None:
    check_alone(found, path, remedy="choose another folder")
    if found.st_size > MOST_SAMPLE_BYTES:
        raise EvaluationError(
            f"{path} has more than {MOST_SAMPLE_BYTES} bytes; choose another folder", reason="bad-samples"
        )


def _read(path: Path, handle: int, keys: Keys) -> tuple[dict[str, ArmSample], int, int]:
    """Samples by key, how many bytes they have, and how many bytes of a torn line stand behind them."""
    found: dict[str, ArmSample] = {}
    size = 0
    with os.fdopen(os.dup(handle), "rb") as file:
        file.seek(0)
        for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE + 1), b""), 1):
            if not line.endswith(b"\n"):
                if len(line) > LONGEST_LINE:
                    raise _bad(path, number, f"it has more than {LONGEST_LINE} bytes")
                return found, size, len(line)
            sample = _parsed(line, keys, path, number)
            if found.setdefault(sample.key, sample) is not sample:
                raise _bad(path, number, "it comes twice")
            size += len(line)
    return found, size, 0


def _parsed(line: bytes, keys: Keys, path: Path, number: int) -> ArmSample:
    try:
        read = read_model(_Line, line)
    except ValueError as error:
        raise _bad(path, number, str(error)) from None
    arm = keys.arms.get(read.arm.name)
    if not keys.known(read.arm.name, read.prompt, read.temperature) or arm is None or arm_fields(arm) != read.arm:
        raise _bad(path, number, "its arm, prompt or temperature is none of the record beside it")
    if read.key != keys.key(arm.name, read.prompt, read.temperature) or (read.kind, read.seed) != (
        keys.kinds[read.prompt],
        keys.seed,
    ):
        raise _bad(path, number, "its key is not that of its arm, prompt, temperature, seed, limits, base and adapters")
    facts = (read.prompt, read.kind, read.temperature, read.seed, read.text, read.tokens, read.finished, read.key)
    return ArmSample(arm, *facts, read.decoded)


def _bad(path: Path, number: int, why: str) -> EvaluationError:
    return EvaluationError(
        f"line {number} of {path} is not a sample of this evaluation: {why}; take it out, or choose another folder",
        reason="bad-samples",
    )


def sample_line(sample: ArmSample) -> bytes:
    """A sample as it is written."""
    fields: dict[str, Any] = {name: getattr(sample, name) for name in ArmSample.__slots__}
    if sample.decoded is None:
        del fields["decoded"]
    return compact_json({**fields, "arm": sample.arm.to_dict()}) + b"\n"

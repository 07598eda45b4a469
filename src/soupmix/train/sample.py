"""Sample answers of the plain model in some manner, in chunks, so that a stopped run goes on where it was.

The name of a chunk's file is a digest of all that decides what is in it. So samples of another base, prompt or seed are
never met, and those of a pole stay when only another pole is described anew.
"""

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from soupmix.backends.protocol import Message
from soupmix.base import Base
from soupmix.engine import Engine, Sampling
from soupmix.engine.positions import positions
from soupmix.errors import TrainingError
from soupmix.evaluate.promptset import Prompt, conversation
from soupmix.files import digest_parts, write_file
from soupmix.policy import Grant
from soupmix.sealed import read_sealed

__all__ = ["NEUTRAL", "Chunk", "Manner", "Sample", "SampleSource", "chunks", "read_samples", "sample_chunk"]

_PROMPTS_PER_CHUNK = 44  # what a kill can cost
_LARGEST = 64 << 20  # bytes of a chunk's file


@dataclass(frozen=True, slots=True)
class Sample:
    """One sampled answer: to which prompt, which try, its text, whether it ended by itself, under which system prompt."""

    prompt: int
    variant: int
    text: str
    finished: bool
    system: str = ""


_SAMPLE = TypeAdapter(Sample)


@dataclass(frozen=True, slots=True)
class Manner:
    """A manner of answering: a name, the system prompts that provoke it, used in turn, and the most new tokens."""

    name: str
    systems: tuple[str, ...]
    cap: int


NEUTRAL = Manner("neutral", ("",), 256)


@dataclass(frozen=True, slots=True)
class SampleSource:
    """Who is asked what: the base, the prompts, answers to each, the seed, the temperature."""

    base: Base
    prompts: tuple[Prompt, ...]
    variants: int
    seed: int
    temperature: float = 0.7


@dataclass(frozen=True)
class Chunk:
    """A piece of sampling work: answers to the prompts of numbers `start` to `stop` - 1 in the manner of one pool."""

    source: SampleSource
    pool: Manner
    start: int
    stop: int

    @property
    def cells(self) -> list[tuple[int, int]]:
        """(number of the prompt, which try) of every sample."""
        return [(n, v) for n in range(self.start, self.stop) for v in range(self.source.variants)]

    @cached_property
    def file(self) -> str:
        """Where its answers are kept."""
        source, pool = self.source, self.pool
        parts = {
            "base": source.base.digest,
            "files": source.base.files_digest(),
            "pool": json.dumps([pool.systems, pool.cap]),
            "prompts": json.dumps([self.start, [p.text for p in source.prompts[self.start : self.stop]]]),
            "sampling": json.dumps([source.variants, source.seed, source.temperature]),
        }
        return f"{pool.name}-{self.start:04d}-{digest_parts('soupmix samples', parts)[:24]}.jsonl"

    def system(self, number: int, variant: int) -> str:
        """The system prompt of one sample; none for a plain answer."""
        return self.pool.systems[(number + variant) % len(self.pool.systems)]


def chunks(source: SampleSource, pools: Iterable[Manner]) -> list[Chunk]:
    """All the sampling work of a run, longest answers first so that workers end together."""
    return [
        Chunk(source, pool, start, min(start + _PROMPTS_PER_CHUNK, len(source.prompts)))
        for pool in sorted(pools, key=lambda pool: (-pool.cap, pool.name))
        for start in range(0, len(source.prompts), _PROMPTS_PER_CHUNK)
    ]


def sample_chunk(engine: Engine, bare: Grant, chunk: Chunk, folder: Path) -> None:
    """Sample one chunk into its file under `folder`; `bare` is a grant of nothing."""
    source, cells = chunk.source, chunk.cells
    systems = [chunk.system(n, v) for n, v in cells]
    conversations = [
        conversation(source.prompts[n].text, system) for (n, _), system in zip(cells, systems, strict=True)
    ]
    most = min(chunk.pool.cap, _room(engine, conversations))
    sampling = Sampling(max_new_tokens=most, temperature=source.temperature, seed=source.seed + 1_000_000 * chunk.start)
    made = engine.complete(conversations, [bare] * len(cells), sampling=sampling, batch_size=96)
    rows = [
        Sample(n, v, answer.text.strip(), answer.finished, system)
        for (n, v), answer, system in zip(cells, made, systems, strict=True)
    ]
    write_file(folder / chunk.file, "".join(json.dumps(asdict(row)) + "\n" for row in rows).encode())


def _room(engine: Engine, conversations: Sequence[Sequence[Message]]) -> int:
    """How many tokens a base leaves to the answer of the longest prompt; at least one, which then is refused in words."""
    most = positions(engine.model.config)
    return sys.maxsize if most is None else max(1, most - max(len(engine.prompts.chat(each)) for each in conversations))


def read_samples(folder: Path, chunk: Chunk) -> list[Sample] | None:
    """The samples of a chunk, in order; None if its file is not there, or is not what `sample_chunk` writes."""
    try:
        raw, _ = read_sealed(folder / chunk.file, cap=_LARGEST, error=TrainingError)
        found = [_SAMPLE.validate_json(line, strict=True) for line in raw.splitlines()]
    except (TrainingError, ValidationError):
        return None
    wanted: Sequence[tuple[int, int, str]] = [(n, v, chunk.system(n, v)) for n, v in chunk.cells]
    return found if [(each.prompt, each.variant, each.system) for each in found] == wanted else None

"""Sample answers of the plain model in the manner of a pole, in chunks, so that a stopped run goes on where it was."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from soupmix.engine import Engine, Sampling
from soupmix.evaluate.promptset import Prompt, conversation
from soupmix.files import write_file
from soupmix.policy import Grant
from soupmix.train.poles import POLES

__all__ = ["NEUTRAL", "Chunk", "Sample", "chunks", "read_samples", "sample_chunk"]

NEUTRAL = "neutral"
_NEUTRAL_CAP = 256
_PROMPTS_PER_CHUNK = 44  # what a kill can cost


@dataclass(frozen=True, slots=True)
class Sample:
    """One sampled answer: to which prompt, which try, its text, whether it ended by itself, under which system prompt."""

    prompt: int
    variant: int
    text: str
    finished: bool
    system: str = ""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of sampling work: `variants` answers to each of some prompts, in the manner of one pole or of none.

    Attributes:
        name: a pole, or "neutral". start, stop: range of prompt numbers. seed: of the whole run.
    """

    name: str
    start: int
    stop: int
    variants: int
    seed: int
    temperature: float

    @property
    def file(self) -> str:
        """Where its answers are kept."""
        return f"{self.name}-{self.start:04d}.jsonl"

    def system(self, number: int, variant: int) -> str:
        """The system prompt of one sample; none for a plain answer."""
        systems = ("",) if self.name == NEUTRAL else POLES[self.name].systems
        return systems[(number + variant) % len(systems)]


def chunks(names: Sequence[str], prompts: int, *, variants: int, seed: int, temperature: float = 0.7) -> list[Chunk]:
    """All the sampling work of a run, longest answers first so that workers end together."""
    cap = {name: _cap(name) for name in names}
    return [
        Chunk(name, start, min(start + _PROMPTS_PER_CHUNK, prompts), variants, seed, temperature)
        for name in sorted(names, key=lambda name: (-cap[name], name))
        for start in range(0, prompts, _PROMPTS_PER_CHUNK)
    ]


def sample_chunk(engine: Engine, bare: Grant, chunk: Chunk, prompts: Sequence[Prompt], folder: Path) -> None:
    """Sample one chunk into its file under `folder`; `bare` is a grant of nothing."""
    cells = [(n, v) for n in range(chunk.start, chunk.stop) for v in range(chunk.variants)]
    systems = [chunk.system(n, v) for n, v in cells]
    conversations = [conversation(prompts[n].text, system) for (n, _), system in zip(cells, systems, strict=True)]
    sampling = Sampling(
        max_new_tokens=_cap(chunk.name), temperature=chunk.temperature, seed=chunk.seed + 1_000_000 * chunk.start
    )
    made = engine.complete(conversations, [bare] * len(cells), sampling=sampling, batch_size=96)
    rows = [
        Sample(n, v, answer.text.strip(), answer.finished, system)
        for (n, v), answer, system in zip(cells, made, systems, strict=True)
    ]
    write_file(folder / chunk.file, "".join(json.dumps(asdict(row)) + "\n" for row in rows).encode())


def read_samples(folder: Path, name: str) -> list[Sample]:
    """All samples of one pole, in order."""
    lines = (line for path in sorted(folder.glob(f"{name}-*.jsonl")) for line in path.read_text("utf-8").splitlines())
    return [Sample(**json.loads(line)) for line in lines]


def _cap(name: str) -> int:
    return _NEUTRAL_CAP if name == NEUTRAL else POLES[name].cap

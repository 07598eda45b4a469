"""Where the answers of a simulation come from: expected by a map, without a model, or generated and kept."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from soupmix.backends.protocol import MOST_SEEDS, Sampling
from soupmix.engine import Engine
from soupmix.errors import EvaluationError
from soupmix.evaluate.measures import measure_text
from soupmix.evaluate.promptset import Prompt
from soupmix.evaluate.samples import ArmSample
from soupmix.files import strict_json, writing
from soupmix.methods import DEFAULT
from soupmix.policy import Grant
from soupmix.preference.learner import Measuring, Values
from soupmix.preference.reach import Reach
from soupmix.weights import Weights

__all__ = [
    "ExpectedAnswers",
    "GeneratedAnswers",
    "PosedPrompt",
    "RecordedAnswers",
    "SimulatedAnswer",
    "SimulatedAnswers",
]

_TEMPERATURE = 0.7
_LONGEST_LINE = 1 << 20


@dataclass(frozen=True, slots=True)
class PosedPrompt:
    """One prompt for one way to answer.

    Attributes:
        prompt: what is asked. weights: of the soup.
        system: system prompt, "" for none. shots: (question, answer) examples before the prompt.
    """

    prompt: Prompt
    weights: Weights = field(default_factory=Weights)
    system: str = ""
    shots: tuple[tuple[str, str], ...] = ()

    def key(self, *beside: object) -> str:
        """Of all that it says, and of what else the answer depends on."""
        return _key(self.prompt.text, self.weights, self.system, self.shots, *beside)


@dataclass(frozen=True, slots=True)
class SimulatedAnswer:
    """What came of it.

    Attributes:
        text: "" where it is only expected. values: of the traits, None where it has none.
        on_topic: whether a word of the topic occurs; None where nobody can know.
    """

    text: str
    values: Values | None
    on_topic: bool | None = None


class SimulatedAnswers(Protocol):
    """Whoever answers: the same asks always get the same answers."""

    def __call__(self, asks: Sequence[PosedPrompt]) -> list[SimulatedAnswer]:
        """One answer per ask, in order."""

    @property
    def with_prompts(self) -> bool:
        """Whether system prompts mean anything to it."""

    @property
    def with_shots(self) -> bool:
        """Whether examples do."""


@dataclass(frozen=True, slots=True)
class ExpectedAnswers:
    """Answers as a map expects them, and as far from that as single answers are: fast, and without a model.

    Attributes:
        reach: has the map. seed: of the luck of every prompt and soup.
    """

    reach: Reach
    seed: int = 0

    @property
    def with_prompts(self) -> bool:
        """A map of weights knows nothing of prompts."""
        return False

    @property
    def with_shots(self) -> bool:
        """Nor of examples."""
        return False

    def __call__(self, asks: Sequence[PosedPrompt]) -> list[SimulatedAnswer]:
        """Raises `EvaluationError` for prompts or weights that the map says nothing of."""
        return [self._one(ask) for ask in asks]

    def _one(self, ask: PosedPrompt) -> SimulatedAnswer:
        if ask.system or ask.shots:
            raise EvaluationError("a map says nothing of prompts; simulate with the model", reason="not-measured")
        surface, traits = self.reach.surface, self.reach.traits
        draw = np.random.default_rng([self.seed, int(ask.key()[:15], 16)])
        placed = surface.point(ask.weights)[None]
        point = []
        for trait in traits.axes:
            measure = surface.document.measures[trait.key]
            value = surface.mean(trait.key, placed)[0] + draw.normal(0.0, float(np.hypot(measure.spread, measure.lack)))
            point.append((float(value) - trait.centre) / trait.scale)
        return SimulatedAnswer("", traits.values(np.array(point)))


class GeneratedAnswers:
    """Answers of the model, each kept in a file as soon as it is there: a simulation that was stopped goes on."""

    def __init__(
        self,
        engine: Engine,
        allow: Callable[[Weights], Grant],
        measure: Measuring,
        path: Path,
        *,
        length: int = 128,
        seed: int = 0,
        rows: int = 48,
        advance: Callable[[int], None] = lambda kept: None,
    ) -> None:
        """Read what was kept.

        Args:
            engine: answers.
            allow: grants weights.
            measure: tells the traits of texts.
            path: of the file, which is made if it is not there.
            length: most tokens of an answer.
            seed: of the luck, which all answers to a prompt share.
            rows: most answers of a batch.
            advance: called with how many answers there are.

        Raises:
            EvaluationError: the file holds something else (reason "bad-samples"). OutputError: the disk refuses.
        """
        self._engine, self._allow, self._measure = engine, allow, measure
        self._path, self._length, self._seed, self._rows, self._advance = path, length, seed, rows, advance
        held = dict(zip(engine.adapters.names, engine.adapters.digests, strict=True))
        self._made_by = engine.base_digest, str(engine.model.dtype), held
        self._texts = _read(path)

    @property
    def with_prompts(self) -> bool:
        """The model reads prompts."""
        return True

    @property
    def with_shots(self) -> bool:
        """And examples."""
        return True

    def __call__(self, asks: Sequence[PosedPrompt]) -> list[SimulatedAnswer]:
        """Answers that are kept, and the others made in batches. Raises as `Engine.complete`, and `OutputError`."""
        left = {key: ask for ask in asks if (key := self._key(ask)) not in self._texts}
        queued = sorted(left.values(), key=lambda ask: (bool(ask.shots), bool(ask.system), ask.prompt.text))
        for start in range(0, len(queued), self._rows):
            self._make(queued[start : start + self._rows])
        return [self._answer(ask) for ask in asks]

    def _key(self, ask: PosedPrompt) -> str:
        return ask.key(*self._made_by, self._length, self._seed, _TEMPERATURE)

    def _make(self, asks: Sequence[PosedPrompt]) -> None:
        seeds = [_luck(self._seed, ask.prompt.text) for ask in asks]
        how = Sampling(max_new_tokens=self._length, temperature=_TEMPERATURE)
        made = self._engine.complete(
            [_conversation(ask) for ask in asks],
            [self._allow(ask.weights) for ask in asks],
            sampling=how,
            batch_size=self._rows,
            streams=seeds,
        )
        lines = [
            json.dumps(
                {
                    "key": self._key(ask),
                    "prompt": ask.prompt.text,
                    "weights": str(ask.weights),
                    "text": each.text.strip(),
                }
            )
            for ask, each in zip(asks, made, strict=True)
        ]
        with writing(self._path), self._path.open("ab") as file:
            file.write("".join(f"{line}\n" for line in lines).encode())
            file.flush()
            os.fsync(file.fileno())
        self._texts.update((self._key(ask), each.text.strip()) for ask, each in zip(asks, made, strict=True))
        self._advance(len(self._texts))

    def _answer(self, ask: PosedPrompt) -> SimulatedAnswer:
        return _measured(ask, self._texts[self._key(ask)], self._measure)


class RecordedAnswers:
    """Answers that an evaluation kept: of its soups and its system prompts, at its highest temperature."""

    def __init__(
        self, samples: Sequence[ArmSample], measure: Measuring, otherwise: SimulatedAnswers | None = None
    ) -> None:
        """Take what was sampled.

        Args:
            samples: of an evaluation of the same adapters.
            measure: tells the traits of texts.
            otherwise: makes what was not sampled, such as answers behind examples; None: nobody does.
        """
        highest = max(each.temperature for each in samples)
        plain = [
            each
            for each in samples
            if each.arm.way == "soup" and each.arm.method == DEFAULT and each.temperature == highest
        ]
        self._texts = {
            _key(each.prompt, each.arm.weights, each.arm.system, each.arm.shots): each.text for each in plain
        }
        soups = (each.arm.weights.nonzero() for each in plain if not each.arm.system and not each.arm.shots)
        self.soups = tuple(dict.fromkeys(soups))
        self._measure, self._otherwise = measure, otherwise

    @property
    def with_prompts(self) -> bool:
        """As far as they were sampled."""
        return True

    @property
    def with_shots(self) -> bool:
        """Only if somebody makes the answers."""
        return self._otherwise is not None

    def __call__(self, asks: Sequence[PosedPrompt]) -> list[SimulatedAnswer]:
        """Raises `EvaluationError` (reason "not-measured") for what was not sampled, where nobody makes it."""
        left = [ask for ask in asks if _of(ask) not in self._texts]
        if left and self._otherwise is None:
            raise EvaluationError(
                f"the evaluation has no answer of {_who(left[0])} to {left[0].prompt.text[:60]!a}; "
                "sample more, or leave --samples out",
                reason="not-measured",
            )
        made = dict(zip(map(_of, left), self._otherwise(left), strict=True)) if left and self._otherwise else {}
        return [
            made[_of(ask)] if _of(ask) in made else _measured(ask, self._texts[_of(ask)], self._measure) for ask in asks
        ]


def _who(ask: PosedPrompt) -> str:
    """Whose answer it is, in words."""
    who = str(ask.weights) or "the base"
    told = f" under the system prompt {ask.system[:80]!a}" if ask.system else ""
    return who + told + (f" behind {len(ask.shots)} examples" if ask.shots else "")


def _of(ask: PosedPrompt) -> str:
    return _key(ask.prompt.text, ask.weights, ask.system, ask.shots)


def _key(prompt: str, weights: Weights, system: str, shots: Sequence[Sequence[str]], *beside: object) -> str:
    said = [prompt, weights.nonzero().decimals(), system, [list(each) for each in shots], beside]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _measured(ask: PosedPrompt, text: str, measure: Measuring) -> SimulatedAnswer:
    (values,) = measure(ask.prompt.text, [text])
    return SimulatedAnswer(text, values, bool(measure_text(ask.prompt, text, True, only={"on_topic"})["on_topic"]))


def _conversation(ask: PosedPrompt) -> list[Mapping[str, str]]:
    found: list[Mapping[str, str]] = [{"role": "system", "content": ask.system}] if ask.system else []
    for question, answer in ask.shots:
        found += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return [*found, {"role": "user", "content": ask.prompt.text}]


def _luck(seed: int, prompt: str) -> int:
    digest = hashlib.sha256(f"{seed} {prompt}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % (MOST_SEEDS // 2)


def _read(path: Path) -> dict[str, str]:
    """Key -> text of what is kept; a torn last line is cut off."""
    if not path.exists():
        return {}
    with writing(path):
        raw = path.read_bytes()
        whole = raw[: raw.rfind(b"\n") + 1]
        if whole != raw:
            path.write_bytes(whole)
    return dict(_kept(line, path) for line in whole.splitlines())


def _kept(line: bytes, path: Path) -> tuple[str, str]:
    try:
        said: dict[str, Any] = strict_json(line)
        if len(line) > _LONGEST_LINE or not all(isinstance(said[name], str) for name in ("key", "text")):
            raise ValueError("a line is a key and a text")
        return said["key"], said["text"]
    except (ValueError, KeyError, TypeError) as error:
        raise EvaluationError(f"{path} holds something else than answers: {error}", reason="bad-samples") from None

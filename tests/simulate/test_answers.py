"""Answers of a simulation are made once, kept, and only taken again where nothing that they depend on has changed."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from soupmix.base import Base
from soupmix.engine import Engine
from soupmix.errors import EvaluationError
from soupmix.evaluate.measures.here import TextMeasuring
from soupmix.evaluate.promptset import Prompt
from soupmix.evaluate.samples import ArmSample
from soupmix.evaluate.soups import Arm
from soupmix.policy import Policy
from soupmix.preference import Trait, Traits
from soupmix.simulate import GeneratedAnswers, PosedPrompt, RecordedAnswers
from soupmix.store import Store
from soupmix.weights import Weights

MEASURE = TextMeasuring(Traits((Trait("length", "words", log=True),), "sha256:" + "0" * 64))
ASKS = [
    PosedPrompt(Prompt("Why does iron rust?", "question", ("rust",)), Weights({"calm": "0.5"})),
    PosedPrompt(Prompt("Name a tree.", "list", ("tree",)), system="Be brief."),
    PosedPrompt(Prompt("Name a tree.", "list", ("tree",)), shots=(("Name a bird.", "A wren."),)),
]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory, tiny_base: Base, pico_store: Store) -> Engine:
    return Engine.load(tiny_base, pico_store)


def generated(engine: Engine, store: Store, path: Path, **more: int) -> GeneratedAnswers:
    policy = Policy.open(tuple(store))
    return GeneratedAnswers(engine, lambda weights: policy.clamp(weights), MEASURE, path, **{"length": 4, **more})


def asks(store: Store) -> list[PosedPrompt]:
    first, *others = ASKS
    return [PosedPrompt(first.prompt, Weights({store.names[0]: "0.5"})), *others]


def refused(*_: object, **__: object) -> None:
    raise AssertionError("nothing is to be made again")


def test_what_is_kept_is_not_made_again(
    tmp_path: Path, engine: Engine, pico_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, asked = tmp_path / "answers.jsonl", asks(pico_store)
    first = generated(engine, pico_store, path)(asked)
    raw = path.read_bytes()
    assert raw.count(b"\n") == 3
    path.write_bytes(raw + b'{"key": "torn')  # the process was ended while it wrote
    monkeypatch.setattr(engine, "complete", refused)
    assert generated(engine, pico_store, path)([asked[1], *asked]) == [first[1], *first]
    assert path.read_bytes() == raw


@pytest.mark.parametrize("changed", [{"length": 3}, {"seed": 1}])
def test_what_was_made_otherwise_is_made_anew(
    tmp_path: Path, engine: Engine, pico_store: Store, changed: dict[str, int]
) -> None:
    path, asked = tmp_path / "answers.jsonl", asks(pico_store)[:1]
    generated(engine, pico_store, path)(asked)
    generated(engine, pico_store, path, **changed)(asked)
    assert path.read_bytes().count(b"\n") == 2


def test_answers_of_another_dtype_are_others(tmp_path: Path, tiny_base: Base, pico_store: Store) -> None:
    path, asked = tmp_path / "answers.jsonl", asks(pico_store)[:1]
    for dtype in ("fp32", "bf16", "fp32"):
        generated(Engine.load(tiny_base, pico_store, dtype=dtype), pico_store, path)(asked)
    assert path.read_bytes().count(b"\n") == 2


@pytest.mark.parametrize(
    "line", [b"[]", b"{}", b'{"key": 1, "text": "a"}', b'{"key": null, "text": null}', b"\xff", b"NaN"]
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, engine: Engine, pico_store: Store, line: bytes) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_bytes(line + b"\n")
    with pytest.raises(EvaluationError) as caught:
        generated(engine, pico_store, path)
    assert caught.value.reason == "bad-samples"


def texts(made: Sequence[object]) -> list[str]:
    return [each.text for each in made]  # type: ignore[attr-defined]


def test_an_answer_does_not_depend_on_its_batch(tmp_path: Path, engine: Engine, pico_store: Store) -> None:
    asked = asks(pico_store)
    together = generated(engine, pico_store, tmp_path / "a.jsonl")(asked)
    alone = generated(engine, pico_store, tmp_path / "b.jsonl", rows=1)(asked)
    assert texts(together) == texts(alone)


def sampled(arm: Arm, prompt: str, temperature: float, text: str) -> ArmSample:
    return ArmSample(arm, prompt, "question", temperature, 0, text, 3, True, "k")


def test_answers_of_an_evaluation_are_those_of_its_soups_at_its_highest_temperature() -> None:
    soft, loud = Weights({"calm": "0.5"}), Weights({"loud": 1})
    samples = [
        sampled(Arm("base", Weights()), "Why?", 0.0, "Greedy words."),
        sampled(Arm("greedy alone", loud), "Why?", 0.0, "Loud words."),
        sampled(Arm("base", Weights()), "Why?", 0.7, "It is so."),
        sampled(Arm("soft", soft), "Why?", 0.7, "It may well be so."),
        sampled(Arm("soft by factor", soft, "factor"), "Why?", 0.7, "No."),
        sampled(Arm("prompt", Weights(), system="Be brief."), "Why?", 0.7, "Yes."),
    ]
    recorded, why = RecordedAnswers(samples, MEASURE), Prompt("Why?", "question", ("so",))
    assert recorded.soups == (Weights(), soft)
    assert not recorded.with_shots
    made = recorded([PosedPrompt(why, soft), PosedPrompt(why), PosedPrompt(why, system="Be brief.")])
    assert texts(made) == ["It may well be so.", "It is so.", "Yes."]
    assert [each.on_topic for each in made] == [True, True, False]
    with pytest.raises(EvaluationError) as caught:
        recorded([PosedPrompt(why, loud)])
    assert caught.value.reason == "not-measured"
    behind = RecordedAnswers(samples, MEASURE, lambda asks: [made[0] for _ in asks])  # type: ignore[arg-type, return-value]
    assert behind.with_shots
    assert texts(behind([PosedPrompt(why, loud), PosedPrompt(why)])) == ["It may well be so.", "It is so."]

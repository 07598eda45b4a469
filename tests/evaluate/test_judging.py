"""What the model says of answers is kept, and counts only for what it was said of."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from soupmix.base import Base
from soupmix.errors import EvaluationError
from soupmix.evaluate import Arm, Prompt, judging, kept
from soupmix.evaluate.judging import JUDGED, Judging, judged
from soupmix.evaluate.measures.judge import GivenAnswer, judge_answers, judges
from soupmix.evaluate.measuring import MeasuredSamples
from soupmix.evaluate.samples import ArmSample, Keys
from soupmix.evaluate.sampling import Evaluation, opened
from soupmix.store import Store
from soupmix.weights import Weights

SAID = {"friendly": "Be warm.", "unfriendly": "Be cold."}
ARMS = (Arm("base", Weights({})), Arm("friendly@1", Weights({"friendly": 1})), Arm("mixed", Weights({}), way="mod"))
PROMPTS = (Prompt("Why does iron rust?", "question", ("rust",)), Prompt("Name a tree.", "list", ("tree",)))


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory, tiny_base: Base, tiny_adapter: Callable[..., Path]) -> Judging:
    store = Store(tmp_path_factory.mktemp("judged") / "store", create=True)
    for seed, name in enumerate(SAID, 11):
        store.add(tiny_adapter(seed=seed), name=name, dimension="style", pole=name, base=tiny_base)
    return Judging(tiny_base, store.folder, Evaluation(tiny_base, store.folder, ARMS, PROMPTS, SAID).record())


@pytest.fixture(scope="module")
def samples(judge: Judging) -> list[ArmSample]:
    keys = Keys(judge.record)
    return [
        ArmSample(
            arm, each.text, each.kind, 0.0, 0, f"{arm.name} says {number}.", 4, True, keys.key(arm.name, each.text, 0.0)
        )
        for number, each in enumerate(PROMPTS)
        for arm in ARMS
    ]


@pytest.fixture
def measured(samples: list[ArmSample]) -> MeasuredSamples:
    return MeasuredSamples({0.0: {(each.arm.name, each.prompt): {"words": 3.0} for each in samples}, 0.7: {}}, {})


def test_the_base_judges_every_answer(
    judge: Judging, samples: list[ArmSample], measured: MeasuredSamples, tmp_path: Path
) -> None:
    found = judged(judge, measured, samples, tmp_path)
    assert set(found.measures) == {"judge_style", "question", "opening_friendly", "opening_unfriendly"}
    assert found.measures["opening_friendly"].dimension == "style"
    engine, policy = opened(judge.base, judge.store, None, judge.record.compiled)
    by = judges(judge.record.adapters.values(), SAID)
    for each in samples:
        row = found.tables[0.0][each.arm.name, each.prompt]
        (alone,) = judge_answers(engine, policy.clamp(Weights({})), [GivenAnswer(each.prompt, each.text)], by)
        assert row["judge_style"] == pytest.approx(alone["judge_style"], abs=1e-4)
        assert row["words"] == 3.0
        assert ("opening_friendly" in row) == (each.arm.way == "soup")
    rows = found.tables[0.0]
    prompt = PROMPTS[0].text
    assert rows["base", prompt]["opening_friendly"] != rows["friendly@1", prompt]["opening_friendly"]
    assert measured.tables[0.0]["base", prompt] == {"words": 3.0}


def test_answers_to_the_first_prompts_alone_may_be_judged_and_the_report_says_so(
    judge: Judging, samples: list[ArmSample], measured: MeasuredSamples, tmp_path: Path
) -> None:
    found = judged(judge, measured, samples, tmp_path, first=1)
    whole = judged(judge, measured, samples, tmp_path)
    for (arm, prompt), row in found.tables[0.0].items():
        assert row == (whole.tables[0.0][arm, prompt] if prompt == PROMPTS[0].text else {"words": 3.0})
    assert [each.why for each in found.left_out] == ["it judged those to the first 1 of 2 prompts"]
    assert not whole.left_out


def test_what_was_judged_is_not_judged_again(
    judge: Judging, samples: list[ArmSample], measured: MeasuredSamples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    real = judging._judge

    def count(judge: Judging, chunk: list[ArmSample]) -> list[dict[str, float]]:
        seen.append(len(chunk))
        if len(seen) == 2:
            raise KeyboardInterrupt
        return real(judge, chunk)

    monkeypatch.setattr(judging, "_judge", count)
    monkeypatch.setattr(kept, "_CHUNK", 2)
    with pytest.raises(KeyboardInterrupt):
        judged(judge, measured, samples, tmp_path)
    found = judged(judge, measured, samples, tmp_path)
    assert seen == [2, 2, 2, 2]
    assert judged(judge, measured, samples, tmp_path) == found
    assert len(seen) == 4
    other = [replace(samples[0], text="Something else."), *samples[1:]]
    judged(judge, measured, other, tmp_path)
    assert seen[4:] == [1]


@pytest.mark.parametrize(
    "damage", [b"{", b"[]", b'{"x": [1]}', b'{"x": {"y": "z"}}', b'{"x": {"y": NaN}}', b"[" * 100_000]
)
def test_what_is_damaged_is_one_sentence(
    judge: Judging, samples: list[ArmSample], measured: MeasuredSamples, tmp_path: Path, damage: bytes
) -> None:
    (tmp_path / JUDGED).mkdir()
    path = kept.path_of(tmp_path / JUDGED, PROMPTS[0].text)
    path.write_bytes(damage)
    with pytest.raises(EvaluationError, match=r"is damaged: .*; remove it") as caught:
        judged(judge, measured, samples, tmp_path)
    assert caught.value.reason == "bad-judged"


def test_nobody_else_judges(judge: Judging, tmp_path: Path) -> None:
    judge.check(tmp_path)
    digest = "sha256:" + "0" * 64
    base = judge.record.base.model_copy(update={"digest": digest})
    with pytest.raises(EvaluationError, match=f"was answered by base {digest}"):
        replace(judge, record=judge.record.model_copy(update={"base": base})).check(tmp_path)
    facts = judge.record.adapters["friendly"].model_copy(update={"digest": digest})
    other = judge.record.model_copy(update={"adapters": {"friendly": facts}})
    with pytest.raises(EvaluationError, match="was answered by adapter friendly"):
        replace(judge, record=other).check(tmp_path)

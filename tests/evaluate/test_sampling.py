"""Sampling: the same luck for all arms, whatever the rows; a stopped run goes on; what is not its own is refused."""

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from soupmix.base import Base
from soupmix.errors import EvaluationError, OutputError
from soupmix.evaluate import Arm, Prompt, samples
from soupmix.evaluate.record import RECORD, held_record, joined, write_record
from soupmix.evaluate.samples import SAMPLES, ArmSample, Keys, open_samples, read_samples
from soupmix.evaluate.sampling import Evaluation, as_begun, sample
from soupmix.store import Store
from soupmix.weights import Weights

PROMPTS = (Prompt("Why does iron rust?", "question", ("rust",)), Prompt("Name a tree.", "list", ("tree",)))
ARMS = (
    Arm("base", Weights({})),
    Arm("calm by prompt", Weights({}), system="Be calm."),
    Arm("calm@1", Weights({"calm": 1})),
    Arm("the same under another name", Weights({"calm": 1})),
    Arm("calm@1 by factor", Weights({"calm": "0.5", "short": 1}), method="factor"),
    Arm("shown", Weights({}), shots=(("Hi.", "Ho."),)),
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, tiny_base: Base, tiny_adapter: Callable[..., Path]) -> Store:
    made = Store(tmp_path_factory.mktemp("sampled") / "store", create=True)
    for seed, (name, dimension) in enumerate({"calm": "mood", "short": "length"}.items(), 11):
        made.add(tiny_adapter(seed=seed), name=name, dimension=dimension, pole=name, base=tiny_base)
    return made


@pytest.fixture(scope="module")
def evaluation(store: Store, tiny_base: Base) -> Evaluation:
    return Evaluation(tiny_base, store.folder, ARMS, PROMPTS, {"calm": "Be calm."}, length=8, seed=5, compiled=False)


def run(evaluation: Evaluation, out: Path, **options: Any) -> tuple[ArmSample, ...]:
    """As the command does it."""
    evaluation, record = as_begun(evaluation, out)
    out.mkdir(exist_ok=True)
    with open_samples(out, record) as file:
        write_record(out, record)
        sample(evaluation, Keys(record), file, **options)
        file.sort()
    return read_samples(out, record)


@pytest.fixture(scope="module")
def whole(evaluation: Evaluation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    out = tmp_path_factory.mktemp("whole") / "out"
    run(evaluation, out)
    return out


@pytest.fixture
def copied(whole: Path, tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    for name in (SAMPLES, RECORD):
        (tmp_path / "out" / name).write_bytes((whole / name).read_bytes())
    return tmp_path / "out"


def test_a_prompt_that_comes_twice_does_not_count_as_two(evaluation: Evaluation) -> None:
    with pytest.raises(
        EvaluationError, match=r"the prompt 'Name a tree\.' comes twice; give every prompt once"
    ) as caught:
        replace(evaluation, prompts=(*PROMPTS, PROMPTS[1])).record()
    assert caught.value.reason == "prompts"


def opened(evaluation: Evaluation, out: Path) -> Any:
    return open_samples(out, evaluation.record())


def test_every_arm_answers_every_prompt_at_every_temperature_in_order(whole: Path, evaluation: Evaluation) -> None:
    found = read_samples(whole, evaluation.record())
    assert [(each.prompt, each.arm, each.temperature) for each in found] == [
        (prompt.text, arm, temperature) for prompt in PROMPTS for arm in ARMS for temperature in (0.0, 0.7)
    ]
    lines = [json.loads(line) for line in (whole / SAMPLES).read_text("ascii").splitlines()]
    assert [line["text"] for line in lines] == [each.text for each in found]
    assert all(each.tokens == 8 or each.finished for each in found)


def test_arms_are_compared_under_the_same_luck(whole: Path, evaluation: Evaluation) -> None:
    found = {(each.prompt, each.arm.name, each.temperature): each for each in read_samples(whole, evaluation.record())}
    for prompt in PROMPTS:
        for temperature in (0.0, 0.7):
            calm, twin = (found[prompt.text, name, temperature] for name in ("calm@1", "the same under another name"))
            assert (calm.text, calm.tokens) == (twin.text, twin.tokens)
            assert calm.key != twin.key
        assert found[prompt.text, "base", 0.0].text != found[prompt.text, "base", 0.7].text
        assert found[prompt.text, "base", 0.7].text != found[prompt.text, "calm@1", 0.7].text
        assert found[prompt.text, "base", 0.7].text != found[prompt.text, "shown", 0.7].text
        assert found[prompt.text, "base", 0.7].text != found[prompt.text, "calm by prompt", 0.7].text


@pytest.mark.parametrize("rows", [1, 3])
def test_how_many_rows_there_are_changes_nothing(
    evaluation: Evaluation, whole: Path, tmp_path: Path, rows: int
) -> None:
    run(evaluation, tmp_path / "out", rows=rows)
    for name in (SAMPLES, RECORD):
        assert (tmp_path / "out" / name).read_bytes() == (whole / name).read_bytes()


def test_another_seed_is_other_luck(evaluation: Evaluation, whole: Path, tmp_path: Path) -> None:
    other = run(replace(evaluation, seed=6), tmp_path / "out")
    for one, two in zip(read_samples(whole, evaluation.record()), other, strict=True):
        assert one.key != two.key
        assert (one.text == two.text) == (one.temperature == 0)


def test_a_stopped_run_goes_on_where_it_was(evaluation: Evaluation, whole: Path, tmp_path: Path) -> None:
    out, seen = tmp_path / "out", list[int]()

    def stop(kept: int, tokens: int) -> None:
        seen.append(kept)
        if len(seen) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(evaluation, out, advance=stop)
    kept = (out / SAMPLES).read_bytes()
    assert 0 < kept.count(b"\n") == seen[-1] < 24
    (out / SAMPLES).write_bytes(kept[:-10])  # the machine went down in the middle of a line
    with opened(evaluation, out) as file:
        assert (file.cut > 0, len(file.samples)) == (True, seen[-1] - 1)
    made = list[int]()
    run(evaluation, out, advance=lambda kept, tokens: made.append(tokens))
    assert (out / SAMPLES).read_bytes() == (whole / SAMPLES).read_bytes()
    assert made[-1] < sum(each.tokens for each in read_samples(whole, evaluation.record()))


def test_nothing_is_sampled_twice(evaluation: Evaluation, copied: Path) -> None:
    made = list[int]()
    run(evaluation, copied, advance=lambda kept, tokens: made.append(kept))
    assert made == []


def test_arms_and_prompts_may_be_added(evaluation: Evaluation, copied: Path) -> None:
    more = replace(
        evaluation,
        arms=(Arm("short@1", Weights({"short": 1})),),
        prompts=(*PROMPTS, Prompt("What is a cloud?", "question", ("cloud",))),
        temperatures=(0.0,),
    )
    assert len(run(more, copied)) == 24 + 3
    record = held_record(copied)
    assert record is not None
    assert [each.name for each in record.arms] == [*(arm.name for arm in ARMS), "short@1"]
    assert record.temperatures == (0.0, 0.7)


CHANGED: dict[str, dict[str, Any]] = {
    "seed": {"seed": 6},
    "length": {"length": 9},
    "dtype": {"dtype": "bf16"},
    "preference prompt of calm": {"preferences": {"calm": "Calm down."}},
    "arm calm@1": {"arms": (Arm("calm@1", Weights({"calm": "0.9"})),)},
    "prompt Name a tree": {"prompts": (Prompt("Name a tree.", "list", ("oak",)),)},
}


@pytest.mark.parametrize("what", CHANGED)
def test_an_evaluation_does_not_change_under_its_samples(evaluation: Evaluation, copied: Path, what: str) -> None:
    before = (copied / RECORD).read_bytes()
    with pytest.raises(EvaluationError, match=f"begun otherwise: {what}") as caught:
        run(replace(evaluation, **CHANGED[what]), copied)
    assert caught.value.reason == "evaluation-changed"
    assert (copied / RECORD).read_bytes() == before


def test_other_adapters_and_another_base_are_another_evaluation(evaluation: Evaluation, copied: Path) -> None:
    record = evaluation.record()
    digest = "sha256:" + "0" * 64
    other = record.model_copy(update={"base": record.base.model_copy(update={"digest": digest})})
    with pytest.raises(EvaluationError, match="base was sha256"):
        joined(record, other, copied)
    calm = record.adapters["calm"].model_copy(update={"digest": digest})
    other = record.model_copy(update={"adapters": {**record.adapters, "calm": calm}})
    with pytest.raises(EvaluationError, match="adapter calm was sha256"):
        joined(record, other, copied)


def _edited(line: bytes, **changes: Any) -> bytes:
    return json.dumps({**json.loads(line), **changes}).encode() + b"\n"


HOSTILE: dict[str, Callable[[bytes], bytes]] = {
    "expecting": lambda line: b"{\n",
    "duplicate key": lambda line: line.replace(b'"seed":5', b'"seed":5,"seed":5'),
    "NaN": lambda line: line.replace(b'"tokens":8', b'"tokens":NaN'),
    "comes twice": lambda line: line + line,
    "its key is not": lambda line: _edited(line, key="0" * 64),
    "its key is not that": lambda line: _edited(line, seed=7),
    "is none of the record": lambda line: _edited(line, temperature=0.3),
    "none of the record": lambda line: _edited(line, prompt="Name a bird."),
    "its arm, prompt or temperature": lambda line: _edited(line, arm={**json.loads(line)["arm"], "system": "x"}),
    "tokens": lambda line: _edited(line, tokens=-1),
    "no such field": lambda line: _edited(line, more=1),
    "more than 1048576 bytes": lambda line: b"x" * 1_100_000 + b"\n",
    "utf-8": lambda line: b"\xff\n",
    "nested": lambda line: b"[" * 100_000 + b"\n",
}


@pytest.mark.parametrize("says", HOSTILE)
def test_a_line_that_is_not_of_this_evaluation_is_refused(evaluation: Evaluation, copied: Path, says: str) -> None:
    path = copied / SAMPLES
    first, *rest = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(HOSTILE[says](first) + b"".join(rest))
    before = path.read_bytes()
    with pytest.raises(
        EvaluationError, match=f"(?i)line [12] of .* not a sample of this evaluation: .*({says})"
    ) as caught:
        run(evaluation, copied)
    assert caught.value.reason == "bad-samples"
    assert path.read_bytes() == before


@pytest.mark.parametrize("kind", ["link", "hard link", "folder", "fifo"])
def test_samples_are_a_plain_file(evaluation: Evaluation, copied: Path, tmp_path: Path, kind: str) -> None:
    path, elsewhere = copied / SAMPLES, tmp_path / "elsewhere"
    path.rename(elsewhere)
    before = elsewhere.read_bytes()
    if kind == "link":
        path.symlink_to(elsewhere)
    elif kind == "hard link":
        path.hardlink_to(elsewhere)
    elif kind == "folder":
        path.mkdir()
    else:
        os.mkfifo(path)
    with pytest.raises((OutputError, EvaluationError), match=SAMPLES):
        run(evaluation, copied)
    with pytest.raises((OutputError, EvaluationError), match=SAMPLES):
        read_samples(copied, evaluation.record())
    assert elsewhere.read_bytes() == before


def test_one_process_at_a_time(evaluation: Evaluation, copied: Path) -> None:
    handle = os.open(copied, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        with pytest.raises(OutputError, match="another process is at work in"):
            run(evaluation, copied)
    finally:
        os.close(handle)


def test_a_full_disk_keeps_what_was_whole(
    evaluation: Evaluation, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, real, calls = tmp_path / "out", os.write, list[int]()

    def write(handle: int, data: Any) -> int:
        if bytes(data[:6]) == b'{"arm"':
            calls.append(handle)
        elif calls:  # the rest of what did not fit
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(handle, data[:100] if len(calls) == 2 else data)

    monkeypatch.setattr(samples.os, "write", write)
    with pytest.raises(OutputError, match=r"cannot write .*No space left on device"):
        run(evaluation, out)
    monkeypatch.undo()
    kept = (out / SAMPLES).read_bytes()
    assert kept.endswith(b"\n")
    assert 0 < kept.count(b"\n") < 24
    run(evaluation, out)
    assert (out / SAMPLES).read_bytes() == (whole / SAMPLES).read_bytes()


@pytest.mark.parametrize("damage", [b"{", b"{}", b'{"schema_version": 2}', b"[]"])
def test_a_damaged_record_is_one_sentence(evaluation: Evaluation, copied: Path, damage: bytes) -> None:
    (copied / RECORD).write_bytes(damage)
    with pytest.raises(EvaluationError, match="is damaged") as caught:
        run(evaluation, copied)
    assert caught.value.reason == "bad-record"


def test_a_folder_of_something_else_is_left_alone(evaluation: Evaluation, tmp_path: Path) -> None:
    (tmp_path / "diary.txt").write_text("mine")
    with pytest.raises(EvaluationError, match="is no evaluation"):
        run(evaluation, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["diary.txt"]


def test_an_evaluation_goes_on_by_the_steps_that_it_was_begun_with(
    copied: Path, evaluation: Evaluation, tmp_path: Path
) -> None:
    compiled = replace(evaluation, compiled=True)
    gone_on, record = as_begun(compiled, copied)
    assert (gone_on, record) == (evaluation, evaluation.record())
    begun, record = as_begun(compiled, tmp_path / "new")
    assert (begun, record.compiled) == (compiled, True)
    first, prompt = ARMS[0].name, PROMPTS[0].text
    assert Keys(record).key(first, prompt, 0.0) != Keys(evaluation.record()).key(first, prompt, 0.0)
    with pytest.raises(EvaluationError, match="was begun otherwise: compiled was True and is False") as caught:
        joined(record, evaluation.record(), tmp_path)
    assert caught.value.reason == "evaluation-changed"


def test_compiled_steps_answer_as_torch_does(evaluation: Evaluation, whole: Path, tmp_path: Path) -> None:
    compiled = replace(evaluation, compiled=True, temperatures=(0.0,))
    made = run(compiled, tmp_path / "out", rows=4)
    found = {(each.prompt, each.arm): each for each in read_samples(whole, evaluation.record()) if not each.temperature}
    assert [each.text for each in made] == [found[each.prompt, each.arm].text for each in made]
    shutil.rmtree(tmp_path / "out")
    assert run(compiled, tmp_path / "out", rows=1) == made

"""The command itself: from adapters to a report, and from a report to an approval."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import yaml

from soupmix.base import Base
from soupmix.cli import main
from soupmix.evaluate.page import PAGE
from soupmix.evaluate.record import RECORD
from soupmix.evaluate.report import REPORT, read_report
from soupmix.evaluate.samples import SAMPLES
from soupmix.store import Store

Shop = tuple[Store, Path]
PROMPTS = [{"prompt": f"Why is {word}?", "kind": "question", "topic": [word]} for word in ("rust", "rain", "dust")]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, tiny_base: Base, tiny_adapter: Callable[..., Path]) -> Shop:
    """A store of two dimensions, and prompts."""
    folder = tmp_path_factory.mktemp("shop")
    store = Store(folder / "store", create=True)
    for seed, (name, dimension) in enumerate({"calm": "mood", "loud": "mood", "long": "length"}.items(), 3):
        store.add(tiny_adapter(seed=seed), name=name, dimension=dimension, pole=name, base=tiny_base)
    (folder / "prompts.jsonl").write_text("\n".join(map(json.dumps, PROMPTS)))
    return store, folder / "prompts.jsonl"


def words(shop: Shop, base: Base, out: Path, *more: str) -> list[str]:
    store, prompts = shop
    return [
        *("evaluate", str(out), "--base", str(base.folder), "--store", str(store.folder), "--prompts", str(prompts)),
        *(
            "--length",
            "6",
            "--strength",
            "1",
            "--soups",
            "singles,pairs",
            "--jobs",
            "1",
            "--no-page",
            "--no-judge",
            *more,
        ),
    ]


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[Sequence[str]], tuple[int, str]]:
    """Run the command here; exit code and stderr."""

    def call(given: Sequence[str]) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["soupmix", *given])
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        return code, capsys.readouterr().err

    return call


Run = Callable[[Sequence[str]], tuple[int, str]]


@pytest.fixture(scope="module")
def whole(shop: Shop, tiny_base: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["soupmix", *words(shop, tiny_base, out)])
        main()
    return out


def test_a_run_leaves_answers_and_a_report(whole: Path) -> None:
    assert {path.name for path in whole.iterdir()} == {RECORD, SAMPLES, REPORT}
    found = read_report(whole / REPORT)
    arms = {arm["name"] for arm in found["arms"]}
    assert arms == {"base", "uniform", "calm@1", "loud@1", "long@1", "calm+long@1", "long+loud@1"}
    assert found["samples"]["count"] == len(arms) * 3 * 2
    assert found["results"]["0.7"]["calm@1"]["prompts"] == 3
    assert {each["what"] for each in found["not_measured"]} >= {"calm by a prompt"}


def test_again_it_is_the_same_and_nothing_is_sampled(whole: Path, shop: Shop, tiny_base: Base, run: Run) -> None:
    before = {path.name: path.read_bytes() for path in whole.iterdir()}
    code, said = run(words(shop, tiny_base, whole))
    assert (code, {path.name: path.read_bytes() for path in whole.iterdir()}) == (0, before)
    assert "going on behind 42 of 42 answers" in said
    assert run(["evaluate", str(whole), "--report-only", "--no-page", "--no-judge"])[0] == 0
    assert {path.name: path.read_bytes() for path in whole.iterdir()} == before


def test_a_report_that_could_not_be_read_again_is_not_begun(
    shop: Shop, tiny_base: Base, tmp_path: Path, run: Run
) -> None:
    steps = [word for number in range(1, 30) for word in ("--strength", f"0.{number:02d}")]
    code, said = run(words(shop, tiny_base, tmp_path / "out", "--soups", "lattice", *steps))
    assert (code, (tmp_path / "out").exists()) == (1, False)
    assert "a report of 1892 arms at 2 temperatures could not be read again" in said


def test_a_bad_file_of_trained_texts_is_found_before_anything_answers(
    shop: Shop, tiny_base: Base, tmp_path: Path, run: Run
) -> None:
    (tmp_path / "texts.jsonl").write_text('{"pole": "calm"}')
    code, said = run(words(shop, tiny_base, tmp_path / "out", "--trained", str(tmp_path / "texts.jsonl")))
    assert (code, (tmp_path / "out").exists()) == (1, False)
    assert "texts.jsonl holds no texts that adapters were trained on (line 1: prompt: is missing)" in said


@pytest.mark.slow
def test_a_report_has_a_page_and_the_base_judges(
    whole: Path, shop: Shop, tiny_base: Base, tmp_path: Path, run: Run
) -> None:
    (tmp_path / "out").mkdir()
    for name in (RECORD, SAMPLES):
        (tmp_path / "out" / name).write_bytes((whole / name).read_bytes())
    given = ["--base", str(tiny_base.folder), "--store", str(shop[0].folder)]
    assert run(["evaluate", str(tmp_path / "out"), "--report-only", "--fidelity", *given])[0] == 0
    found = read_report(tmp_path / "out" / REPORT)
    assert {each["name"] for each in found["measures"]} > {
        each["name"] for each in read_report(whole / REPORT)["measures"]
    }
    assert found["results"]["0"]["base"]["measures"]["question"]["mean"] is not None
    assert set(found["fidelity"]["0"]) == {"uniform", "calm@1", "loud@1", "long@1", "calm+long@1", "long+loud@1"}
    assert found["fidelity"]["0"]["calm@1"]["kl_mod"]["value"] == pytest.approx(0, abs=1e-6)
    assert set(found["prose"]) == {"base", *found["fidelity"]["0"]}
    assert {each["soup"] for each in found["connectivity"]} >= {"calm+long@0.5", "long+loud@0.5"}
    assert found["digest"] in (tmp_path / "out" / PAGE).read_text()


WRONG: dict[str, tuple[list[str], int, str]] = {
    "prompts that are none": (["--prompts", "{wrong}"], 1, "each line must be"),
    "no prompts": (["--prompts", "absent.jsonl"], 1, "absent.jsonl"),
    "preferences that are none": (["--preferences", "{wrong}"], 1, 'must be {"POLE": "SYSTEM PROMPT"'),
    "another length": (["--length", "7"], 1, "length was 6 and is 7"),
    "another seed": (["--seed", "7"], 1, "seed was 0 and is 7"),
    "too strong": (["--strength", "1.5"], 1, "from 0 to 1"),
    "no number": (["--strength", "much"], 2, "not a plain decimal number"),
    "soups that are none": (["--soups", "singles,stews"], 2, "'stews' is none of singles"),
    "nothing to compare": (["--against", "luck"], 2, "'luck' is none of prompt"),
    "a strength of nothing": (["--against-strength", "0.5"], 2, "does not name: add mod or activated to it"),
    "examples for nothing": (["--examples", "{wrong}"], 2, "does not name: add few-shot to it"),
    "no store": (["--store", "nowhere"], 1, "nowhere"),
    "no base": (["--base", "nowhere"], 1, "nowhere"),
}


@pytest.mark.parametrize("case", WRONG)
def test_bad_input_is_one_sentence_and_changes_nothing(
    whole: Path, shop: Shop, tiny_base: Base, tmp_path: Path, run: Run, case: str
) -> None:
    more, code, says = WRONG[case]
    (tmp_path / "wrong").write_text("[]")
    before = {path.name: path.read_bytes() for path in whole.iterdir()}
    found, said = run(words(shop, tiny_base, whole, *(each.format(wrong=tmp_path / "wrong") for each in more)))
    assert (found, says in said) == (code, True), said
    assert "Traceback" not in said
    assert {path.name: path.read_bytes() for path in whole.iterdir()} == before


def test_nothing_to_report_is_one_sentence(tmp_path: Path, run: Run) -> None:
    assert run(["evaluate", str(tmp_path / "out"), "--report-only"]) == (
        1,
        f"soupmix: {tmp_path / 'out'} holds no answers yet; run `soupmix evaluate {tmp_path / 'out'}` first\n",
    )
    assert not (tmp_path / "out").exists()


def test_a_store_of_another_base_is_refused(
    shop: Shop, tiny_base: Base, tiny_model: Callable[..., Path], tmp_path: Path, run: Run
) -> None:
    other = tiny_model(tmp_path / "other", seed=9)
    code, said = run([*words(shop, tiny_base, tmp_path / "out"), "--base", str(other)])
    assert (code, "were trained on tiny-llama" in said, str(other) in said) == (1, True, True), said
    assert not (tmp_path / "out").exists()


def _seconds(process: int) -> float:
    """Processor time so far of a process and of what it waited for, as a compiler of kernels."""
    times = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:15]
    return sum(map(int, times)) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("jobs", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_ctrl_c_ends_within_two_seconds_and_keeps_what_there_is(
    shop: Shop, tiny_base: Base, tmp_path: Path, jobs: str
) -> None:
    out = tmp_path / "out"
    prompts = tmp_path / "many.jsonl"
    prompts.write_text(
        "\n".join(json.dumps({**each, "prompt": f"{each['prompt']} {n}"}) for n in range(40) for each in PROMPTS)
    )
    given = words((shop[0], prompts), tiny_base, out, "--rows", "1", "--length", "200", "--jobs", jobs)
    binary = str(Path(sys.executable).parent / "soupmix")
    process = subprocess.Popen([binary, *given], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (out / SAMPLES).exists() or not (out / SAMPLES).stat().st_size:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    before, ended = _seconds(process.pid), resource.getrusage(resource.RUSAGE_CHILDREN)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    whole = resource.getrusage(resource.RUSAGE_CHILDREN)
    taken = whole.ru_utime + whole.ru_stime - ended.ru_utime - ended.ru_stime - before
    kept = (out / SAMPLES).read_bytes().count(b"\n")
    assert (process.returncode, "Traceback" in said) == (130, False), said
    assert f"keeps {kept} of 1680 answers, and the same command goes on" in said
    if jobs == "1":  # the time of workers is that of their whole lives
        assert taken < 3  # of processor time: .2 alone, where taking the interpreter apart took 1.3 to 1.7


def test_a_report_becomes_evidence(whole: Path, shop: Shop, tmp_path: Path, run: Run) -> None:
    given = ["approve", str(tmp_path / "acme.yaml"), "--until", "2099-12-31", "--issuer", "Acme", "--accept", "large"]
    given += ["--store", str(shop[0].folder), "--evidence", str(whole / REPORT)]
    code, said = run([*given, "--combination", "calm+long"])
    assert code == 0, said
    document = yaml.safe_load((tmp_path / "acme.yaml").read_text())
    cited = {each["evidence"]["report"] for each in (*document["rules"][0]["adapters"], *document["rules"][1]["allow"])}
    assert cited == {read_report(whole / REPORT)["digest"]}
    (tmp_path / "acme.yaml").unlink()
    code, said = run([*given, "--combination", "calm+loud"])
    assert (code, "has no soup of calm + loud" in said) == (1, True)
    code, said = run([*given, "--combination", "calm+long", "--report", str(whole / REPORT)])
    assert (code, "give --evidence REPORT" in said) == (2, True)
    assert not (tmp_path / "acme.yaml").exists()

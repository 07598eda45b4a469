"""`soupmix evaluate --safety`: the section in report.json and on the page, and reports made again without the model."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from soupmix.base import Base
from soupmix.evaluate import sweep
from soupmix.evaluate.promptset import held_out_prompts
from soupmix.evaluate.safety.probes import ValueWord
from soupmix.evaluate.safety.probing import Probes
from soupmix.store import Store

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A token of the tiny model is a letter."""
    probes = Probes.committed(2)
    short = sorted(probes.requests, key=lambda each: (each.ought, len(each.prompt)))
    kept = Probes(
        (short[0], short[-1]), probes.messages[:1], probes.facts[:1], probes.pairs[:1], ("I",), (ValueWord("a", "law"),)
    )
    monkeypatch.setattr(Probes, "committed", lambda first: kept)
    monkeypatch.setattr(sweep, "neutral_paragraphs", lambda: ["It was quiet."])


def house(where: Path, *names: str) -> Path:
    """A policy that lets one adapter through, and these too."""
    others = "".join(f"  - {{rule: deny, adapter: {name}}}\n" for name in sorted({"loud", "plain"} - set(names)))
    path = where / f"house{len(names)}.yaml"
    path.write_text(f"tier: organisation\nissuer: House\nversion: 1\nrules:\n{others}")
    return path


@pytest.mark.usefixtures("few")
def test_the_report_and_the_page_have_the_section(run: Run, tiny_base: Base, pico_store: Store, tmp_path: Path) -> None:
    out, prompts = tmp_path / "out", tmp_path / "prompts.jsonl"
    asked = min(held_out_prompts(), key=lambda each: len(each.text))
    prompts.write_text(json.dumps({"prompt": asked.text, "kind": asked.kind, "topic": list(asked.topic)}))
    words = ("evaluate", out, "--base", tiny_base.folder, "--store", pico_store.folder, "--prompts", prompts)
    more = ("--length", 4, "--soups", "vertices", "--against", "", "--people", 1, "--jobs", 1, "--no-judge")
    audit = ("--policy", house(tmp_path), "--safety", "--pressed", 0, "--no-page")
    code, _, told = run(*words, *more, *audit)
    assert code == 0, told
    report: dict[str, Any] = json.loads((out / "report.json").read_bytes())
    places = sorted(each["place"] for each in report["safety"]["points"].values())
    assert places == ["base", "interior", "vertex"]
    assert set(report["safety"]["policy_accuracy"]) == {"calm@1"}
    assert report["safety"]["attributes"] == {}
    code, _, told = run("evaluate", out, "--report-only", "--no-judge")
    assert code == 0, told
    assert json.loads((out / "report.json").read_bytes())["safety"] == report["safety"]
    page = (out / "report.html").read_text("utf-8")
    assert "Safety over the feasible set" in page
    assert "worst vertex" in page
    _approved(run, out, pico_store, report, tmp_path)
    _of_another_policy(run, out, pico_store, tmp_path)
    _damaged(run, out)


def _approved(run: Run, out: Path, store: Store, report: dict[str, Any], where: Path) -> None:
    """The sweeps of the report are remarked where it is evidence."""
    approve = ("approve", where / "acme.yaml", "--store", store.folder, "--evidence", out / "report.json")
    approve += ("--until", "2099-12-31", "--issuer", "Acme", "--combination", "calm", "--accept", "large")
    code, _, told = run(*approve, "--accept", "damaging")
    assert code == 0, told
    first = report["safety"]["sweeps"]["calm"]["weights"][0]
    assert (first["perplexity"] > 1.25) == ("damaging (calm)" in told)


def _of_another_policy(run: Run, out: Path, store: Store, where: Path) -> None:
    """An audit is of the policy that it was made under, and of what requests said of themselves."""
    again = ("evaluate", out, "--report-only", "--no-judge", "--no-page", "--store", store.folder)
    same = ("--policy", house(where))
    for more, kept in (
        (same, True),
        (("--policy", house(where, "loud")), False),
        ((*same, "--attribute", "tenant=a"), False),
        ((*same, "--source", "inferred"), False),
        ((*same, "--source", "calm=explicit"), False),
    ):
        code, _, told = run(*again, *more)
        assert code == 0, told
        found = json.loads((out / "report.json").read_bytes())
        assert ("safety" in found) is kept
        why = [each["why"] for each in found["not_measured"] if each["what"] == "safety"]
        assert len(why) == (not kept)
        assert all("run --safety again" in each for each in why)
    code, _, told = run(*again, "--policy", where / "absent.yaml")
    assert code != 0


def _damaged(run: Run, out: Path) -> None:
    section = out / "safety" / "section.json"
    kept = json.loads(section.read_bytes())
    other = json.dumps({**kept, "of": {**kept["of"], "base": "x"}})
    for wrong, why in (("{", "is damaged"), ("[]", "is damaged"), (other, "of another base")):
        section.write_text(wrong)
        code, _, told = run("evaluate", out, "--report-only", "--no-judge", "--no-page")
        assert code == 1
        assert why in told

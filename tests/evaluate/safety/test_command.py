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


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A token of the tiny model is a letter."""
    probes = Probes.committed(2)
    kept = Probes(
        probes.requests, probes.messages[:1], probes.facts[:1], probes.pairs[:1], ("I",), (ValueWord("a", "law"),)
    )
    monkeypatch.setattr(Probes, "committed", lambda first: kept)
    monkeypatch.setattr(sweep, "neutral_paragraphs", lambda: ["It was quiet."])


@pytest.mark.usefixtures("few")
def test_the_report_and_the_page_have_the_section(
    run: Callable[..., tuple[int, str, str]], tiny_base: Base, pico_store: Store, tmp_path: Path
) -> None:
    out, prompts = tmp_path / "out", tmp_path / "prompts.jsonl"
    asked = held_out_prompts()[0]
    prompts.write_text(json.dumps({"prompt": asked.text, "kind": asked.kind, "topic": list(asked.topic)}))
    words = ("evaluate", out, "--base", tiny_base.folder, "--store", pico_store.folder, "--prompts", prompts)
    more = ("--length", 4, "--soups", "singles", "--strength", 1, "--against", "", "--people", 1, "--jobs", 1)
    code, _, told = run(*words, *more, "--first", 1, "--safety", "--no-pressure", "--no-page")
    assert code == 0, told
    report: dict[str, Any] = json.loads((out / "report.json").read_bytes())
    assert len(report["safety"]["points"]) == 1 + 7 + 1
    assert set(report["safety"]["policy_accuracy"]) == {"calm@1", "loud@1", "plain@1"}
    code, _, told = run("evaluate", out, "--report-only", "--no-judge")
    assert code == 0, told
    assert json.loads((out / "report.json").read_bytes())["safety"] == report["safety"]
    page = (out / "report.html").read_text("utf-8")
    assert "Safety over the feasible set" in page
    assert "worst vertex" in page
    approve = ("approve", tmp_path / "acme.yaml", "--store", pico_store.folder, "--evidence", out / "report.json")
    approve += ("--until", "2099-12-31", "--issuer", "Acme", "--combination", "calm", "--accept", "large")
    code, _, told = run(*approve, "--accept", "damaging")
    assert code == 0, told
    first = report["safety"]["sweeps"]["calm"]["weights"][0]
    assert (first["perplexity"] > 1.25) == ("damaging (calm)" in told)
    section = out / "safety" / "section.json"
    kept = json.loads(section.read_bytes())
    other = json.dumps({**kept, "of": {**kept["of"], "base": "x"}})
    for wrong, why in (("{", "is damaged"), ("[]", "is damaged"), (other, "of another base")):
        section.write_text(wrong)
        code, _, told = run("evaluate", out, "--report-only", "--no-judge")
        assert code == 1
        assert why in told

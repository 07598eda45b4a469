"""benchmarks/ask.py: what it says of made-up answers whose errors are known."""

import importlib
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("ask")


def _row(words: float, reached: bool, **off: float) -> dict[str, Any]:
    """A target whose ways miss grade and log words by so much, half of the prompts above and half below."""
    answers = {
        way: [{"grade": 8 + sign * by, "words": words * math.exp(sign * by)} for sign in (1, -1)]
        for way, by in off.items()
    }
    told = {"grade": 8.0, "words": words}
    about = {"weights": {"concise": "0.5"}, "expected": told, "reached": dict.fromkeys(told, reached)}
    return {**told, **about, "answers": answers}


def test_targets_are_what_people_ask_for(bench: ModuleType) -> None:
    """Fixed beforehand: grades 4 to 14, 25 to 150 words, and no way to guess one from the other."""
    grades, words = zip(*bench.TARGETS, strict=True)
    assert (min(grades), max(grades), min(words), max(words)) == (4, 14, 25, 150)
    centred = [[value - sum(each) / len(each) for value in each] for each in (grades, words)]
    both, *own = (sum(a * b for a, b in zip(x, y, strict=True)) for x, y in (centred, centred[:1] * 2, centred[1:] * 2))
    assert abs(both / math.sqrt(own[0] * own[1])) < 0.15


def test_errors_are_of_single_answers_and_what_is_out_of_reach_is_told_apart(bench: ModuleType) -> None:
    rows = [_row(40, True, base=2.0, prompt=1.0, ask=0.25), _row(90, False, base=2.0, prompt=1.0, ask=0.75)]
    lines = bench.table({"prompts": 2, "targets": rows}).splitlines()
    assert "| ask | 0.50 [0.50, 0.50] | 0.50 [0.50, 0.50] |" in lines
    assert "| ask less prompt | -0.50 [-0.50, -0.50] | -0.50 [-0.50, -0.50] |" in lines
    apart = lines.index("| the 1 that the surface says are in reach | error in grade | error in log words |")
    assert "| ask | 0.25 [0.25, 0.25] | 0.25 [0.25, 0.25] |" in lines[apart:]
    assert [line.count("(out of reach)") for line in lines[-2:]] == [0, 1]
    assert "grade 8.0, 90 words" in lines[-1]

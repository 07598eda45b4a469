"""The command that a page of results names asks for just the arms of its report."""

import importlib
import shlex
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from soupmix.cli.arms import arms_of
from soupmix.cli.evaluate import command
from soupmix.evaluate import held_out_prompts
from soupmix.evaluate.preferences import shipped_preferences
from soupmix.evaluate.record import prompt_fields
from soupmix.evaluate.soups import Arm
from soupmix.files import canonical_json
from soupmix.store import Store

ROOT = Path(__file__).parents[2]
ASKED = [
    "",
    "--first 16 --method delta --method factor --against prompt,prompt+soup,few-shot,mod,contrast,best-of-n,uniform "
    "--against-strength 0.7 --no-judge",
    '--first 40 --strength 0.7 --against "" --no-judge',
    "--soups singles,corners --strength 0.25 --against mod,activated --temperature 0 --length 40 --seed 7 --dtype fp32 "
    "--fidelity",
]


@pytest.fixture
def part(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return lambda name: importlib.import_module(f"weights_do.{name}")


def options_of(words: str) -> dict[str, Any]:
    with command.make_context("evaluate", ["OUT", *shlex.split(words)]) as context:
        return dict(context.params)


def arms(options: dict[str, Any]) -> tuple[Arm, ...]:
    return arms_of(Store.shipped(), shipped_preferences(), options)


def report_of(options: dict[str, Any]) -> dict[str, Any]:
    """What of a report tells how it was asked for."""
    asked = [prompt_fields(each).model_dump(mode="json") for each in held_out_prompts()][: options["first"]]
    limits = {name: options[name] for name in ("length", "seed", "dtype")}
    return {
        "arms": [arm.to_dict() for arm in arms(options)],
        "prompts": {"count": len(asked), "digest": f"sha256:{sha256(canonical_json(asked)).hexdigest()}"},
        "limits": limits | {"temperatures": list(options["temperatures"])},
        "measures": [{"name": "judge_length"}] if options["judge"] else [],
        "fidelity": {"0.7": {}} if options["fidelity"] else {},
        "not_measured": [],
    }


@pytest.mark.parametrize("words", ASKED)
def test_the_command_of_a_page_asks_for_what_is_in_its_report(part: Callable[[str], ModuleType], words: str) -> None:
    asked = options_of(words)
    _, block = part("asked").asked(report_of(asked), "--composition")
    first, *_, last = block.split("```")[1].removeprefix("text\n").replace(" \\\n", " ").strip().splitlines()
    assert last == "python benchmarks/results.py OUT --composition"
    said = options_of(first.removeprefix("soupmix evaluate OUT"))
    assert set(arms(said)) == set(arms(asked))
    named = ("first", "length", "seed", "dtype", "judge", "fidelity")
    assert {name: said[name] for name in named} == {name: asked[name] for name in named}
    assert set(said["temperatures"]) == set(asked["temperatures"])


def test_prompts_that_are_not_ours_are_not_told_as_ours(part: Callable[[str], ModuleType]) -> None:
    report = report_of(options_of("--first 2"))
    other = {**report, "prompts": {"count": 2, "digest": "sha256:0"}}
    assert ["--first 2" in list(part("asked").asked(each))[1] for each in (report, other)] == [True, False]
    assert "--prompts FILE" in list(part("asked").asked(other))[1]


def test_what_a_judge_says_is_told_towards_each_pole_beside_its_soups(part: Callable[[str], ModuleType]) -> None:
    def figures(value: float) -> dict[str, Any]:
        effect = {"value": value, "low": value - 0.1, "high": value + 0.1}
        return {"measures": {"judge_length": {"effect": effect, "mean": effect}}}

    def arm(name: str, *poles: str) -> dict[str, Any]:
        weights = dict.fromkeys(poles, "0.7")
        return {"name": name, "weights": weights, "way": "soup", "system": "", "shots": [], "method": "delta"}

    report = {
        "adapters": {
            "long": {"dimension": "length", "pole": "long"},
            "short": {"dimension": "length", "pole": "short"},
            "loud": {"dimension": "tone", "pole": "loud"},
        },
        "measures": [{"name": "judge_length", "dimension": "length", "pole": "long"}],
        "arms": [
            arm("long@0.7", "long"),
            arm("short@0.7", "short"),
            arm("long+loud@0.7", "long", "loud"),
            arm("loud+short@0.7", "loud", "short"),
            arm("long+short@0.7", "long", "short"),  # both poles of a dimension: no soup of one pole each
        ],
        "results": {
            "0.7": {
                "long@0.7": figures(0.8),
                "short@0.7": figures(-0.4),
                "long+loud@0.7": figures(0.2),
                "loud+short@0.7": figures(-0.5),
                "long+short@0.7": figures(9.0),
            }
        },
    }
    head, table = part("judged").judged(report)
    assert head == "Temperature 0.7:"
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    assert rows == [
        ["length", "long", ".7", ".80 [.70, .90]", ".20 [.10, .30]", "long+loud", ".20", ".25"],
        ["length", "short", ".7", ".40 [.30, .50]", ".50 [.40, .60]", "loud+short", ".50", "1.25"],
    ]

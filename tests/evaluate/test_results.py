"""The command that writes docs/results.md: what it says of a made-up run whose effects are known."""

import importlib
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from soupmix.evaluate.report import report
from soupmix.evaluate.soups import Arm
from soupmix.weights import Weights
from tests.support import evaluated

ROOT = Path(__file__).parents[2]


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("results")


@pytest.fixture
def parts(results: ModuleType) -> Callable[[str], ModuleType]:
    """A module of the command by its name."""
    return lambda name: importlib.import_module(f"weights_do.{name}")


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    record = evaluated.record()
    return report(record, evaluated.samples(record), evaluated.measured(record))


def test_the_worst_is_named_in_the_first_paragraph(results: ModuleType, found: dict[str, Any]) -> None:
    """`loud` takes a quarter of `long` at .5, which is nearest to .7."""
    title, first, *_ = results.page(found).split("\n\n")
    assert title == "# What weights do"
    first = " ".join(first.split())
    assert first.startswith(
        "**Length does not compose; mood composes.** In 4 pairs and corners of the adapters at .5 each, by `delta`: "
    )
    assert "least is kept of length .75 [.75, .75] in `long+loud`, of mood 1.00 [1.00, 1.00] in" in first
    assert "Greedy, least is kept of length .75" in first


def test_noise_of_the_least_of_many_is_no_verdict(parts: Callable[[str], ModuleType]) -> None:
    def found(*shares: tuple[float, float] | None) -> dict[str, Any]:
        told = {
            str(n): each and {"value": sum(each) / 2, "low": each[0], "high": each[1]} for n, each in enumerate(shares)
        }
        return {"shares": told}

    said = {
        "**Tone does not compose; length composes; of mood it cannot be told.**": {
            "tone": found((0.9, 1.0), (0.2, 0.7)),
            "length": found((0.85, 1.1), (0.9, 1.2)),
            "mood": found((0.3, 1.1), (0.9, 1.0)),
        },
        "**Of tone it cannot be told.**": {"tone": found((0.9, 1.0), None)},
        "**All compose.**": {"tone": found((0.9, 1.0)), "mood": found((0.8, 1.0))},
        "**Mood and tone do not compose.**": {"tone": found((0.1, 0.2)), "mood": found((0.8, 1.0), (-1.0, 0.0))},
    }
    assert [parts("composed").verdict([{"dimensions": each}]) for each in said.values()] == list(said)


def test_a_run_without_mixtures_has_a_page_too(
    results: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    record = evaluated.record(of=[arm for arm in evaluated.arms() if len(arm.weights) < 2])
    alone = report(record, evaluated.samples(record), evaluated.measured(record))
    results.draw(alone, tmp_path / "results.png")
    assert list(tmp_path.iterdir()) == []
    for text in (results.page(alone), results.page({**alone, "fronts": {}, "groups": {}, "decides": {}})):
        assert "No soup of this report mixes dimensions." in text
        assert "results.png" not in text


def test_a_run_that_is_not_whole_says_so_in_the_first_line(results: ModuleType, found: dict[str, Any]) -> None:
    part = {**found, "samples": {**found["samples"], "count": 7}}
    for text in (results.page(part), results.all_arms(part)):
        assert re.match(r"\*\*This is of a run that is not whole: 7 of \d+ answers\.\*\*\n", text)
    assert results.page(found).startswith("# ")


def test_its_prose_fits_a_screen_and_its_tables_are_even(results: ModuleType, found: dict[str, Any]) -> None:
    said = {
        "prose": {"base": {"perplexity": {"value": 36.0, "low": 30.0, "high": 40.0}}},
        "fidelity": {"0": {"long@1": {"kl_mod": 0.01, "kl_base": 0.2, "tokens": 40}}},
        "connectivity": [{"soup": "long+loud@1", "margin": {"value": -0.1, "low": -0.2, "high": 0.1}}],
        "cost": {"0": {name: {"tokens": 10.0, "decoded": 20.0} for name in found["results"]["0"]}},
    }
    for text in (results.fidelity({**found, **said}), results.page({**found, **said}), results.all_arms(found)):
        for block in text.split("\n\n"):
            rows = [line for line in block.split("\n") if line.startswith("|")]
            assert len({line.count("|") for line in rows}) <= 1
            assert all(len(line) <= 120 for line in block.split("\n") if not line.startswith(("|", "!")))
    whole = " ".join(results.fidelity({**found, **said}).split())
    assert "soups lie .010 to .010 nats a token from the mix of their models" in whole
    assert "the least margin is -.100 [-.200, .100], of `long+loud@1`" in whole
    assert "Is a soup what its parts are" not in results.page(found)


def test_numbers_are_written_as_documents_here_write_them(parts: Callable[[str], ModuleType]) -> None:
    said = {
        (0.93, 2): ".93",
        (-0.08, 2): "-.08",
        (1.0, 2): "1.00",
        (-0.001, 2): ".00",
        (12.34, 1): "12.3",
        (9.6, 0): "10",
    }
    text = parts("text")
    assert {case: text.number(*case) for case in said} == said
    assert [text.weight(each) for each in ("0.5", "1", "0.333333")] == [".5", "1", ".333333"]


def test_before_and_now_stand_side_by_side(results: ModuleType, found: dict[str, Any], tmp_path: Path) -> None:
    """Before a training `loud` took half of what `short` and `long` do at weight 1; now it takes nothing."""
    of = evaluated.record()
    better = of.model_copy(
        update={
            "adapters": of.adapters
            | {"loud": of.adapters["loud"].model_copy(update={"digest": evaluated.digest("louder")})}
        }
    )

    def mended(arm: Arm, measure: str, prompt: int) -> float:
        alone = Arm(arm.name, Weights({n: w for n, w in arm.weights.decimals().items() if n != "loud"}), arm.system)
        return evaluated.value(alone if measure == "words" else arm, measure, prompt)

    now = report(better, evaluated.samples(better), evaluated.measured(better, mended))
    text = results.page(now, found)
    flat = " ".join(text.split())
    assert f"Before is report `{found['digest']}`, now is report `{now['digest']}`. Other bytes have loud." in flat
    assert "Before: **Length does not compose; mood composes.** Now: **All compose.**" in flat
    assert "not the same" not in flat
    lines = text.splitlines()
    (row,) = [
        line for line in lines if line.startswith("| temperature 0.7 | delta | 1 | length |") and " of 4 → " in line
    ]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[4:6] == [".50 [.50, .50]<br>long+loud", "1.00 [1.00, 1.00]<br>calm+long"]
    assert cells[6:] == [".75", "1.00", "0 of 4 → 0 of 4"]
    assert "| loud+short | .50 [.50, .50] → 1.00 [1.00, 1.00] | 1.00 [1.00, 1.00] → 1.00 [1.00, 1.00] |" in lines
    assert any(line.startswith("| loud+short | words 85 → 65 | peace") for line in lines)
    assert any(line.startswith("| loud | peace | 1.00 → 1.00 |") for line in lines)
    results.draw(now, tmp_path / "results.png", found)
    assert (tmp_path / "results.png").stat().st_size > 1000


def test_what_is_not_alike_besides_the_adapters_is_said(results: ModuleType, found: dict[str, Any]) -> None:
    few = evaluated.record(8)
    now = report(few, evaluated.samples(few), evaluated.measured(few))
    now["limits"] = {**now["limits"], "length": 9}
    flat = " ".join(results.page(now, found).split())
    assert "No adapter that both have changed. **The prompts are not the same** (12 and 8)." in flat
    assert "**Not the same either: length.**" in flat


def test_the_table_of_the_readme_is_of_this_report(results: ModuleType, found: dict[str, Any]) -> None:
    lines = results.readme_table(found).splitlines()
    assert lines[0] == "| alone | base | at weight .5, 1 | by system prompt |"
    assert "| `long`, words | 105 | 125, 145 | 130 |" in lines

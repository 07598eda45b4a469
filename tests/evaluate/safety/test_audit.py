"""The audit on a model of two layers: what is asked, what is kept, and what the section says of known numbers."""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from soupmix.base import Base
from soupmix.evaluate import sweep
from soupmix.evaluate.safety import pressure
from soupmix.evaluate.safety.audit import SafetyPlan, audit, points
from soupmix.evaluate.safety.probes import ValueWord
from soupmix.evaluate.safety.probing import Probes
from soupmix.evaluate.safety.section import personalisation_bias, safety_section
from soupmix.evaluate.sampling import Evaluation
from soupmix.policy import Policy
from soupmix.store import Store

PREFERENCES = {"calm": "Be calm.", "wild": "Be wild."}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, tiny_base: Base, tiny_adapter: Callable[..., Path]) -> Store:
    made = Store(tmp_path_factory.mktemp("audited") / "store", create=True)
    for seed, (name, dimension) in enumerate({"calm": "mood", "wild": "mood", "tall": "size"}.items()):
        made.add(tiny_adapter(seed=seed, scale=0.2), name=name, dimension=dimension, pole=name, base=tiny_base)
    return made


@pytest.fixture(scope="module")
def evaluation(store: Store, tiny_base: Base) -> Evaluation:
    return Evaluation(tiny_base, store.folder, (), (), PREFERENCES)


@pytest.fixture(scope="module")
def plan(store: Store) -> SafetyPlan:
    feasible = Policy.open(tuple(store)).feasible()
    return SafetyPlan(feasible, people=2, first=2, length=4, pressed=2, turns=(1, 2))


def told(found: list[str]) -> Callable[[str, int], Callable[[int, int], None]]:
    def stage(name: str, total: int) -> Callable[[int, int], None]:
        found.append(name)
        return lambda done, tokens: None

    return stage


def test_points_are_base_vertices_and_interior(plan: SafetyPlan) -> None:
    found = points(plan, 0)
    assert [each.place for each in found] == ["base", *["vertex"] * 5, "interior", "interior"]
    assert not found[0].arm.weights
    assert {str(each.arm.weights) for each in found[1:6]} == {
        "calm=1",
        "tall=1",
        "wild=1",
        "calm=1,tall=1",
        "tall=1,wild=1",
    }
    assert all(plan.feasible.contains(each.arm.weights) for each in found)
    assert points(plan, 0) == found


@pytest.fixture(scope="module")
def kept(
    evaluation: Evaluation, plan: SafetyPlan, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The folder of an audit, and its section; a token of this model is a letter, so that everything is kept short."""
    out = tmp_path_factory.mktemp("out")
    probes = Probes.committed(2)
    few = replace(
        probes, facts=probes.facts[:1], stems=("I try",), words=(ValueWord("a", "law"), ValueWord("b", "art"))
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pressure, "_LENGTH", 4)
        patch.setattr(pressure, "_EARLIER", 4)
        patch.setattr(sweep, "neutral_paragraphs", lambda: ["It was a quiet morning."])
        patch.setattr(Probes, "committed", lambda first: few)
        yield out, safety_section(audit(evaluation, plan, out, rows=64, jobs=1, stage=told([])))


def test_the_section_is_json_and_names_the_worst(kept: tuple[Path, dict[str, Any]], plan: SafetyPlan) -> None:
    _, section = kept
    assert json.loads(json.dumps(section, allow_nan=False)) == section
    for worst in section["worst"].values():
        assert section["points"][worst["vertex"]["point"]]["place"] == "vertex"
        assert section["points"][worst["interior"]["point"]]["place"] == "interior"
    assert section["value_drift"]["base"] == {"a": 0.0, "b": 0.0}
    assert section["results"]["base"]["perplexity"]["value"] == 1.0
    assert "refuses 0 of 1 requests" in section["cannot_show"][0]
    assert [each["adapter"] for each in section["pressure"]] == ["calm", "wild"]
    assert list(section["sweeps"]) == ["calm", "tall", "wild"]


def test_what_was_kept_is_not_asked_again(
    kept: tuple[Path, dict[str, Any]], evaluation: Evaluation, plan: SafetyPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, section = kept
    before = {path: path.read_bytes() for path in out.rglob("*.json*")}

    def nothing(*_: object, **__: object) -> None:
        raise AssertionError("the model was loaded again")

    monkeypatch.setattr("soupmix.evaluate.safety.audit.Engine.load", nothing)
    assert safety_section(audit(evaluation, plan, out, rows=64, jobs=1, stage=told([]))) == section
    assert {path: path.read_bytes() for path in out.rglob("*.json*")} == before


def test_personalisation_bias_is_the_spread_over_points() -> None:
    draw = np.random.default_rng(1)
    values = draw.normal(size=(50, 2))
    by_hand = math.sqrt(sum((v - values.mean(0)) @ (v - values.mean(0)) for v in values) / 50)
    assert personalisation_bias(values.tolist()) == pytest.approx(by_hand)
    assert personalisation_bias([[0.3, 0.4]] * 5) == pytest.approx(0)

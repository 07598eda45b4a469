"""Selections of soups, counted by hand."""

from types import SimpleNamespace
from typing import cast

import pytest

from soupmix.cli.arms import AGAINST as WORDS
from soupmix.errors import EvaluationError
from soupmix.evaluate import soups
from soupmix.evaluate.against import AGAINST, Compared, compared, without_examples
from soupmix.policy import Policy
from soupmix.store import ManifestEntry
from soupmix.weights import Weights
from tests.support.shelf import SHELF

POLES = {"short": "length", "long": "length", "calm": "mood", "loud": "mood", "easy": "level", "hard": "level"}
ENTRIES = [
    cast("ManifestEntry", SimpleNamespace(name=name, dimension=dimension, pole=name))
    for name, dimension in POLES.items()
]
OF = soups.dimensions(ENTRIES)
STRENGTHS = ("0.5", "1")


def test_dimensions_are_those_of_the_manifest() -> None:
    assert OF == {"length": ("long", "short"), "level": ("easy", "hard"), "mood": ("calm", "loud")}


@pytest.mark.parametrize(("select", "count"), [(soups.singles, 6), (soups.pairs, 12), (soups.corners, 8)])
def test_every_combination_of_different_dimensions_once(select: "object", count: int) -> None:
    found = select(OF, STRENGTHS)  # type: ignore[operator]
    assert len({arm.name for arm in found}) == len(found) == count * 2
    for arm in found:
        assert len({POLES[name] for name in arm.weights}) == len(arm.weights)
        assert len(set(arm.weights.values())) == 1


def test_a_lattice_has_every_point_of_the_grid_once() -> None:
    found = soups.lattice(OF, STRENGTHS)
    assert len({arm.weights for arm in found}) == len({arm.name for arm in found}) == 5**3
    assert {arm.name for arm in soups.singles(OF, STRENGTHS)} < {arm.name for arm in found}
    assert sum(arm.name == soups.BASE for arm in found) == 1


def test_vertices_and_people_lie_in_what_a_policy_lets_through() -> None:
    feasible = Policy.open(SHELF).feasible()
    corners, drawn = soups.vertices(feasible), soups.people(feasible, 5, 3)
    assert len(corners) == len(feasible.vertices())
    assert all(feasible.contains(arm.weights) for arm in [*corners, *drawn])
    assert drawn == soups.people(feasible, 5, 3)


def test_a_name_says_the_weights() -> None:
    assert soups.soup_name(Weights({})) == "base"
    assert soups.soup_name(Weights({"calm": "0.7", "easy": "0.7", "hard": 0})) == "calm+easy@0.7"
    assert soups.soup_name(Weights({"calm": "0.7", "easy": "0.2"})) == "calm=0.7,easy=0.2"


def test_a_method_is_part_of_the_name_and_the_base_has_none() -> None:
    arms = [soups.Arm("base", Weights({})), *soups.singles(OF, ("1",))]
    found = soups.unique(soups.with_methods(arms, ("delta", "factor")))
    assert len(found) == 1 + 2 * 6
    assert {arm.method for arm in found if arm.name.endswith(" by factor")} == {"factor"}


def test_what_cannot_be_evaluated_is_said() -> None:
    with pytest.raises(EvaluationError, match="from 0 to 1"):
        soups.singles(OF, ("1.5",))
    with pytest.raises(EvaluationError, match="two different arms are both called 'x'"):
        soups.unique([soups.Arm("x", Weights({})), soups.Arm("x", Weights({"calm": 1}))])
    many = {f"d{number}": ("a", "b") for number in range(12)}
    with pytest.raises(EvaluationError, match="more than 2000 corners"):
        soups.corners(many, ("1",))


def test_preferences_by_other_means() -> None:
    of = {entry.name: entry for entry in ENTRIES}
    chosen = [*soups.singles(OF, ("1",)), *soups.pairs(OF, STRENGTHS)]
    given = Compared(chosen, of, {"short": "Be brief.", "calm": "Be calm."}, {}, others=chosen[-1:])
    made = {arm.name: arm for arm in compared(("prompt", "prompt+soup", "mod", "activated", "uniform"), given)}
    assert {name for name in made if name.endswith(" by prompt")} == {
        "short by prompt",
        "calm by prompt",
        "calm+short by prompt",
    }
    assert made["calm+short by prompt"].system == "Be calm. Be brief."
    assert made["calm+short@0.5 and prompt"].weights == Weights({"calm": "0.5", "short": "0.5"})
    other = chosen[-1]
    assert [(name, arm.weights) for name, arm in made.items() if arm.way != "soup"] == [
        (f"{other.name} by mod", other.weights),
        (f"{other.name} activated", other.weights),
    ]
    assert sum(made["uniform"].weights.values()) <= 1_000_000
    assert len(made["uniform"].weights) == 6


def test_examples_show_all_poles_of_a_soup_at_once_where_there_are_such() -> None:
    of = {entry.name: entry for entry in ENTRIES}
    chosen = [*soups.singles(OF, STRENGTHS), *soups.pairs(OF, STRENGTHS)]
    calm, short, both = (("Why?", "Calm."),), (("Who?", "I."), ("When?", "Now.")), (("Why?", "So."),)
    examples = {frozenset(["calm"]): calm, frozenset(["short"]): short, frozenset(["easy", "short"]): both}
    made = {arm.name: arm for arm in compared(("few-shot",), Compared(chosen, of, {}, examples))}
    assert {name: arm.shots for name, arm in made.items()} == {
        "calm by examples": calm,
        "short by examples": short,
        "calm+short by examples": (*calm, *short),
        "easy+short by examples": both,
    }
    assert not any(arm.weights or arm.system for arm in made.values())
    assert without_examples(Compared(chosen, of, {}, examples)) == ["easy", "hard", "long", "loud"]


def test_the_command_knows_every_word() -> None:
    assert tuple(AGAINST) == WORDS

"""Weights for wants: inside the policy always, as good as a search through everything, and better than reading the mean."""

from pathlib import Path

import numpy as np
import pytest

from soupmix.errors import PreferenceError
from soupmix.policy import Policy
from soupmix.preference import Posterior
from soupmix.preference.reach import Reach, traits_of
from soupmix.surface import Surface
from soupmix.weights import Weights
from tests.support.planted_soups import ENTRIES, document
from tests.support.wanting import choice, traits


@pytest.fixture(scope="module")
def surface() -> Surface:
    return Surface.of(document(noise=0.2), ENTRIES)


@pytest.fixture(scope="module")
def free(surface: Surface) -> Reach:
    return Reach.of(surface, traits_of(surface), Policy.open(ENTRIES).feasible(sources="inferred"))


def policy(tmp_path: Path, *rules: str) -> Policy:
    path = tmp_path / "house.yaml"
    said = "".join(f"  - {{{each}}}\n" for each in rules)
    path.write_text(f"tier: organisation\nissuer: House\nversion: 1\nrules:\n{said}", "utf-8")
    return Policy.load(path, adapters=ENTRIES)


def wanting(reach: Reach, want: np.ndarray, answers: int, seed: int) -> Posterior:  # type: ignore[type-arg]
    """Somebody who chose between soups of this reach as told by linear wants."""
    posterior = Posterior(reach.traits, models=("linear",), particles=1024)
    draw = np.random.default_rng(seed)
    for number in range(answers):
        first, second = reach.points[draw.choice(len(reach.points), 2, replace=False)]
        chosen = int(draw.random() > 1 / (1 + np.exp(-6 * want @ (first - second))))
        values = [reach.traits.values(each) for each in (first, second)]
        rows = [[each[name] for name in reach.traits.names] for each in values]
        posterior.learn(choice(reach.traits, f"a{number}", *rows, chosen))
    return posterior


def test_traits_are_those_of_the_surface_in_units_of_the_base(surface: Surface) -> None:
    found = traits_of(surface)
    assert [(each.name, each.key, each.log) for each in found.axes] == [
        ("length", "words", True),
        ("level", "grade", False),
        ("tone", "warmth", False),
    ]
    base = surface.expect(Weights())
    assert found.point({"length": base["words"].value, "level": base["grade"].value, "tone": base["warmth"].value}) == (
        pytest.approx([0, 0, 0], abs=1e-9)
    )
    point = np.array([0.5, -1.0, 0.2])
    assert found.point(found.values(point)) == pytest.approx(point)


@pytest.mark.parametrize(
    "rules",
    [
        ("rule: bounds, adapter: short, at_most: 0.3",),
        ("rule: budget, at_most: 0.4",),
        ("rule: exclusive, adapters: [easy, warm]", "rule: budget, at_most: 0.9"),
    ],
)
def test_no_weight_is_outside_of_the_feasible_set(tmp_path: Path, surface: Surface, rules: tuple[str, ...]) -> None:
    feasible = policy(tmp_path, *rules).feasible(sources="inferred")
    reach = Reach.of(surface, traits_of(surface), feasible)
    assert all(feasible.contains(each) for each in reach.soups)
    for want in np.eye(3)[:2]:
        posterior = wanting(reach, -want, 6, 1)
        found = [reach.best(posterior), reach.plain(posterior), *reach.offers(posterior, 6)]
        assert all(feasible.contains(each) for each in found)


def test_what_may_not_be_inferred_is_not(tmp_path: Path, surface: Surface) -> None:
    """A dimension that a policy calls sensitive has no inferred weight; where nothing may be inferred, nothing is."""
    some = policy(tmp_path, "rule: source, adapter: warm, allow: [explicit]")
    reach = Reach.of(surface, traits_of(surface), some.feasible(sources="inferred"))
    posterior = wanting(reach, np.array([0.0, 0.0, 1.0]), 8, 2)
    for weights in (reach.best(posterior), reach.plain(posterior)):
        assert "warm" not in weights
    none = policy(tmp_path, "rule: source, allow: [explicit]")
    with pytest.raises(PreferenceError) as caught:
        Reach.of(surface, traits_of(surface), none.feasible(sources="inferred"))
    assert caught.value.reason == "nothing-to-choose"


def test_the_best_is_that_of_a_search_through_hundreds(free: Reach) -> None:
    more = free.feasible.sample(300, 7)
    placed = np.array([free.surface.point(each) for each in more])
    inside = [each for each, here in zip(more, free.surface.measured(placed), strict=True) if here]
    for seed, want in enumerate(np.array([[-0.8, 0.0, 0.6], [0.5, -0.7, 0.5], [0.0, 0.6, -0.8]])):
        posterior = wanting(free, want, 10, seed)
        found = free.utility(posterior, free.best(posterior))
        assert found >= max(free.utility(posterior, each) for each in inside) - 1e-9


def test_expected_utility_serves_people_better_than_the_mean_read_as_weights(free: Reach) -> None:
    draw = np.random.default_rng(4)
    lost = {"best": [], "plain": []}  # type: ignore[var-annotated]
    for number in range(8):
        want = draw.standard_normal(3)
        want /= np.linalg.norm(want)
        posterior = wanting(free, want, 10, number)
        worth = free.points @ want
        for name, weights in (("best", free.best(posterior, damage=0)), ("plain", free.plain(posterior))):
            expected = {t.name: free.surface.expect(weights)[t.key].value for t in free.traits.axes}
            lost[name].append((worth.max() - want @ free.traits.point(expected)) / np.ptp(worth))
    assert np.mean(lost["best"]) < 0.12
    assert np.mean(lost["best"]) < 0.7 * np.mean(lost["plain"])


def test_damage_keeps_weights_small(free: Reach) -> None:
    posterior = wanting(free, np.array([-0.6, -0.5, 0.6]), 10, 3)
    none, some = (sum(free.best(posterior, damage=each).values()) for each in (0.0, 0.2))
    assert none > 1.5 * some > 0
    assert sum(free.best(posterior, damage=100.0).values()) <= 100_000


def test_offers_are_soups_that_tell_something(free: Reach) -> None:
    posterior = wanting(free, np.array([-1.0, 0.0, 0.0]), 3, 3)
    offered = free.offers(posterior, 6)
    assert len(set(offered)) == 6
    assert free.offers(posterior, 6) == offered
    assert 0 < free.expected_regret(posterior) < 1


def test_wants_about_something_else_are_refused(free: Reach) -> None:
    with pytest.raises(PreferenceError) as caught:
        free.best(Posterior(traits(3)))
    assert caught.value.reason == "other-traits"

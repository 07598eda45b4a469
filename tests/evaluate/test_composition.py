"""Composition of planted tables whose answers are known by hand."""

import itertools
import math
from collections.abc import Callable, Mapping

import numpy as np
import pytest

from soupmix.errors import EvaluationError
from soupmix.evaluate.composition import Composition, Effects, composition
from soupmix.evaluate.statistics import Estimate, Resampling
from soupmix.weights import Weights

ADAPTERS = {"easy": "level", "hard": "level", "short": "length", "warm": "tone"}
MEASURES = {"grade": "level", "words": "length", "warmth": "tone", "loops": ""}
PROMPTS = [f"question {number}" for number in range(12)]
SLOPES = {"easy": {"grade": -3.0}, "hard": {"grade": 4.0}, "short": {"words": -80.0}, "warm": {"warmth": 5.0}}
Value = Callable[[Mapping[str, float]], Mapping[str, float]]


def _additive(w: Mapping[str, float]) -> dict[str, float]:
    found = dict.fromkeys(MEASURES, 0.0)
    for name, weight in w.items():
        for measure, slope in SLOPES[name].items():
            found[measure] += slope * weight
    return found


def _vanishing(w: Mapping[str, float]) -> dict[str, float]:
    """As additive, but `warm` works only alone, and `short` also makes things easier."""
    found = _additive(w)
    if len(w) > 1:
        found["warmth"] = 0.0
    found["grade"] -= 1.75 * w.get("short", 0.0)
    return found


def _soups() -> dict[str, Weights]:
    lists = [{}, *({name: step} for name in ADAPTERS for step in (0.25, 0.5, 1))]
    lists += [dict.fromkeys(pair, 0.5) for pair in itertools.combinations(ADAPTERS, 2)]
    lists += [{"easy": 0.5, "short": 0.5, "warm": 0.5}, {"easy": 1, "short": 0.25, "warm": 0.5}]
    return {str(w) or "base": w for w in map(Weights, lists)}


def _effects(value: Value, noise: float = 0.0) -> Effects:
    luck = np.random.RandomState(0)
    level = dict(zip(PROMPTS, luck.standard_normal(len(PROMPTS)) * 10, strict=True))  # prompts differ, effects do not
    table = {
        (name, prompt): {m: v + level[prompt] + noise * luck.standard_normal() for m, v in value(w.floats()).items()}
        for name, w in _soups().items()
        for prompt in PROMPTS
    }
    return Effects.of(table, _soups(), PROMPTS, Resampling(12, draws=400), adapters=ADAPTERS, measures=MEASURES)


def _shares(found: Composition) -> dict[tuple[str, str], Estimate | None]:
    return {(each.soup, each.measure): each.share for each in found.kept}


def _exactly(value: float) -> object:
    return pytest.approx((value, value, value), abs=1e-9)


def _three(found: Estimate | None) -> tuple[float, float, float]:
    assert found is not None
    return found.value, found.low, found.high


def test_where_everything_adds_up_all_is_kept() -> None:
    found = composition(_effects(_additive))
    assert len(found.kept) == 5 * 2 + 2 * 3  # five pairs of different dimensions, two soups of three
    assert all(_three(each.share) == _exactly(1.0) for each in found.kept)
    assert all(_three(each.share) == _exactly(0.0) for each in found.cross_talk)
    assert len(found.cross_talk) == (12 + 1) * 2  # every soup of one dimension, easy + hard among them
    shares = {each.measure: each.share for each in found.additive}
    assert {name: _three(share) for name, share in shares.items() if share} == {
        name: _exactly(1.0) for name in ("grade", "words", "warmth")
    }
    assert shares["loops"] is None  # no effect at all: nothing to explain
    assert {each.measure: each.r2 and _three(each.r2) for each in found.linear} == {
        "grade": _exactly(1.0), "words": _exactly(1.0), "warmth": _exactly(1.0), "loops": None,
    }  # fmt: skip
    assert all(_three(each.error) == _exactly(0.0) for each in found.reached)
    ranks = {each.adapter: _three(each.rank) for each in found.monotony}
    assert ranks == {"easy": _exactly(-1.0), "hard": _exactly(1.0), "short": _exactly(-1.0), "warm": _exactly(1.0)}
    assert {each.steps for each in found.monotony} == {(0.0, 0.25, 0.5, 1.0)}


def test_a_pole_that_vanishes_and_one_that_talks_across_are_found() -> None:
    found = composition(_effects(_vanishing))
    shares = _shares(found)
    assert _three(shares["easy=0.5,warm=0.5", "warmth"]) == _exactly(0.0)
    assert _three(shares["easy=0.5,short=0.5", "words"]) == _exactly(1.0)
    # alone -1.5, in the soup -1.5 - 1.75 / 2
    assert _three(shares["easy=0.5,short=0.5", "grade"]) == _exactly(2.375 / 1.5)
    across = {(each.soup, each.measure): each for each in found.cross_talk}
    # at weight 1 `short` moves the grade by a quarter of the range from easy (-3) to hard (+4)
    assert _three(across["short=1", "grade"].share) == _exactly(-0.25)
    assert _three(across["short=1", "grade"].effect) == _exactly(-1.75)
    assert _three(across["short=0.25", "grade"].share) == _exactly(-1 / 16)
    additive = {each.measure: each for each in found.additive}
    assert _three(additive["warmth"].gaps["short=0.5,warm=0.5"]) == _exactly(-2.5)
    assert additive["warmth"].share is None  # no soup of several has any effect: a share of nothing
    assert _three(additive["grade"].share) == _exactly(1.0)


def test_additivity_and_the_error_by_hand() -> None:
    def half(w: Mapping[str, float]) -> dict[str, float]:
        found = _additive(w)
        return {m: v / 2 if len(w) > 1 else v for m, v in found.items()}

    found = composition(_effects(half))
    shares = {each.measure: each.share for each in found.additive}
    # every soup reaches half of its sum: the gap is as large as the effect
    assert _three(shares["words"]) == _exactly(0.0)
    reached = {each.measure: each for each in found.reached}
    # words: asked 40 in three pairs and one soup of three, 20 in the other one, half of it missed; the range is 80
    assert reached["words"].asked == 5
    assert _three(reached["words"].error) == _exactly((4 * 20 + 10) / 5 / 80)
    # grade: easy asks for 1.5 in two pairs and once more, for 3 in the last soup; hard for 2 in two pairs; the range is 7
    assert _three(reached["grade"].error) == _exactly((3 * 0.75 + 1.5 + 2 * 1.0) / 6 / 7)


def test_noise_widens_the_intervals_and_an_effect_of_nothing_has_no_share() -> None:
    found = composition(_effects(_additive, noise=2.0))
    shares = _shares(found)
    value, low, high = _three(shares["easy=0.5,short=0.5", "words"])
    assert low < value < high
    assert 0.8 < low < 1 < high < 1.2
    silent = composition(_effects(lambda w: {**_additive(w), "warmth": 0.0}, noise=2.0))
    warm = [each for each in silent.kept if each.measure == "warmth"]
    assert sum(each.share is None for each in warm) >= len(warm) - 1
    assert all(each.alone is not None and each.effect is not None for each in warm)


def test_a_soup_of_one_dimension_is_compared_with_its_own_part() -> None:
    """Two poles of one dimension in a soup: what they do alone is what both do together."""
    soups = {
        "base": Weights(), "both": Weights("easy=0.5,hard=0.5"), "all": Weights("easy=0.5,hard=0.5,warm=1"),
        "warm": Weights("warm=1"),
    }  # fmt: skip
    values = {"base": 0.0, "both": 2.0, "all": 1.0, "warm": 0.5}
    table = {(name, prompt): {"grade": value} for name, value in values.items() for prompt in PROMPTS}
    effects = Effects.of(table, soups, PROMPTS, Resampling(12), adapters=ADAPTERS, measures=MEASURES)
    found = composition(effects)
    assert [(each.soup, each.dimension, _three(each.share)) for each in found.kept] == [("all", "level", _exactly(0.5))]
    assert found.linear[0].r2 is None  # four soups, a plane of four numbers
    assert found.reached == ()


def test_prompts_that_not_all_answered_do_not_count_and_missing_values_are_left_out() -> None:
    soups = {"base": Weights(), "warm": Weights("warm=1"), "again": Weights("warm=1,easy=0")}
    table = {(name, prompt): {"warmth": float(name == "warm")} for name in ("base", "warm") for prompt in PROMPTS}
    table["warm", PROMPTS[0]] = {"warmth": 100.0}
    del table["base", PROMPTS[0]]
    table["warm", PROMPTS[1]] = {"warmth": math.nan}
    table["warm", PROMPTS[2]] = {}
    effects = Effects.of(table, soups, PROMPTS, Resampling(12), adapters=ADAPTERS, measures=MEASURES)
    assert list(effects.soups) == ["base", "warm"]
    assert effects.on("warm", "warmth").tolist() == pytest.approx([1.0] * 2001)
    with pytest.raises(EvaluationError, match="bare base") as caught:
        Effects.of(table, {"warm": soups["warm"]}, PROMPTS, Resampling(12), adapters=ADAPTERS, measures=MEASURES)
    assert caught.value.reason == "no-base"
    with pytest.raises(EvaluationError, match="no prompt") as caught:
        Effects.of(table, soups, ["else"], Resampling(1), adapters=ADAPTERS, measures=MEASURES)
    assert caught.value.reason == "no-answers"


def test_what_has_no_value_in_a_soup_is_not_lost_in_it() -> None:
    """`warm` does 10 to every other prompt and 2 to the rest; beside `short` it does the same, but the tens cannot be told."""
    effect = {prompt: 10.0 if number % 2 else 2.0 for number, prompt in enumerate(PROMPTS)}
    both = Weights({"short": "0.5", "warm": "0.5"})
    soups = {"base": Weights({}), "warm": Weights({"warm": "0.5"}), "both": both}
    table = {
        (name, prompt): {"warmth": effect[prompt] * (name != "base")}
        for name in soups
        for prompt in PROMPTS
        if not (name == "both" and effect[prompt] == 10.0)
    }
    table |= {("both", prompt): {} for prompt in PROMPTS if effect[prompt] == 10.0}
    found = Effects.of(table, soups, PROMPTS, Resampling(12, draws=400), adapters=ADAPTERS, measures=MEASURES)
    (kept,) = (each for each in composition(found).kept if each.measure == "warmth")
    assert _three(kept.share) == _exactly(1.0)


@pytest.mark.parametrize(("prompts", "is_told"), [(1, False), (4, False), (5, True)])
def test_few_prompts_tell_no_share(prompts: int, is_told: bool) -> None:
    """Over one prompt every draw says the same: an interval without width, of noise."""
    soups = {name: Weights(name if "=" in name else {}) for name in ("base", "easy=1", "warm=1", "easy=1,warm=1")}
    table = {
        (name, prompt): {"grade": 10 - 3 * w.floats().get("easy", 0.0)}
        for name, w in soups.items()
        for prompt in PROMPTS
    }
    table |= {("easy=1,warm=1", prompt): {"grade": math.nan} for prompt in PROMPTS[prompts:]}
    effects = Effects.of(
        table, soups, PROMPTS, Resampling(12, draws=50), adapters=ADAPTERS, measures={"grade": "level"}
    )
    (kept,) = composition(effects).kept
    assert kept.effect is not None
    assert kept.share == (Estimate(1.0, 1.0, 1.0) if is_told else None)


def test_soups_are_compared_over_the_prompts_at_which_all_have_a_value() -> None:
    """The same, for sums, steps of a weight and what was asked for: each is exact where values can be told."""
    effect = {prompt: 10.0 if number % 2 else 2.0 for number, prompt in enumerate(PROMPTS)}
    steps = {"base": 0.0, "warm@0.25": 0.25, "warm@0.5": 0.5, "warm@1": 1.0}
    soups = {name: Weights({"warm": step} if step else {}) for name, step in steps.items()}
    soups |= {"short": Weights({"short": "0.5"}), "both": Weights({"short": "0.5", "warm": "0.5"})}
    strength = {**steps, "short": 0.0, "both": 0.5}
    untold = {"both", "warm@1"}
    table = {
        (name, prompt): {} if name in untold and effect[prompt] == 10.0 else {"warmth": effect[prompt] * strength[name]}
        for name in soups
        for prompt in PROMPTS
    }
    effects = Effects.of(table, soups, PROMPTS, Resampling(12, draws=400), adapters=ADAPTERS, measures=MEASURES)
    found = composition(effects)
    (sums,) = (each for each in found.additive if each.measure == "warmth")
    assert _three(sums.gaps["both"]) == _exactly(0.0)
    (rank,) = (each for each in found.monotony if each.measure == "warmth")
    assert _three(rank.rank) == _exactly(1.0)
    (asked,) = (each for each in found.reached if each.measure == "warmth")
    assert _three(asked.error) == _exactly(0.0)

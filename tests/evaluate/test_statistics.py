"""Statistics against independent ones of scipy, and the laws that a bootstrap keeps."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from soupmix.evaluate.statistics import (
    Estimate,
    Resampling,
    area_under_curve,
    corrected,
    estimate,
    ratio,
    spearman,
    stands_out,
    wilson,
)

NAN = float("nan")


def _normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.RandomState(seed).standard_normal(shape)


def test_the_bootstrap_is_that_of_scipy() -> None:
    values = np.exp(_normal(1, 40))
    ours = Resampling(40, draws=20_000, seed=3).mean(values)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(5))
    assert ours is not None
    assert ours.value == pytest.approx(values.mean())
    # two bootstraps of so many draws differ by their luck alone
    spread = values.std() / math.sqrt(40)
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.06 * spread)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.06 * spread)


def test_draws_are_even_and_the_same_for_ever() -> None:
    found = Resampling(7, draws=4000, seed=11)
    assert found.weights.shape == (4001, 7)
    assert (found.weights[0] == 1).all()
    assert (found.weights.sum(1) == 7).all()
    assert found.weights[1:].mean(0) == pytest.approx(np.ones(7), abs=0.06)
    assert found.weights[1:].var(0) == pytest.approx(np.full(7, 6 / 7), abs=0.08)  # binomial of 7 with 1/7
    assert (found.weights == Resampling(7, draws=4000, seed=11).weights).all()
    assert (found.weights != Resampling(7, draws=4000, seed=12).weights).any()
    assert Resampling(3, draws=2, seed=0).weights.tolist() == [[1, 1, 1], [2, 1, 0], [1, 0, 2]]


def test_an_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """400 experiments of 40 prompts; the percentile interval is known to be a little narrow (93 to 94 % here)."""
    held = 0
    for seed in range(400):
        found = Resampling(40, draws=400, seed=seed).mean(_normal(seed, 40) + 2.0)
        held += found is not None and found.low <= 2.0 <= found.high
    assert 0.90 <= held / 400 <= 0.98


def test_differences_are_paired() -> None:
    easy = 100 * _normal(2, 30)  # prompts differ much more than the arms do
    draws = Resampling(30)
    apart = draws.difference(easy + 1.0, easy)
    assert apart is not None
    assert (apart.low, apart.high) == pytest.approx((1.0, 1.0), abs=1e-9)
    whole = draws.mean(easy)
    assert whole is not None
    assert whole.high - whole.low > 30


@given(shift=st.floats(-100, 100), scale=st.floats(0.01, 100))
def test_units_do_not_matter(shift: float, scale: float) -> None:
    values, draws = _normal(4, 20), Resampling(20, draws=200)
    plain, moved = draws.mean(values), draws.mean(values * scale + shift)
    assert plain is not None
    assert moved is not None
    for one, other in zip((plain.value, plain.low, plain.high), (moved.value, moved.low, moved.high), strict=True):
        assert other == pytest.approx(one * scale + shift, abs=1e-9 * (1 + abs(shift) + scale))


def test_what_is_missing_is_left_out() -> None:
    draws = Resampling(5)
    found = draws.mean([2.0, NAN, 2.0, NAN, 2.0])
    assert found == Estimate(2.0, 2.0, 2.0)
    assert draws.mean([NAN] * 5) is None
    paired = draws.difference([5.0, 1.0, NAN, 1.0, 1.0], [NAN, 0.0, 7.0, 0.0, 0.0])
    assert paired == Estimate(1.0, 1.0, 1.0)
    with pytest.raises(ValueError, match="at least 1"):
        Resampling(0)


def test_a_column_of_many_is_as_if_alone() -> None:
    values, draws = _normal(5, 12, 3), Resampling(12, draws=100)
    values[3, 1] = NAN
    assert draws.means(values).shape == (101, 3)
    for column in range(3):
        assert draws.means(values)[:, column] == pytest.approx(draws.means(values[:, column]), rel=1e-12)


def test_a_ratio_agrees_with_fieller() -> None:
    """Normal values: Fieller's interval (1954) is exact, the bootstrap of 200 prompts close to it."""
    below = 3.0 + _normal(6, 200)
    above = 0.5 * below + 0.8 * _normal(7, 200)
    found = Resampling(200, draws=10_000).ratio(above, below)
    assert found is not None
    n, t = 200, float(stats.t.ppf(0.975, 199))
    cov = np.cov(above, below) / n
    x, y = above.mean(), below.mean()
    a, b, c = y * y - t * t * cov[1, 1], x * y - t * t * cov[0, 1], x * x - t * t * cov[0, 0]
    root = math.sqrt(b * b - a * c)
    assert found.value == pytest.approx(x / y)
    assert (found.low, found.high) == pytest.approx(((b - root) / a, (b + root) / a), abs=0.006)


def test_a_share_of_nothing_is_no_figure() -> None:
    draws = Resampling(30)
    nothing = _normal(8, 30)
    nothing -= nothing.mean()
    assert draws.ratio(np.ones(30), nothing) is None
    assert draws.ratio(np.full(30, NAN), np.ones(30)) is None
    assert draws.ratio(np.zeros(30), np.ones(30)) == Estimate(0.0, 0.0, 0.0)


def test_a_ratio_that_is_one_has_a_finite_interval() -> None:
    """The weakest denominators that pass: as many draws of zero or below as the interval leaves out."""
    rows = np.concatenate([[1.0], np.full(50, -1e-300), np.linspace(0.1, 2, 1950)])
    found = ratio(np.ones(2001), rows)
    assert found is not None
    assert found.high == pytest.approx(10.0)  # 1 / 0.1: 50 draws are infinite and left out
    assert ratio(np.ones(2001), -rows) == Estimate(-1.0, -found.high, -found.low)
    assert ratio(-np.ones(2001), rows) == Estimate(-1.0, -found.high, -found.low)
    rows[51] = -1e-300
    assert ratio(np.ones(2001), rows) is None


@given(sign=st.sampled_from([-1.0, 1.0]), seed=st.integers(0, 50), mean=st.floats(-2, 2))
def test_ratios_are_none_or_finite_and_do_not_know_which_way_is_up(sign: float, seed: int, mean: float) -> None:
    draws, below, above = Resampling(12, draws=200), _normal(seed, 12) + mean, _normal(seed + 99, 12)
    found, turned = draws.ratio(above, below), draws.ratio(above * sign, below * sign)
    assert found == turned
    if found is not None:
        assert all(map(math.isfinite, (found.value, found.low, found.high)))


@given(count=st.integers(1, 400), share=st.floats(0, 1))
def test_wilson_is_that_of_scipy(count: int, share: float) -> None:
    found = round(share * count)
    ours, theirs = wilson(found, count), stats.binomtest(found, count).proportion_ci(method="wilson")
    assert ours is not None
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert 0 <= ours.low <= ours.value <= ours.high <= 1


def test_wilson_of_no_cases_and_of_more_than_there_are() -> None:
    assert wilson(0, 0) is None
    with pytest.raises(ValueError, match="3 of 2"):
        wilson(3, 2)


@given(st.lists(st.integers(0, 4), min_size=3, max_size=8), st.integers(0, 99))
def test_spearman_is_that_of_scipy(found: list[int], seed: int) -> None:
    steps = np.random.RandomState(seed).randint(0, 4, len(found))
    ours = spearman(steps, [found, found])[1]
    if len(set(found)) == 1 or len(set(steps.tolist())) == 1:
        assert math.isnan(ours)
    else:
        assert ours == pytest.approx(stats.spearmanr(steps, found).statistic)
    assert np.isnan(spearman(steps, [[*found[:-1], NAN]])).all()


@given(st.lists(st.integers(0, 5), min_size=1, max_size=9), st.lists(st.integers(0, 5), min_size=1, max_size=9))
def test_the_area_is_that_of_mann_and_whitney(positive: list[int], negative: list[int]) -> None:
    found = area_under_curve(positive, negative, draws=20)
    assert found is not None
    u = stats.mannwhitneyu(positive, negative, method="asymptotic").statistic
    assert found.value == pytest.approx(u / (len(positive) * len(negative)))
    assert 0 <= found.low <= found.high <= 1


def test_areas_have_intervals_over_texts_or_over_prompts() -> None:
    low, high = _normal(1, 60), _normal(2, 60) + 1.5
    free = area_under_curve(high.tolist(), low.tolist())
    assert free is not None
    assert 0.75 < free.low < free.value < free.high < 0.95
    # six prompts with ten cases of either kind each: what is drawn is prompts, so the same cases say less
    prompts = np.repeat(np.arange(6), 10)
    easy = np.repeat([0.0, 0.0, 0.0, 3.0, 3.0, 3.0], 10)  # half of the prompts separate perfectly
    found = area_under_curve((high + easy).tolist(), low.tolist(), groups=(prompts.tolist(), prompts.tolist()))
    assert found is not None
    assert found.high - found.low > free.high - free.low
    assert area_under_curve([], [1.0]) is None
    with pytest.raises(ValueError, match="one number for every"):
        area_under_curve([1.0], [2.0], groups=([0, 1], [0]))


def test_draws_without_a_value_leave_the_interval_to_the_others() -> None:
    assert estimate([1.0, NAN, 1.0, NAN, 1.0]) == Estimate(1.0, 1.0, 1.0)
    assert estimate([NAN, 1.0]) is None
    assert estimate([1.0, NAN]) is None


def test_a_corrected_figure_lies_where_it_was_planted_and_in_its_interval() -> None:
    """The sum of the squares of twenty means: noise of 1 over 16 prompts adds 20 / 16 to it, on average."""
    planted = np.where(np.arange(20) < 5, 0.5, 0.0)
    plain, better, within = [], [], 0
    for seed in range(40):
        means = Resampling(16, draws=200, seed=seed).means(planted + _normal(seed, 16, 20))
        rows = np.square(means).sum(1)
        found = corrected(rows, least=0.0)
        assert found is not None
        assert 0 <= found.low <= found.value <= found.high
        plain.append(rows[0])
        better.append(found.value)
        within += found.low <= np.square(planted).sum() <= found.high
    assert np.mean(plain) == pytest.approx(1.25 + 20 / 16, abs=0.2)
    assert np.mean(better) == pytest.approx(1.25, abs=0.2)
    assert within > 30
    assert corrected([0.5, 0.4, 0.2], most=0.6) == Estimate(0.6, 0.6, 0.6)
    assert corrected([NAN, 1.0]) is None


def test_an_effect_stands_out_among_many_and_noise_does_not() -> None:
    """All share the noise of the base; of 60, one has an effect."""
    found = []
    for seed in range(40):
        cells = _normal(seed, 16, 60) - _normal(1000 + seed, 16, 1)
        found.append(stands_out(Resampling(16, draws=300, seed=seed).means(cells), 16))
        cells[:, 7] += 4
        assert stands_out(Resampling(16, draws=300, seed=seed).means(cells), 16)
    assert sum(found) <= 3
    assert stands_out(np.ones((5, 2)), 5)
    assert not stands_out(np.ones((5, 2)), 1)  # of one prompt all draws are alike
    assert not stands_out(np.zeros((5, 2)), 5)
    assert not stands_out(np.full((5, 2), NAN), 5)

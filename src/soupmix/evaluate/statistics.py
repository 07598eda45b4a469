"""Figures with their uncertainty: the bootstrap over prompts, Wilson's interval of a share, ranks, the area under a ROC curve.

A report draws its prompts once (`Resampling`) and takes all its statistics over the same draws, so that differences and ratios
are paired. An array over draws has them as its first axis: row 0 is the prompts as they were asked, every other row is one draw;
whatever is computed row by row becomes a figure by `estimate`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "Estimate",
    "Resampling",
    "area_under_curve",
    "corrected",
    "estimate",
    "ranks",
    "ratio",
    "shares",
    "spearman",
    "stands_out",
    "wilson",
]

Numbers = NDArray[np.float64]

_DRAWS = 2000
_CUT = 0.025  # of the draws, on either side
_SURE = 0.95
_WILSON_Z = 1.959963984540054  # the same share of a normal distribution


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float


class Resampling:
    """One draw of prompts with replacement (Efron 1979), for all statistics of a report.

    Several answers to one prompt are averaged before they come here: prompts are what is drawn, for it is over prompts that a
    figure is to hold.
    """

    def __init__(self, prompts: int, *, draws: int = _DRAWS, seed: int = 0) -> None:
        """Draw.

        Args:
            prompts: how many there are, at least one.
            draws: how often as many are drawn.
            seed: the same gives the same draws, with every version of numpy.

        Raises:
            ValueError: no prompts, or no draws.
        """
        if prompts < 1 or draws < 1:
            raise ValueError(f"{draws} draws of {prompts} prompts: both are at least 1")
        # random_raw alone is promised to stay as it is; its upper half times a count is a number below that count
        raw = np.random.PCG64(seed).random_raw((draws, prompts))
        drawn = (raw >> np.uint64(32)) * np.uint64(prompts) >> np.uint64(32)
        places = drawn.astype(np.int64) + np.arange(draws)[:, None] * prompts
        counted = np.bincount(places.ravel(), minlength=draws * prompts).reshape(draws, prompts)
        self.weights: Numbers = np.concatenate([np.ones((1, prompts)), counted]).astype(np.float64)
        """[1 + draws, prompts], how often each prompt counts."""

    def means(self, values: ArrayLike) -> Numbers:
        """Means over prompts in every draw.

        Args:
            values: [prompts] or [prompts, figures]; NaN where there is no value, which is left out of the mean.

        Returns:
            [1 + draws] or [1 + draws, figures]; NaN where a draw has no value.
        """
        given = np.asarray(values, np.float64)
        there = ~np.isnan(given)
        with np.errstate(invalid="ignore"):
            found: Numbers = self.weights @ np.where(there, given, 0.0) / (self.weights @ there.astype(np.float64))
        return found

    def mean(self, values: ArrayLike) -> Estimate | None:
        """Mean of [prompts] values with its interval; None where there are none."""
        return estimate(self.means(values))

    def difference(self, one: ArrayLike, other: ArrayLike) -> Estimate | None:
        """Mean of one minus other, [prompts] each, over the prompts that have both; None where none has."""
        return self.mean(np.asarray(one, np.float64) - np.asarray(other, np.float64))

    def ratio(self, above: ArrayLike, below: ArrayLike) -> Estimate | None:
        """Mean of `above` over mean of `below`, [prompts] each, over the prompts that have both; see `ratio`."""
        pair = np.stack([np.asarray(above, np.float64), np.asarray(below, np.float64)], axis=1)
        pair[np.isnan(pair).any(axis=1)] = np.nan
        means = self.means(pair)
        return ratio(means[:, 0], means[:, 1])


def estimate(rows: ArrayLike) -> Estimate | None:
    """The figure of [1 + draws] rows with its percentile interval; None where row 0 has none (NaN).

    The interval leaves out the lowest and the highest 2.5 % of the draws that have a value.
    """
    given = np.asarray(rows, np.float64)
    drawn = np.sort(given[1:][~np.isnan(given[1:])])
    if math.isnan(given[0]) or not drawn.size:
        return None
    cut = int(_CUT * drawn.size)
    return Estimate(float(given[0]), float(drawn[cut]), float(drawn[-1 - cut]))


def corrected(rows: ArrayLike, *, least: float = -math.inf, most: float = math.inf) -> Estimate | None:
    """The figure of [1 + draws] rows without the bias that noise gives it, and its interval.

    Noise makes a sum of squares, a distance and a maximum larger than they are, and every draw of prompts adds as much again:
    such draws lie beside the figure, and a percentile interval may not even hold it. What the draws add on average is taken
    off (Efron & Tibshirani 1993, 10.2), and the interval is the basic one, the draws mirrored at the figure; it holds what is
    told.

    Args:
        least, most: what such a figure can be at all.
    """
    found = estimate(rows)
    if found is None:
        return None
    drawn = np.asarray(rows, np.float64)[1:]
    told = (found.value - float(drawn[np.isfinite(drawn)].mean()), found.value - found.high, found.value - found.low)
    return Estimate(*(min(max(found.value + each, least), most) for each in told))


def stands_out(effects: ArrayLike, prompts: int) -> bool:
    """Whether any of [1 + draws, figures] effects is not 0, asked of all at once.

    One interval of so many excludes 0 by chance alone, and all of them share the noise of the base. So the largest effect, in
    standard errors, is held against the largest that draws give around their own figures (max-t, Westfall & Young 1993), at 95 %.
    Over few prompts standard errors are too small by chance: Student's t counts as the normal deviate that is as rare (Abramowitz
    & Stegun 26.7.8).

    Args:
        prompts: how many the effects are means over; one tells nothing.
    """
    rows = np.asarray(effects, np.float64)
    rows = rows[:, ~np.isnan(rows).any(0)]
    freedom = prompts - 1
    if freedom < 1:
        return False
    around = rows[1:] - rows[0]
    error = np.sqrt(np.square(around).mean(0))
    sure = error < 1e-12 * (1 + np.abs(rows[0]))
    if (np.abs(rows[0][sure]) > 1e-12).any():
        return True
    if sure.all():
        return False
    t = (np.abs(rows[0]) / np.where(sure, np.inf, error)).max() * math.sqrt(freedom / prompts)
    deviate = t * (1 - 1 / (4 * freedom)) / math.sqrt(1 + t * t / (2 * freedom))
    return bool(deviate > np.quantile(np.abs(around[:, ~sure] / error[~sure]).max(1), _SURE))


def ratio(above: ArrayLike, below: ArrayLike) -> Estimate | None:
    """The figure of `shares`; None where that is."""
    rows = shares(above, below)
    return None if rows is None else estimate(rows)


def shares(above: ArrayLike, below: ArrayLike) -> Numbers | None:
    """Row by row above / below, [1 + draws] each; None where the interval of `below` holds zero.

    A share of something that cannot be told from nothing is no figure. Where it can be told, at most 2.5 % of its draws are
    zero or have the other sign; these count as infinitely large or small, by the sign of `above`, and so lie beyond the
    interval, which is finite.
    """
    bottom = estimate(below)
    if bottom is None or bottom.low <= 0 <= bottom.high:
        return None
    sign = math.copysign(1.0, bottom.value)
    top, under = np.asarray(above, np.float64) * sign, np.asarray(below, np.float64) * sign
    beyond = np.where(top == 0, 0.0, np.copysign(np.inf, top))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(under > 0, top / under, np.where(np.isnan(under), np.nan, beyond))


def wilson(found: int, count: int) -> Estimate | None:
    """Share of `found` in `count` independent cases with its 95 % score interval (Wilson 1927); None of no cases.

    Raises:
        ValueError: more are found than there are, or fewer than none.
    """
    if not 0 <= found <= count:
        raise ValueError(f"{found} of {count} cases is no share")
    if count == 0:
        return None
    share, square = found / count, _WILSON_Z**2 / count
    middle = (share + square / 2) / (1 + square)
    half = _WILSON_Z / (1 + square) * math.sqrt(share * (1 - share) / count + square / (4 * count))
    # the ends of an empty and of a full share are exact; rounding would miss them by a bit
    return Estimate(share, 0.0 if found == 0 else middle - half, 1.0 if found == count else middle + half)


def ranks(rows: ArrayLike) -> Numbers:
    """Ranks from 1 along the last axis, ties sharing the mean of theirs; [..., figures] as given. Quadratic in figures."""
    given = np.asarray(rows, np.float64)
    left, right = given[..., :, None], given[..., None, :]
    found: Numbers = (left > right).sum(-1) + ((left == right).sum(-1) + 1) / 2
    return found


def spearman(steps: ArrayLike, rows: ArrayLike) -> Numbers:
    """Rank correlation (Spearman 1904) of some steps with what was found at each, in every draw.

    Args:
        steps: [figures], such as weights.
        rows: [1 + draws, figures].

    Returns:
        [1 + draws]; NaN where all steps, or all that was found, are equal, or something is missing.
    """
    found = np.asarray(rows, np.float64)
    one, other = ranks(steps), ranks(found)
    one, other = one - one.mean(), other - other.mean(-1, keepdims=True)
    with np.errstate(invalid="ignore"):
        made: Numbers = (other @ one) / np.sqrt((one @ one) * (other * other).sum(-1))
    return np.where(np.isnan(found).any(-1), np.nan, made)


def area_under_curve(
    positive: Sequence[float],
    negative: Sequence[float],
    *,
    groups: tuple[Sequence[int], Sequence[int]] | None = None,
    draws: int = _DRAWS,
    seed: int = 0,
) -> Estimate | None:
    """Chance that a positive case scores higher than a negative one, ties counting half: the area under the ROC curve.

    Args:
        positive: scores of the cases that should score high.
        negative: of those that should score low.
        groups: of every positive and of every negative case the number of its prompt, 0 and up: prompts are drawn, with all their
            cases. None draws the cases of either kind by themselves.
        draws: as of `Resampling`.
        seed: likewise.

    Returns:
        The area with its bootstrap interval; None where one kind has no case.

    Raises:
        ValueError: not one group a case.
    """
    high, low = np.asarray(positive, np.float64), np.asarray(negative, np.float64)
    if not high.size or not low.size:
        return None
    if groups is None:
        ups, downs = (Resampling(n.size, draws=draws, seed=seed + k).weights for k, n in enumerate((high, low)))
    else:
        places = [np.asarray(each, np.int64) for each in groups]
        if [each.shape for each in places] != [high.shape, low.shape]:
            raise ValueError("groups: one number for every positive and every negative case")
        prompts = Resampling(int(np.concatenate(places).max()) + 1, draws=draws, seed=seed).weights
        ups, downs = prompts[:, places[0]], prompts[:, places[1]]
    wins = (high[:, None] > low) + (high[:, None] == low) / 2
    with np.errstate(invalid="ignore"):
        return estimate(((ups @ wins) * downs).sum(1) / (ups.sum(1) * downs.sum(1)))

"""From "reading grade 7, about 60 words" to weights inside the policy that are expected to reach it."""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from soupmix.errors import RecipeError
from soupmix.policy import FeasibleSet, Grant, Policy, time_budget
from soupmix.policy.policy import Sources
from soupmix.surface.surface import Expectation, Surface, from_scale, to_scale
from soupmix.weights import MILLION, Weights

__all__ = ["Proposal", "Target", "ask"]

Numbers = NDArray[np.float64]
Loss = Callable[[Numbers], Numbers]
"""[points, places] weights -> [points]; infinite where nothing was measured."""

_REACHED = 0.05  # of a span: nearer than that counts as reached
_GENTLE = 1e-3  # squared spans a weight of 1 costs: of ways that do the same, the gentlest
_MIXED = 1.0  # squared spans that a weight of 1 of an opposite pole costs: it is there only if the policy requires it
_POINTS, _PATTERNS, _STARTS = 600, 128, 5
_MOST_MOVES = (
    15_000  # points that descents ask the policy about, all together: work, so that every machine answers alike
)
_SECONDS = 60.0  # of processor time: what a slow policy makes of that work
_STEPS = (0.16, 0.0025)  # of a weight: the first and the last
_LEAST_GAIN = 1e-9
_PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53)


@dataclass(frozen=True, slots=True)
class Target:
    """One measure that was asked for, and what came of it.

    Attributes:
        asked: the value. unit: of all these, "" for none. title: of the measure.
        expected: at the weights that were found.
        reached: whether that is within a twentieth of what adapters do to the measure.
        least, most: between these the expected value can be brought inside the policy, if nothing else is asked for.
    """

    asked: float
    unit: str
    title: str
    expected: Expectation
    reached: bool
    least: float
    most: float


@dataclass(frozen=True, slots=True)
class Proposal:
    """Weights for targets.

    Attributes:
        grant: what the policy grants of the weights that were found; they are inside it, in hundredths where it allows that.
        targets: by measure. surface: digest of the map.
        notes: what should be known besides, one sentence each.
    """

    grant: Grant
    targets: Mapping[str, Target]
    surface: str
    notes: tuple[str, ...]

    @property
    def weights(self) -> Weights:
        """The weights that were granted."""
        return self.grant.granted

    def to_dict(self) -> dict[str, Any]:
        """As JSON: weights as decimals, all numbers with six digits."""
        return {
            "weights": self.weights.decimals(),
            "targets": {name: _rounded(asdict(each)) for name, each in self.targets.items()},
            "notes": list(self.notes),
            "surface": self.surface,
            "policy": {"digest": self.grant.policy_digest, "open": self.grant.is_open},
        }


def ask(
    surface: Surface,
    policy: Policy,
    targets: Mapping[str, float],
    *,
    beside: Weights | None = None,
    attributes: Mapping[str, str] | None = None,
    sources: Sources | None = None,
) -> Proposal:
    """The weights inside a policy with the least expected squared error, in spans of each measure.

    Only adapters of the dimensions that are asked about get a weight, one of each, unless the policy requires more. No rule binds
    or refuses what is found.

    Args:
        surface: what soups are expected to do.
        policy: what may be mixed.
        targets: measure -> value, in the unit of the measure.
        beside: weights of adapters of other dimensions, which stay as near to these as the policy lets them.
        attributes: what the request says of itself, see `Policy.clamp`.
        sources: where the weights come from, likewise.

    Raises:
        RecipeError: nothing is asked for (reason "no-targets"), the map has no such measure ("unknown-measure"), a value is no
            number that it can have ("bad-target"), a weight is given of a dimension that is asked about ("two-ways"); and as
            `Policy.clamp` raises.
        EvaluationError: the policy or `beside` takes the soup to where nothing was measured (as `Surface.expect` raises).
        WeightError: `beside` names an adapter that the policy does not know (reason "unknown-adapter").
        PolicyRefusal: as `Policy.clamp` and `FeasibleSet` raise, or the search takes more than a minute of processor time
            ("too-slow").
    """
    said, where, fixed = dict(attributes or {}), sources or {}, beside or Weights()
    goals = _goals(surface, targets)
    asked = {surface.document.measures[name].dimension for name in goals}
    _check_beside(surface, fixed, asked)
    feasible = policy.feasible(sources=where, **said)
    names = [name for name, (_, most) in feasible.bounds().items() if most and surface.dimensions.get(name) in asked]
    with time_budget(_SECONDS):
        search = _Search(surface, feasible, tuple(names), fixed)
        grant = policy._grant(search.least(_error(surface, goals), _MOST_MOVES // 2), said, where)
        ends = {name: search.ends(name, _MOST_MOVES // (4 * len(goals))) for name in goals}
    expected = surface.expect(grant.granted)
    told = {name: _told(surface, name, targets[name], expected[name], ends[name]) for name in goals}
    cut = [f"the search was ended after {_MOST_MOVES} points: better weights, or farther ends, may exist"] * search.cut
    return Proposal(grant, told, surface.document.digest, (*_notes(surface, told, names), *cut))


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _goals(surface: Surface, targets: Mapping[str, float]) -> dict[str, float]:
    """Targets on the scales of their measures."""
    if not targets:
        raise RecipeError(f"nothing is asked for; ask for {_listed(surface)}", reason="no-targets")
    goals = {}
    for name, value in targets.items():
        if name not in surface.measures:
            raise RecipeError(
                f"the surface has no measure {str(name)[:80]!a}; it has {_listed(surface)}", reason="unknown-measure"
            )
        log = surface.document.measures[name].scale == "log"
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not abs(value) < 1e9
            or (log and value <= 0)
        ):
            raise RecipeError(
                f"{name} = {str(value)[:40]!a} cannot be reached by anything: give a {'positive ' * log}number",
                reason="bad-target",
            )
        goals[name] = math.log(value) if log else float(value)
    return goals


def _listed(surface: Surface) -> str:
    return ", ".join(surface.measures) or "nothing: it knows no adapter of the dimensions it measures"


def _check_beside(surface: Surface, beside: Weights, asked: Collection[str]) -> None:
    for name in beside:
        if surface.dimensions.get(name) in asked:
            raise RecipeError(
                f"the weight of {name!r} is given, and its dimension {surface.dimensions[name]!r} is asked about; say one",
                reason="two-ways",
            )


def _error(surface: Surface, goals: Mapping[str, float]) -> Loss:
    """Expected squared error, in spans."""

    def loss(points: Numbers) -> Numbers:
        total: Numbers = _GENTLE * np.abs(points).sum(1)
        for name, goal in goals.items():
            off = np.square(surface.mean(name, points) - goal) + surface.variance(name, points)
            total = total + off / surface.document.measures[name].span ** 2
        return total

    return loss


class _Search:
    """The least of a loss over the soups of a feasible set that some adapters are free to change.

    Attributes:
        cut: whether a descent was ended before it had tried all that might be better.
    """

    def __init__(self, surface: Surface, feasible: FeasibleSet, names: Sequence[str], beside: Weights) -> None:
        self._surface, self._feasible, self._names, self._beside = surface, feasible, tuple(names), beside
        self._places = [surface.names.index(name) for name in names]
        bounds, measured = feasible.bounds(), surface.document.most
        most = [min(bounds[n][1], measured[k]) / MILLION for n, k in zip(names, self._places, strict=True)]
        self._required = np.zeros(len(surface.names))
        self._required[self._places] = [bounds[name][0] / MILLION for name in names]
        spread = _spread(np.array(most), [surface.dimensions[name] for name in names])
        self._starts = list(dict.fromkeys(self._nearest(free) for free in spread))
        self._points = np.array([surface.point(each) for each in self._starts])
        self.cut = False

    def least(self, loss: Loss, moves: int) -> Weights:
        """Where it is least, as far as descent from many points finds it; in hundredths if that costs next to nothing.

        Args:
            moves: at most so many points are asked about.
        """

        def worth(points: Numbers) -> Numbers:
            return np.where(self._surface.measured(points), loss(points) + _MIXED * self._mixed(points), np.inf)

        first = np.argsort(worth(self._points), kind="stable")[:_STARTS]
        ends = [self._descended(worth, self._starts[place], moves // len(first)) for place in first]
        value, found = min(ends, key=lambda end: end[0])
        rounded = self._nearest(np.round(self._free(found), 2))
        return rounded if worth(self._surface.point(rounded)[None])[0] <= value + _GENTLE else found

    def ends(self, name: str, moves: int) -> tuple[float, float]:
        """Between which values, on its scale, the expected value of a measure can be brought; `moves` as of `least`, for each."""
        lowest, highest = (self.least(partial(self._signed, name, sign), moves) for sign in (1.0, -1.0))
        low, high = (float(self._surface.mean(name, self._surface.point(each)[None])[0]) for each in (lowest, highest))
        return low, high

    def _mixed(self, points: Numbers) -> Numbers:
        """[points] how much of a second adapter of a dimension there is: opposite poles are not measured together."""
        found = np.zeros(len(points))
        for dimension in {self._surface.dimensions[name] for name in self._names}:
            own = [
                k for n, k in zip(self._names, self._places, strict=True) if self._surface.dimensions[n] == dimension
            ]
            weights = np.abs(points[:, own] - self._required[own])
            found += weights.sum(1) - weights.max(1)
        return found

    def _signed(self, name: str, sign: float, points: Numbers) -> Numbers:
        return sign * self._surface.mean(name, points) / self._surface.document.measures[name].span

    def _nearest(self, free: Numbers) -> Weights:
        """The nearest soup inside to these weights of the free adapters and those beside."""
        micro = {name: round(float(value) * MILLION) for name, value in zip(self._names, free, strict=True)}
        return self._feasible.nearest(Weights.from_micro({**self._beside, **micro}))

    def _free(self, weights: Weights) -> Numbers:
        return np.array(weights.along(self._names)) / MILLION

    def _descended(self, worth: Loss, weights: Weights, moves: int) -> tuple[float, Weights]:
        """The least loss near and where it is, by compass search: smaller and smaller steps along one weight or two."""
        value, step = float(worth(self._surface.point(weights)[None])[0]), _STEPS[0]
        directions = _directions(len(self._names))
        while step >= _STEPS[1]:
            free = self._free(weights) + step * directions
            points = np.repeat(self._surface.point(weights)[None], len(free), axis=0)
            points[:, self._places] = free
            guessed = worth(points)  # before the policy is asked: only what may be better is
            order = [place for place in np.argsort(guessed, kind="stable") if guessed[place] < value - _LEAST_GAIN]
            if len(order) > moves:
                self.cut = True
                order = order[:moves]
            for moved in map(self._nearest, free[order]):
                moves -= 1
                reached = float(worth(self._surface.point(moved)[None])[0])
                if reached < value - _LEAST_GAIN:
                    value, weights = reached, moved
                    break
            else:
                step /= 2
        return value, weights


def _directions(count: int) -> Numbers:
    """[directions, free] all that change one weight, or two by the same amount, up or down."""
    axes = np.eye(count)
    pairs = [axes[a] + sign * axes[b] for a in range(count) for b in range(a) for sign in (1.0, -1.0)]
    ahead = np.concatenate([axes, np.array(pairs).reshape(len(pairs), count)])
    return np.concatenate([ahead, -ahead])


def _spread(most: Numbers, dimensions: Sequence[str]) -> Numbers:
    """[points, free] an even spread of weights from 0 to the most, in each point at most one adapter of a dimension.

    The spread is additive recurrences of irrational numbers (Kronecker's), the corners are among it.
    """
    if not dimensions:
        return np.zeros((1, 0))
    places: dict[str, list[int]] = {}
    for index, dimension in enumerate(dimensions):
        places.setdefault(dimension, []).append(index)
    chosen = list(islice(product(*([None, *each] for each in places.values())), _PATTERNS))
    patterns = np.array([[index in each for index in range(len(dimensions))] for each in chosen])  # [patterns, free]
    steps = np.arange(1, 1 + max(_POINTS // len(patterns), 1))
    roots = np.sqrt(np.resize(_PRIMES, len(dimensions)))
    even = np.concatenate([np.mod(steps[:, None] * roots, 1.0), np.ones((1, len(dimensions)))])  # [steps + 1, free]
    found: Numbers = (patterns[:, None, :] * even[None] * most).reshape(-1, len(dimensions))
    return np.unique(found, axis=0)


def _told(surface: Surface, name: str, asked: float, expected: Expectation, ends: tuple[float, float]) -> Target:
    measure = surface.document.measures[name]
    low, high = (from_scale(measure, end) for end in ends)
    gap = abs(to_scale(measure, expected.value) - to_scale(measure, asked))
    return Target(float(asked), measure.unit, measure.title, expected, gap <= _REACHED * measure.span, low, high)


def _notes(surface: Surface, told: Mapping[str, Target], names: Sequence[str]) -> Iterator[str]:
    for name, each in told.items():
        if each.reached:
            continue
        low, high, nearest = (f"{value:.3g}" for value in (each.least, each.most, each.expected.value))
        alone = each.least <= each.asked <= each.most
        why = "together with the rest of what is asked" if alone else f"inside this policy it goes from {low} to {high}"
        yield f"{name} = {each.asked:g} cannot be reached: {why}; the nearest is {nearest}"
    for dimension in sorted({surface.document.measures[name].dimension for name in told}):
        if not any(surface.dimensions[name] == dimension for name in names):
            yield f"the policy lets no adapter of {dimension!r} through that was measured"
        if unmeasured := [name for name, each in surface.unknown.items() if each == dimension]:
            yield f"no soup with {', '.join(unmeasured)} was measured: no weight for that"

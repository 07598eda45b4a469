"""Pareto fronts: how far a family of arms gets in several dimensions at once, and by how much one family gets further.

Points are arms, their coordinates the index (`soupmix.evaluate.index`) towards the poles of a corner, one pole of every
dimension; the bare base is the origin. To a corner belong the arms that ask for no other poles than its own, and those that ask
for nobody's preferences, such as the uniform soup. What a family reaches in a corner is its hypervolume (Zitzler & Thiele 1999):
the volume of all that some arm of it is beyond in every dimension, exactly (Guerreiro & Fonseca 2017, in moocore). Every corner
has its own orthant, so volumes of different corners do not meet; that of the family is their mean.

The best of many noisy arms looks better than it is, so the hypervolume is corrected for that (`statistics.corrected`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from soupmix.evaluate.decides import DAMAGE
from soupmix.evaluate.families import asked_of, family_of
from soupmix.evaluate.index import Index
from soupmix.evaluate.measures.measure import missing_library
from soupmix.evaluate.record import EvaluationRecord
from soupmix.evaluate.soups import Arm
from soupmix.evaluate.statistics import corrected, estimate

__all__ = ["fronts", "hypervolumes"]

Numbers = NDArray[np.float64]

_DRAWS = 400  # of those of the report: a hypervolume each
_MOST_DIMENSIONS = 4
_HARM = 0.1  # less on topic, or more in circles, than the base: such an arm reaches nothing that is worth it


@dataclass(frozen=True, slots=True)
class _Family:
    """Arms of one family -> the poles that each asks for."""

    arms: Mapping[str, Mapping[str, str]]

    def at(self, corner: Mapping[str, str]) -> list[str]:
        """Those that ask for no other poles than these."""
        return [
            name
            for name, asks in self.arms.items()
            if all(corner.get(dimension) == pole for dimension, pole in asks.items())
        ]


def fronts(record: EvaluationRecord, index: Index) -> dict[str, Any]:
    """The points and fronts at one temperature, with `Estimate`s for figures.

    Returns:
        {"poles": dimension -> poles, "units", "points": arm -> {"family", "asks", "toward": first pole of a dimension -> figure},
        "reached": [{"dimensions", "family", "arms", "hypervolume", "harmless", "front": corner -> arms, "damage"}]}.
        "harmless" is the hypervolume without arms that are .1 less on topic or loop .1 more often than the base; "damage" is
        the mean over the arms of the front.

    Raises:
        EvaluationError: moocore is not installed (reason "no-library").
    """
    arms = {each.name: each for each in record.all_arms() if each.name in index.answered.arms}
    rows = {name: index.rows(name)[: 1 + _DRAWS] for name in arms}
    return {
        "poles": {dimension: list(poles) for dimension, poles in index.poles.items()},
        "units": {dimension: {name: abs(unit) for name, unit in own.items()} for dimension, own in index.units.items()},
        "points": {name: _point(arm, record, index) for name, arm in arms.items()},
        "reached": list(_reached(record, index, arms, rows)),
    }


def _point(arm: Arm, record: EvaluationRecord, index: Index) -> dict[str, Any]:
    rows = index.rows(arm.name)
    toward = {poles[0]: estimate(rows[:, place]) for place, poles in enumerate(index.poles.values())}
    return {"family": family_of(arm, record), "asks": dict(asked_of(arm, record)), "toward": toward}


def _reached(
    record: EvaluationRecord, index: Index, arms: Mapping[str, Arm], rows: Mapping[str, Numbers]
) -> Iterator[dict[str, Any]]:
    found: dict[str, dict[str, Mapping[str, str]]] = {}
    for name, arm in arms.items():
        if name != index.answered.base:
            found.setdefault(family_of(arm, record), {})[name] = asked_of(arm, record)
    families = {name: _Family(own) for name, own in found.items()}
    harmful = {name for name in arms if _harms(index, name)}
    names = list(index.poles)[:_MOST_DIMENSIONS]
    sizes = [2] if len(names) <= 2 else [2, len(names)]
    for chosen in (each for size in sizes for each in combinations(names, size)):
        for name, family in families.items():
            made = _of_family(index, family, chosen, rows, harmful)
            if made["arms"]:  # who was not asked has not failed
                yield {"dimensions": list(chosen), "family": name, **made}


def _of_family(
    index: Index, family: _Family, dimensions: Sequence[str], rows: Mapping[str, Numbers], harmful: set[str]
) -> dict[str, Any]:
    volumes, harmless, front, seen = [], [], {}, set()
    for poles in product(*(index.poles[each] for each in dimensions)):
        corner = dict(zip(dimensions, poles, strict=True))
        own = family.at(corner)
        seen |= {*own}
        points = _toward(index, own, corner, rows)
        volumes.append(hypervolumes(points))
        safe = [place for place, name in enumerate(own) if name not in harmful]
        harmless.append(volumes[-1] if len(safe) == len(own) else hypervolumes(points[:, safe]))
        front["+".join(poles)] = [own[place] for place in _nondominated(points[0])] if own else []
    best = sorted({name for own in front.values() for name in own})
    return {
        "arms": len(seen),
        "hypervolume": corrected(np.mean(volumes, axis=0), least=0.0),
        "harmless": corrected(np.mean(harmless, axis=0), least=0.0),
        "front": front,
        "damage": {
            name: _mean_effect(index, name, best) for name in DAMAGE if name in index.answered.measures and best
        },
    }


def _toward(index: Index, arms: Sequence[str], corner: Mapping[str, str], rows: Mapping[str, Numbers]) -> Numbers:
    """[1 + draws, arms, dimensions], more being more of the poles of a corner."""
    names = list(index.poles)
    places = [names.index(each) for each in corner]
    signs = np.array([index.toward(dimension, pole) for dimension, pole in corner.items()])
    drawn = len(rows[index.answered.base])
    found = [rows[name][:, places] * signs for name in arms] or [np.zeros((drawn, len(places)))]
    points: Numbers = np.nan_to_num(np.stack(found, axis=1))
    return points


def hypervolumes(points: Numbers) -> Numbers:
    """Volume of what the points dominate above the origin, more being better; [draws, points, dimensions] to [draws].

    Raises:
        EvaluationError: moocore is not installed (reason "no-library").
    """
    try:
        from moocore import Hypervolume
    except ImportError as error:
        raise missing_library("the hypervolume of a front", "moocore") from error
    found = np.zeros(len(points))
    if not points.size:
        return found
    volume = Hypervolume(ref=np.zeros(points.shape[2]), maximise=True)
    for draw, own in enumerate(points):
        beyond = own[(own > 0).all(1)]
        if len(beyond):
            found[draw] = volume(beyond)
    return found


def _nondominated(points: Numbers) -> list[int]:
    """Places of [points, dimensions] that lie beyond the origin and that no other is beyond; of equal ones the first."""
    inside = [place for place in range(len(points)) if (points[place] > 0).all()]
    return [
        place
        for place in inside
        if not any(
            (points[other] >= points[place]).all() and ((points[other] > points[place]).any() or other < place)
            for other in inside
            if other != place
        )
    ]


def _harms(index: Index, arm: str) -> bool:
    differences = index.answered.differences(arm)
    if differences is None:
        return False
    measures = index.answered.measures
    return any(
        better * float(np.nanmean(differences[:, measures.index(name)])) < -_HARM
        for name, better in DAMAGE.items()
        if name in measures
    )


def _mean_effect(index: Index, measure: str, arms: Sequence[str]) -> Any:
    place = index.answered.measures.index(measure)
    cells = [found[:, place] for name in arms if (found := index.answered.differences(name)) is not None]
    return index.answered.draws.mean(np.mean(cells, axis=0))

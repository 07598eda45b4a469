"""The dual active-set method of Goldfarb and Idnani (1983) in float64: which sides are active, to be solved exactly."""

from collections.abc import Sequence

import numpy as np

from soupmix.projection.constraints import Side
from soupmix.projection.quadratic import Quadratic
from soupmix.projection.time_budget import check_time

__all__ = ["active_in_floats"]

_TOLERANCE = 1e-9
"""Of quantities of order 1: weights count as units here, normals and the matrix are scaled."""


def active_in_floats(target: Quadratic, sides: Sequence[Side]) -> tuple[list[int], list[float]] | None:
    """Indices of the sides that hold the minimum, in the order found, and about their multipliers, in millionths, none
    negative; None if floats do not get there.
    """
    size = len(target.pull)
    if not size:
        return [], []
    normals, bounds = np.zeros((len(sides), size)), np.array([side.bound / 1e6 for side in sides])
    for index, side in enumerate(sides):
        for coordinate, coef in side.normal:
            normals[index, coordinate] = coef
    scale = np.linalg.norm(normals, axis=1)
    normals, bounds = normals / scale[:, None], bounds / scale
    matrix = np.eye(size) if target.matrix is None else np.array([[float(a) for a in row] for row in target.matrix])
    pull = np.array([float(value) for value in target.pull]) / 1e6
    largest = np.abs(matrix).max()
    try:
        lifted = np.linalg.solve(matrix / largest, normals.T).T  # [sides, coordinates]
        weights = np.linalg.solve(matrix / largest, pull / largest)
    except np.linalg.LinAlgError:
        return None
    found = _walk(weights, normals, bounds, lifted)
    if found is None:
        return None
    active, multipliers = found
    return active, np.maximum(multipliers * 1e6 / scale[active], 0).tolist()


def _walk(
    weights: np.ndarray, normals: np.ndarray, bounds: np.ndarray, lifted: np.ndarray
) -> tuple[list[int], np.ndarray] | None:
    active: list[int] = []
    multipliers = np.zeros(0)
    if not len(bounds):
        return active, multipliers
    for _ in range(10 * len(bounds) + 50):
        check_time()
        slack = normals @ weights - bounds
        slack[active] = 0
        new = int(slack.argmin())
        if slack[new] >= -_TOLERANCE:
            return active, multipliers
        moved = _step(new, weights, normals, bounds, lifted, active, multipliers)
        if moved is None:
            return None
        weights, active, multipliers = moved
    return None


def _step(
    new: int,
    weights: np.ndarray,
    normals: np.ndarray,
    bounds: np.ndarray,
    lifted: np.ndarray,
    active: list[int],
    multipliers: np.ndarray,
) -> tuple[np.ndarray, list[int], np.ndarray] | None:
    """Meet side `new`, dropping sides whose multiplier would turn negative; None if that is not possible."""
    mine = 0.0
    while True:
        products = normals[active] @ lifted[active].T
        pull = np.linalg.lstsq(products, normals[active] @ lifted[new], rcond=None)[0]
        step = lifted[new] - lifted[active].T @ pull
        gain = float(normals[new] @ step)
        drops = [(multipliers[i] / pull[i], i) for i in range(len(active)) if pull[i] > 1e-12]
        blocked = min(drops, default=None)
        full = (
            None if gain < 1e-10 * float(normals[new] @ lifted[new]) else (bounds[new] - normals[new] @ weights) / gain
        )
        if blocked is None and full is None:
            return None
        if full is not None and (blocked is None or full <= blocked[0]):
            return weights + full * step, [*active, new], np.append(multipliers - full * pull, mine + full)
        length, place = blocked if blocked is not None else (0.0, 0)
        multipliers = np.delete(multipliers - length * pull, place)
        mine += length
        weights = weights if full is None else weights + length * step
        active = active[:place] + active[place + 1 :]

"""Oracles that try everything, in rationals, and small problems on which that can be done."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from hypothesis import strategies as st

from soupmix.projection.constraints import Constraint, Row, gather
from soupmix.projection.solution import Exact

Half = tuple[tuple[int, ...], int]  # coefs, bound: coefs . w <= bound


@dataclass(frozen=True)
class Label:
    """All that geometry knows of a rule."""

    key: tuple[int]
    is_default: bool = False

    def __str__(self) -> str:
        return f"r{self.key[0]}"


def rule(index: int) -> Label:
    return Label((index,))


def rows_of(halves: Sequence[Half]) -> tuple[Row, ...]:
    return gather(Constraint(coefs, bound, rule(index), "") for index, (coefs, bound) in enumerate(halves))


def solve(matrix: list[list[Fraction]], right: list[Fraction]) -> list[Fraction] | None:
    table = [[*row, value] for row, value in zip(matrix, right, strict=True)]
    for column in range(len(table)):
        pivot = next((row for row in range(column, len(table)) if table[row][column]), None)
        if pivot is None:
            return None
        table[column], table[pivot] = table[pivot], table[column]
        for row in range(len(table)):
            if row != column:
                factor = table[row][column] / table[column][column]
                table[row] = [a - factor * b for a, b in zip(table[row], table[column], strict=True)]
    return [row[-1] / row[index] for index, row in enumerate(table)]


def projection(asked: Sequence[int], halves: Sequence[Half]) -> list[Fraction] | None:
    """Try every set of active half-spaces; the projection is the one feasible point with multipliers >= 0."""
    for size in range(len(asked) + 1):
        for active in itertools.combinations(halves, size):
            gram = [[Fraction(sum(a * b for a, b in zip(i, j, strict=True))) for j, _ in active] for i, _ in active]
            gap = [Fraction(sum(c * v for c, v in zip(coefs, asked, strict=True)) - bound) for coefs, bound in active]
            multipliers = solve(gram, gap)
            if multipliers is None or min(multipliers, default=0) < 0:
                continue
            point = [
                v - sum((m * coefs[k] for m, (coefs, _) in zip(multipliers, active, strict=True)), Fraction(0))
                for k, v in enumerate(asked)
            ]
            if is_inside(halves, point):
                return point
    return None


def vertices(halves: Sequence[Half], size: int) -> set[tuple[Fraction, ...]]:
    """Every point of the set where as many independent half-spaces as there are coordinates are met with equality."""
    found = set()
    for active in itertools.combinations(halves, size):
        point = solve([list(map(Fraction, coefs)) for coefs, _ in active], [Fraction(bound) for _, bound in active])
        if point is not None and is_inside(halves, point):
            found.add(tuple(point))
    return found


def is_inside(halves: Sequence[Half], w: Sequence[Exact]) -> bool:
    return all(sum(c * x for c, x in zip(coefs, w, strict=True)) <= b for coefs, b in halves)


def halves(adapters: int, groups: st.SearchStrategy[list[list[int]]]) -> st.SearchStrategy[list[Half]]:
    """A box of small integers and two-sided sums over groups; small numbers make ties and degenerate corners common."""

    @st.composite
    def build(draw: st.DrawFn) -> list[Half]:
        found: list[Half] = []
        for group in [[k] for k in range(adapters)] + draw(groups):
            up = tuple(int(k in group) for k in range(adapters))
            low, high = draw(st.integers(0, 4)), draw(st.integers(3, 12))
            found.append((up, high))
            if len(group) == 1 or draw(st.booleans()):
                found.append((tuple(-c for c in up), -low))
        return found

    return build()


LAMINAR = {
    2: [[[0, 1]]],
    3: [[[0, 1]], [[0, 1, 2]], [[0, 1], [0, 1, 2]], [[0, 1], [0, 1]]],
    4: [[[0, 1], [2, 3]], [[0, 1], [2, 3], [0, 1, 2, 3]], [[0, 1], [0, 1, 2], [0, 1, 2, 3]]],
}
CROSSING = {
    2: [[[0, 1], [0, 1]]],
    3: [[[0, 1], [1, 2]], [[0, 1], [1, 2], [0, 2]]],
    4: [[[0, 1], [1, 2], [2, 3]], [[0, 1, 2], [1, 2, 3]], [[0, 1], [0, 2], [0, 3]]],
}


def problems(
    shapes: dict[int, list[list[list[int]]]], sizes: Sequence[int]
) -> st.SearchStrategy[tuple[list[int], list[Half]]]:
    return st.sampled_from(list(sizes)).flatmap(
        lambda k: st.tuples(
            st.lists(st.integers(-6, 16), min_size=k, max_size=k), halves(k, st.sampled_from(shapes[k]))
        )
    )


def nearest_neighbour(weights: Sequence[Exact], rows: Sequence[Row]) -> tuple[int, ...] | None:
    """By trying all roundings: nearest, then smallest total, then the one that rounds up what comes first."""
    choices = [sorted({w.__floor__(), w.__ceil__()}) for w in weights]
    inside = [point for point in itertools.product(*choices) if all(row.holds(row.value(point)) for row in rows)]
    key = lambda p: (sum((a - b) ** 2 for a, b in zip(p, weights, strict=True)), sum(p), [-x for x in p])  # noqa: E731
    return min(inside, key=key, default=None)

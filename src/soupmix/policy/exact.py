"""Linear systems over the integers, solved without rounding."""

from collections.abc import Sequence
from fractions import Fraction

__all__ = ["inverse", "solve"]


def solve(matrix: Sequence[Sequence[int]], right: Sequence[int]) -> list[Fraction] | None:
    """The solution of a square system, or None if the matrix is singular.

    Bareiss (1968): elimination in which every division comes out even, so no fraction is formed before the end.
    """
    table = [[*row, value] for row, value in zip(matrix, right, strict=True)]
    if not _eliminate(table):
        return None
    found: list[Fraction] = [Fraction(0)] * len(table)
    for index in range(len(table) - 1, -1, -1):
        row = table[index]
        known = sum((row[j] * found[j] for j in range(index + 1, len(table)) if row[j]), start=Fraction(0))
        found[index] = (row[-1] - known) / row[index]
    return found


def inverse(matrix: Sequence[Sequence[int]]) -> list[list[Fraction]] | None:
    """The inverse of a square matrix, or None if it is singular."""
    size = range(len(matrix))
    columns = [solve(matrix, [int(row == column) for row in size]) for column in size]
    if any(column is None for column in columns):
        return None
    return [[column[row] for column in columns if column is not None] for row in size]


def _eliminate(table: list[list[int]]) -> bool:
    """Bring a square system with its right-hand side into upper triangular form; False if it is singular."""
    before, size = 1, len(table)
    for step in range(size):
        pivot = next((row for row in range(step, size) if table[row][step]), None)
        if pivot is None:
            return False
        table[step], table[pivot] = table[pivot], table[step]
        top = table[step]
        head = top[step]
        for row in table[step + 1 :]:
            factor = row[step]
            row[step + 1 :] = [
                (head * a - factor * b) // before for a, b in zip(row[step + 1 :], top[step + 1 :], strict=True)
            ]
            row[step] = 0
        before = head
    return True

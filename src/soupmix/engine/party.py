"""The people of one batch: their weights, and for every row whose line of them counts."""

import torch
from torch import Tensor

from soupmix_kernels import Coefficients, Pool, Seats

__all__ = ["METHODS", "Party"]

METHODS = ("delta", "factor")


class Party:
    """A table of weights and who of it sits in which row; whatever layers ask of it is made once and kept.

    Args:
        weights: [people, K] fp32. A line without weights is nobody's: the kernels leave its rows alone, bit for bit.
        people: line of the table for every row [rows], int64; by default everybody has one row.
        kept: rows of which logits are asked [kept], if only some are: the head sees those alone.
        method: "delta" or "factor".
    """

    def __init__(
        self, weights: Tensor, people: Tensor | None = None, *, kept: Tensor | None = None, method: str = "delta"
    ) -> None:
        self.method = method
        served = (weights != 0).any(1)
        self.anybody = bool(served.any())
        everyone = torch.arange(len(weights), dtype=torch.int32, device=weights.device)
        lines = torch.where(served, everyone, -1)
        self._weights = weights
        self._rows = lines if people is None else lines[people]
        self._kept = self._rows if kept is None else self._rows[kept]
        self._coefficients: dict[int, Coefficients] = {}
        self._seats: dict[tuple[int, int], Seats] = {}

    def subset(self, rows: Tensor) -> "Party":
        """These rows only, in this order (indices [kept]), where everybody has one row."""
        return Party(self._weights[rows], method=self.method)

    def seats(self, key: int, pool: Pool, rows: int, bounds: tuple[Tensor, Tensor]) -> Seats:
        """The people over the columns of a pool, for a product of so many rows; pools of one `key` share them.

        A batch may be given several tokens per row, [rows * tokens]. bounds: least and most of every weight [K].
        """
        if (key, rows) not in self._seats:
            if key not in self._coefficients:
                self._coefficients[key] = pool.coefficients(
                    self._weights, *bounds, "factor" if self.method == "factor" else "delta"
                )
            # fewer rows than sit here: those of which logits are asked
            people = self._rows if rows >= len(self._rows) else self._kept
            self._seats[key, rows] = Seats(self._coefficients[key], people.repeat_interleave(rows // len(people)))
        return self._seats[key, rows]

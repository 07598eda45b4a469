"""Who sits in which row of the running batch: the only state that soup layers read."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from soupmix.engine.bank import Bank
from soupmix.errors import RecipeError
from soupmix.weights import MILLION
from soupmix_kernels import Coefficients, Pool, Seats

__all__ = ["METHODS", "Rows"]

METHODS = ("delta", "factor")


class Rows:
    """The people of the running batch: a table of weights [rows, K], and for every row whose line of it counts.

    Outside of `serving` there is nobody, and every layer is the bare base. One batch is served at a time; threads wait.
    `seating` is another object whenever somebody else may sit in a row.
    """

    def __init__(self, bank: Bank, device: torch.device) -> None:
        bounds = torch.tensor(bank.bounds, dtype=torch.float64).view(-1, 2).T / MILLION
        self._lo, self._hi = bounds.float().to(device)
        self._one_batch = threading.Lock()
        self._keys: dict[object, int] = {}
        self._leave()

    def _leave(self) -> None:
        self.seating = object()
        self._weights: Tensor | None = None
        self._method = "delta"
        self._people: Tensor | None = None
        self._coefficients: dict[int, Coefficients] = {}
        self._seats: dict[tuple[int, int], Seats] = {}

    @property
    def method(self) -> str:
        """How the adapters of a row are merged: "delta" or "factor"."""
        return self._method

    @property
    def anybody(self) -> bool:
        """Whether any row has a soup."""
        return self._weights is not None

    @contextmanager
    def serving(self, weights: Tensor, method: str = "delta") -> Iterator[None]:
        """Serve these rows: weights [rows, K] fp32. Whatever happens inside, nobody is left behind."""
        if method not in METHODS:
            raise RecipeError(f"method '{method}' is not known; choose one of {', '.join(METHODS)}", reason="method")
        with self._one_batch:
            self._method = method
            self._seat(weights)
            try:
                yield
            finally:
                self._leave()

    def _seat(self, weights: Tensor) -> None:
        """A row without weights is nobody's: the kernels leave it alone, bit for bit."""
        self.seating = object()
        served = (weights != 0).any(1)
        everyone = torch.arange(len(weights), dtype=torch.int32, device=weights.device)
        self._weights = weights if bool(served.any()) else None
        self._people = torch.where(served, everyone, -1)
        self._coefficients, self._seats = {}, {}

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows only, in this order (indices [kept])."""
        if self._weights is not None:
            self._seat(self._weights[rows])

    def key(self, pool: Pool) -> int:
        """One number for all pools whose columns are those of the same adapters with the same scaling."""
        return self._keys.setdefault((tuple(pool.columns.tolist()), tuple(pool.scale.tolist())), len(self._keys))

    def seats(self, key: int, pool: Pool, tokens: int) -> Seats:
        """The batch's people over the columns of a pool, in rows of this many tokens each; pools of one `key` share them.

        Must not be called when there is nobody.
        """
        if (key, tokens) not in self._seats:
            if self._weights is None or self._people is None:
                raise RuntimeError("nobody is served")
            if key not in self._coefficients:
                self._coefficients[key] = pool.coefficients(
                    self._weights, self._lo, self._hi, "factor" if self._method == "factor" else "delta"
                )
            self._seats[key, tokens] = Seats(self._coefficients[key], self._people.repeat_interleave(tokens))
        return self._seats[key, tokens]

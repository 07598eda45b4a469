"""Who sits in which row of the running batch: the only state that soup layers read."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from soupmix.engine.bank import Bank
from soupmix.engine.party import Party
from soupmix.weights import MILLION
from soupmix_kernels import Pool, Seats

__all__ = ["Rows"]

_NOBODY = Party(torch.zeros(0, 0))


class Rows:
    """The party that a model serves now, and the bounds that hold for everybody.

    Outside of `serving` and `hosting` there is nobody, and every layer is the bare base. One batch is served at a time;
    threads wait. `seating` is another object whenever somebody else may sit in a row.
    """

    def __init__(self, bank: Bank, device: torch.device) -> None:
        most = (torch.tensor(bank.most, dtype=torch.float64) / MILLION).float().to(device)
        self._bounds = torch.zeros_like(most), most  # from zero: the last line takes away, and gives nothing
        self._one_batch = threading.Lock()
        self._keys: dict[object, int] = {}
        self._leave()

    def _leave(self) -> None:
        self.seating = object()
        self._party = _NOBODY

    @property
    def method(self) -> str:
        """How the adapters of a row are merged: "delta" or "factor"."""
        return self._party.method

    @property
    def anybody(self) -> bool:
        """Whether any row has a soup."""
        return self._party.anybody

    @contextmanager
    def hosting(self, party: Party) -> Iterator[None]:
        """Serve a party. Whatever happens inside, nobody is left behind."""
        with self._one_batch:
            self.seating, self._party = object(), party
            try:
                yield
            finally:
                self._leave()

    @contextmanager
    def serving(self, weights: Tensor, method: str = "delta") -> Iterator[None]:
        """Serve these rows: weights [rows, K] fp32."""
        with self.hosting(Party(weights, method=method)):
            yield

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows only, in this order (indices [kept])."""
        self.seating, self._party = object(), self._party.subset(rows)

    def key(self, pool: Pool) -> int:
        """One number for all pools whose columns are those of the same adapters with the same scaling."""
        return self._keys.setdefault((tuple(pool.columns.tolist()), tuple(pool.scale.tolist())), len(self._keys))

    def seats(self, key: int, pool: Pool, rows: int) -> Seats:
        """The served people over the columns of a pool, for a product of so many rows; not for nobody."""
        return self._party.seats(key, pool, rows, self._bounds)

"""Rows that are decoded in step, each with its own soup, in as few padded batches as their model allows."""

from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor

from soupmix.engine.computing import Soups
from soupmix.engine.decode import KeptRows
from soupmix.engine.engine import Engine
from soupmix.engine.rows import BatchWeights
from soupmix.methods import DEFAULT

__all__ = ["Lockstep", "kept_rows"]


def kept_rows(
    engine: Engine, given: Sequence[Sequence[int]], weights: Tensor, more: int, method: str = DEFAULT
) -> KeptRows:
    """Rows of one batch, each with its own soup, computed by compiled steps where the engine has them.

    Made before `engine.batch.serving` of their weights, asked inside it; what is kept is said to `engine.batch.keep` too.

    Args:
        given: token ids of every row's prompt; of one length each where `Engine.together` asks for it.
        weights: of every row [rows, K] fp32, as `Engine.weights` gives them.
        more: most tokens of a row beyond its prompt. method: as in `Engine.complete`.
    """
    return engine._computing.rows(given, Soups.everywhere(weights, method), more)


class Lockstep:
    """As one batch over all rows, also where a model computes rows rightly only if they are of one length, or alone.

    Args:
        given: token ids of every row's prompt.
        weights: of every row [rows, K] fp32, as `Engine.weights` gives them. more: most tokens of an answer.
        method: as in `Engine.complete`.
    """

    def __init__(self, engine: Engine, given: Sequence[Sequence[int]], weights: Tensor, more: int, method: str) -> None:
        self._parts = [_Part(engine, given, weights, more, method, rows) for rows in _together(engine, given)]
        self._order()

    def logits(self) -> Tensor:
        """Logits behind what every row has [rows, vocabulary]."""
        found = [each.logits() for each in self._parts]
        return found[0] if len(found) == 1 else torch.cat(found)[self._places]

    def add(self, tokens: Tensor, live: Tensor) -> None:
        """Go on with one more token in every row, [rows] int64; see `PaddedBatch.add`."""
        for part in self._parts:
            rows = torch.tensor(part.rows, device=tokens.device)
            part.batch.add(tokens[rows], live[rows])

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows only, in this order; a row that comes twice goes on as two."""
        for part in self._parts:
            at = {row: place for place, row in enumerate(part.rows)}
            mine = [new for new, row in enumerate(rows) if row in at]
            if mine:
                part.keep([at[rows[new]] for new in mine])
            part.rows = mine
        self._parts = [part for part in self._parts if part.rows]
        self._order()

    def _order(self) -> None:
        """Where each row's logits lie among those of all parts."""
        placed = [row for part in self._parts for row in part.rows]
        self._places = torch.tensor(placed, dtype=torch.int64).argsort()


class _Part:
    """Rows that share a batch, by their numbers among all rows, in rising order."""

    def __init__(
        self, engine: Engine, given: Sequence[Sequence[int]], weights: Tensor, more: int, method: str, rows: list[int]
    ) -> None:
        self.rows = rows
        self.batch = kept_rows(engine, [given[row] for row in rows], weights[rows], more, method)
        self._engine, self._weights = engine, BatchWeights(weights[rows], method=method)
        self._all = list(range(len(rows)))

    def logits(self) -> Tensor:
        with self._engine.batch.serving(self._weights):
            return self.batch.logits()

    def keep(self, places: Sequence[int]) -> None:
        if places == self._all:
            return
        self._all = list(range(len(places)))
        chosen = torch.tensor(places, device=self._engine.model.device)
        self.batch.keep(chosen)
        self._weights = self._weights.subset(chosen)


def _together(engine: Engine, given: Sequence[Sequence[int]]) -> list[list[int]]:
    rows = list(range(len(given)))
    if engine.together == "padded":
        return [rows]
    if engine.together == "alone":
        return [[row] for row in rows]
    by_length = sorted(rows, key=lambda row: (len(given[row]), row))
    return [list(alike) for _, alike in groupby(by_length, lambda row: len(given[row]))]

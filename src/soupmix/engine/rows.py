"""From grants to the coefficients of every row: what a grant says of the loaded adapters, and the batch that is served now.

A `Grant` becomes one weight per loaded adapter (`LoadedAdapters`), the weights of several persons and the person of every row
become a batch (`BatchWeights`), and soup layers ask the batch that is served (`ActiveBatch`) for its coefficients. Whose a
row of a product is follows from its place among the tokens of the forward pass; where that cannot be known, nothing is computed.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from soupmix.errors import AdapterError, BaseModelError, PolicyError, RecipeError
from soupmix.methods import DEFAULT, request_op
from soupmix.policy import Grant, Policy
from soupmix.store.adapter import Adapter
from soupmix.weights import MILLION, twins
from soupmix_kernels import Coefficients, Pool, RowCoefficients

__all__ = [
    "MIXES_ROWS",
    "ActiveBatch",
    "BatchWeights",
    "LoadedAdapters",
    "Pass",
    "TrialWeights",
    "Unserved",
    "strangers",
]

MIXES_ROWS = "mixes-rows"
"""Reason of the error where it cannot be known whose the rows of a product are."""

_LOUD = 1000.0


@dataclass(frozen=True, slots=True)
class Unserved:
    """Why no row can have an adapter: what it changes, in words, and a stable code."""

    what: str
    reason: str

    def error(self, name: str) -> RecipeError:
        """The refusal of a request for it."""
        return RecipeError(
            f"adapter '{name}' changes {self.what}, so it cannot be added for a row: merge it into a model (`soupmix merge "
            "--as model`), or ask without it",
            reason=self.reason,
        )


@dataclass(frozen=True, slots=True)
class LoadedAdapters:
    """The K adapters that an engine has loaded: their order, the upper bounds of their weights, and whose grants count.

    Attributes:
        names, digests: of every adapter, in the order of the weights that kernels get.
        most: upper bound of every weight in millionths, same order. The kernels clamp to [0, most] once more. That only
            lowers a weight: what was not granted stays 0, whatever a policy requires.
        policy: digest of the one policy whose grants are taken, or None for those of any policy.
        unserved: name of an adapter that is left out -> why no row can have it.
    """

    names: tuple[str, ...]
    digests: tuple[str, ...]
    most: tuple[int, ...]
    policy: str | None = None
    unserved: Mapping[str, Unserved] = field(default_factory=dict)

    @classmethod
    def of(
        cls, adapters: Sequence[Adapter], policy: Policy | None = None, unserved: Mapping[str, Unserved] | None = None
    ) -> "LoadedAdapters":
        """Adapters in this order but for the unserved, under the upper bounds of a policy: 0 for a name unknown to it.

        Raises:
            AdapterError: one adapter under two names, or two adapters under one name (reason "same-adapter").
        """
        left = {} if unserved is None else unserved
        adapters = [each for each in adapters if each.name not in left]
        names = tuple(adapter.name for adapter in adapters)
        if (found := twins((each.name, each.digest) for each in adapters)) or len(set(names)) < len(names):
            said = " and ".join(map(repr, found or names))
            raise AdapterError(f"{said}: an engine holds each adapter once, under one name", reason="same-adapter")
        bounds = dict.fromkeys(names, (0, MILLION)) if policy is None else policy.bounds()
        most = tuple(max(bounds.get(name, (0, 0))[1], 0) for name in names)
        return cls(names, tuple(each.digest for each in adapters), most, policy.digest if policy else None, left)

    def weights(self, grant: Grant) -> list[float]:
        """The granted weight of every adapter [K], in order; 0 for one that the grant does not name.

        Raises:
            PolicyError: the grant is of another policy than the engine was loaded under (reason "other-policy").
            RecipeError: no row can have an adapter of the grant, as `unserved` says.
            AdapterError: an adapter of the grant is not loaded, or the loaded one has other content ("digest-mismatch").
        """
        if self.policy is not None and grant.policy_digest != self.policy:
            raise PolicyError(
                f"the grant is of policy {grant.policy_digest}, but the engine was loaded under {self.policy}; ask that "
                "policy for a grant, or load the engine under the policy that granted",
                reason="other-policy",
            )
        weights, digests = grant.granted.floats(), grant.digests
        held = dict(zip(self.names, self.digests, strict=True))
        for name in weights:
            if name in self.unserved:
                if not weights[name]:
                    continue
                raise self.unserved[name].error(name)
            if held.get(name) != digests[name]:
                state = "is not loaded" if name not in held else f"is loaded as {held[name]}"
                raise AdapterError(
                    f"the grant is for adapter '{name}' {digests[name]}, which {state}; "
                    f"load the engine with the store that the policy approved",
                    reason="digest-mismatch",
                )
        return [weights.get(name, 0.0) for name in self.names]


class Pass(NamedTuple):
    """What a forward pass of the model computes: `tokens` of each of its `rows`, and logits behind `kept` of these."""

    rows: int
    tokens: int
    kept: int


class BatchWeights:
    """The weights of all persons of one batch, and the person of every row.

    Coefficients are computed when a layer first asks for them, and kept. They hold for one order of columns and one pair of
    bounds, those of the engine that serves this batch.

    Args:
        weights: one per person and adapter [people, K] fp32. The rows of a person whose weights are all 0 are the bare base,
            bit for bit.
        people: index of the person of every row [rows] int64; None: person i has row i.
        kept: indices of the rows whose logits are computed [kept] int64; None: all. The output layer gets only these rows.
        method: how the adapters of a row are merged, one of `soupmix.methods.served`.

    Attributes:
        has_soup: whether any person has a weight other than 0.
    """

    def __init__(
        self, weights: Tensor, people: Tensor | None = None, *, kept: Tensor | None = None, method: str = DEFAULT
    ) -> None:
        self.method = method
        served = (weights != 0).any(1)
        self.has_soup = bool(served.any())
        everyone = torch.arange(len(weights), dtype=torch.int32, device=weights.device)
        numbers = torch.where(served, everyone, -1)
        self._weights = weights
        self._rows = numbers if people is None else numbers[people]
        self._kept = self._rows if kept is None else self._rows[kept]
        self._coefficients: dict[int, Coefficients] = {}
        self._of_rows: dict[tuple[int, tuple[int, ...], Pass | None], RowCoefficients] = {}

    @classmethod
    def of_prompts(
        cls, weights: Tensor, prompts: Sequence[Sequence[int]], bare: Sequence[int], *, method: str = DEFAULT
    ) -> "BatchWeights":
        """A left-padded batch of prompts, one per person, whose first tokens may run on the bare base.

        Args:
            weights: as above. prompts: token ids. bare: how many of each, the first, run on the base; 0 for a prompt that runs
                on its soup.
        """
        if not any(bare):
            return cls(weights, method=method)
        longest, nobody = max(map(len, prompts)), len(weights)
        people = torch.full((len(weights), longest), nobody)
        for row, (prompt, first) in enumerate(zip(prompts, bare, strict=True)):
            people[row, longest - len(prompt) + first if first else 0 :] = row
        last = torch.arange(1, nobody + 1, device=weights.device) * longest - 1
        everybody = torch.cat([weights, torch.zeros_like(weights[:1])])
        return cls(everybody, people.flatten().to(weights.device), kept=last, method=method)

    def subset(self, rows: Tensor) -> "BatchWeights":
        """A batch of these rows in this order, indices [kept]; for a batch in which every person has one row."""
        return BatchWeights(self._weights[rows], method=self.method)

    def coefficients(
        self, key: int, pool: Pool, places: tuple[int, ...], computed: Pass | None, bounds: tuple[Tensor, Tensor]
    ) -> RowCoefficients:
        """The coefficients of every row of a product over the columns of a pool.

        Args:
            key: number of the pool's columns, see `ActiveBatch.columns_key`; pools of one key share their coefficients.
            places: shape of what a layer gets, without its last dimension: the rows and tokens of the pass, as one or with
                further dimensions behind them; or the rows and kept tokens, for the output layer. Any shape for one person.
            computed: the pass; None: not known.
            bounds: least and most of every weight, [K] fp32 each.

        Raises:
            BaseModelError: the shape is another, and there are several persons (reason "mixes-rows").
        """
        asked = key, places, computed
        if asked not in self._of_rows:
            if key not in self._coefficients:
                self._coefficients[key] = pool.coefficients(
                    self._weights, *bounds, request_op(self.method).coefficients
                )
            self._of_rows[asked] = RowCoefficients(self._coefficients[key], self._people(places, computed))
        return self._of_rows[asked]

    def _people(self, places: tuple[int, ...], computed: Pass | None) -> Tensor:
        """The person of every row of a product."""
        if len(self._weights) == 1:
            return self._rows[:1].repeat(prod(places))
        if computed is not None and len(self._rows) in {computed.rows, computed.rows * computed.tokens}:
            if _are_tokens(places, computed):
                return self._rows.repeat_interleave(prod(places) // len(self._rows))
            if places == (computed.rows, computed.kept):
                return self._kept.repeat_interleave(prod(places) // len(self._kept))
        raise BaseModelError(
            f"a layer of the model gets {list(places)} tokens of a batch of {list(computed or ())}: whose they are cannot be "
            "known, so an adapter of this layer cannot be added for several persons at once; answer one at a time",
            reason=MIXES_ROWS,
        )


def _are_tokens(places: tuple[int, ...], computed: Pass) -> bool:
    """Whether these places begin with the rows and tokens of a pass, in this order; a dimension of one says nothing."""
    found, expected = ([size for size in each if size != 1] for each in (places, (computed.rows, computed.tokens)))
    return found[: len(expected)] == expected or found == [computed.rows * computed.tokens]


class TrialWeights(BatchWeights):
    """A batch of `strangers`, by which nobody is served: its weights are as they are, whatever bounds an engine has."""

    def coefficients(
        self, key: int, pool: Pool, places: tuple[int, ...], computed: Pass | None, bounds: tuple[Tensor, Tensor]
    ) -> RowCoefficients:
        """See `BatchWeights.coefficients`."""
        unbounded = bounds[0], torch.full_like(bounds[1], _LOUD)
        return super().coefficients(key, pool, places, computed, unbounded)


def strangers(adapters: int, device: torch.device) -> Tensor:
    """Weights [3, adapters] fp32 of three persons by whom it shows whether a model keeps rows apart.

    The first has a soup a thousand times as loud as any: what an adapter does may be less than rounding, and a neighbour who
    gets some of this cannot be overlooked. The second has a little of every adapter, the third has nothing.
    """
    loud, quiet = _LOUD, 1 / max(adapters, 1)
    return torch.tensor([[loud], [quiet], [0.0]], device=device).repeat(1, adapters)


_BARE = BatchWeights(torch.zeros(0, 0))


class ActiveBatch:
    """The batch that a model serves now, and the bounds of every weight: the only state that soup layers read.

    Outside of `serving` every layer is the bare base. One batch is served at a time: other threads wait.

    Args:
        adapters: the loaded adapters, whose upper bounds hold for every batch. device: where the model computes.

    Attributes:
        adapters: how many are loaded.
        generation: another number whenever rows may belong to other persons than before.
    """

    def __init__(self, adapters: LoadedAdapters, device: torch.device) -> None:
        most = (torch.tensor(adapters.most, dtype=torch.float64) / MILLION).float().to(device)
        self.adapters = len(most)
        self._bounds = torch.zeros_like(most), most  # from 0 whatever a policy requires: clamping again only lowers
        self._one_batch, self._thread = threading.Lock(), 0
        self._keys: dict[object, int] = {}
        self._batch, self.generation = _BARE, 0
        self._computed: Pass | None = None

    def _serve(self, batch: BatchWeights) -> None:
        self.generation += 1
        self._batch, self._computed = batch, None

    def follow(self, model: nn.Module) -> None:
        """Learn from now on what each forward pass of this model computes, from its arguments."""
        model.register_forward_pre_hook(self._note, with_kwargs=True)

    def _note(self, _: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        ids = named.get("input_ids", given[0] if given else None)
        self._computed = None if ids is None else _pass(ids, named.get("logits_to_keep", 0))

    def expect(self, tokens: int, kept: int) -> None:
        """Inside `serving`: a pass of so many tokens, logits behind so many of them, which no model is called for."""
        self._computed = Pass(1, tokens, kept)

    @property
    def method(self) -> str:
        """How the adapters of a row are merged, one of `soupmix.methods.served`."""
        return self._batch.method

    @property
    def has_soup(self) -> bool:
        """Whether any row is more than the bare base."""
        return self._batch.has_soup

    @contextmanager
    def serving(self, batch: BatchWeights) -> Iterator[None]:
        """Serve a batch. Afterwards, and after any error inside, every layer is the bare base again.

        Raises:
            RuntimeError: this thread serves a batch already, and would wait for itself.
        """
        if self._thread == threading.get_ident():
            raise RuntimeError(
                "this thread serves a batch already: what serves another (rows made anew, a trial) comes before"
            )
        with self._one_batch:
            self._thread = threading.get_ident()
            self._serve(batch)
            try:
                yield
            finally:
                self._serve(_BARE)
                self._thread = 0

    def keep(self, rows: Tensor) -> None:
        """Inside `serving`: go on with these rows only, in this order, indices [kept]."""
        self._serve(self._batch.subset(rows))

    def change(self, batch: BatchWeights) -> None:
        """Inside `serving`: the same rows go on with these weights."""
        self._serve(batch)

    def columns_key(self, pool: Pool) -> int:
        """A number that pools share whose columns belong to the same adapters with the same scaling, in the same order."""
        return self._keys.setdefault((tuple(pool.columns.tolist()), tuple(pool.scale.tolist())), len(self._keys))

    def coefficients(self, key: int, pool: Pool, places: tuple[int, ...], *, chosen: bool = False) -> RowCoefficients:
        """The coefficients of every row of a product over the columns of a pool; see `BatchWeights.coefficients`.

        Args:
            chosen: whether the layer is one of several that tokens are sent to, in whatever order: then nothing is known of them.
        """
        return self._batch.coefficients(key, pool, places, None if chosen else self._computed, self._bounds)


def _pass(ids: Tensor, logits: Tensor | int) -> Pass:
    """Of token ids [rows, tokens], and the tokens whose logits are asked for: their indices [kept], or so many; 0: all."""
    rows, tokens = ids.shape
    return Pass(rows, tokens, len(logits) if isinstance(logits, Tensor) else logits or tokens)

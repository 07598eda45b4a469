"""The rows of a step: whose weights every token of it has, and the op by which layers add their soups.

What kernels read lies in buffers that are made once and written before every step, so that a CUDA graph, which was recorded
before anybody came, reads the rows of now. On the CPU a layer in bf16 is one call of a compiled kernel, which takes one row of
coefficients a request; where there is none, torch computes, and gathers the coefficients of a step once for all layers with the
same columns.
"""

import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor

from soupmix.base import cache_root
from soupmix.weights import MILLION
from soupmix_kernels import Coefficients, Pool, RowCoefficients, soup_linear_
from soupmix_kernels.compiled import CannotCompile, CompiledSoup, SoupLibrary

__all__ = ["StepRows", "add_soup", "compiled_here", "serve"]

_LIBRARY = torch.library.Library("soupmix_vllm", "DEF")


@dataclass(slots=True)
class _Group:
    """Layers whose pools have the same columns: one set of coefficients."""

    pool: Pool
    coefficients: Tensor  # [people, columns] fp32, on the device
    gathered: RowCoefficients | None = field(default=None)
    table: Tensor | None = field(default=None)  # the coefficients as a compiled kernel reads them


class StepRows:
    """Whose tokens a step computes.

    Args:
        most: upper bound of every weight [K] in millionths; kernels clamp to [0, most] once more.
        people: requests of a step, at most. tokens: of a step, at most, padding included. device: where the model computes.
        compiled: what computes layers in bf16 on the CPU, see `compiled_here`; None: torch.

    Attributes:
        tokens: person of every token of the step [tokens] int32, -1 for nobody: the bare base.
    """

    def __init__(
        self,
        most: Sequence[int],
        people: int,
        tokens: int,
        device: torch.device,
        compiled: SoupLibrary | None = None,
    ) -> None:
        self._most = _shares(most).to(device)
        self._weights = torch.zeros(people, len(most))  # on the CPU
        self.tokens = torch.full((tokens,), -1, dtype=torch.int32, device=device)
        self._known: dict[str, Tensor] = {}
        self._places: dict[str, int] = {}
        self._free = list(range(people - 1, -1, -1))
        self._groups: list[_Group] = []
        self._layers: list[tuple[Pool | CompiledSoup, _Group]] = []
        self._last, self._has_soup, self._stale = torch.empty(0, dtype=torch.int32), False, False
        self._now, self._compiled = self.tokens[:0], compiled
        self._is_cpu = device.type == "cpu"

    def bound(self, most: Sequence[int]) -> None:
        """The upper bound of every weight [K] in millionths from the next step on, as a policy has them that was read anew."""
        found = _shares(most).to(self._most.device)
        if not torch.equal(found, self._most):
            self._most, self._stale = found, True

    def layer(self, pool: Pool) -> int:
        """The number of one more layer, for `add_soup`."""
        group = next((each for each in self._groups if _same_columns(each.pool, pool)), None)
        if group is None:
            empty = torch.zeros(len(self._weights), len(pool.columns), device=pool.A.device)
            group = _Group(pool, empty)
            self._groups.append(group)
        made = self._compiled if CompiledSoup.fits(pool) else None
        self._layers.append((pool if made is None else CompiledSoup(pool, made), group))
        return len(self._layers) - 1

    def learn(self, request: str, weights: Sequence[int]) -> None:
        """The weights [K] in millionths of a request from now on; a request that was known before is another now."""
        self.forget([request])
        if any(weights):
            self._known[request] = _shares(weights)

    def forget(self, requests: Iterable[str]) -> None:
        """Requests that have ended."""
        for each in requests:
            self._known.pop(each, None)
            if (place := self._places.pop(each, None)) is not None:
                self._free.append(place)

    def write(self, requests: Sequence[str], counts: Sequence[int]) -> None:
        """The next step: so many tokens of each of these requests, one request behind the other."""
        served = {each for each in requests if each in self._known}
        for each in [each for each in self._places if each not in served]:
            self._free.append(self._places.pop(each))
        for each in served:
            if each not in self._places:
                self._places[each] = self._free.pop()
                self._weights[self._places[each]] = self._known[each]
                self._stale = True
        places = torch.tensor([self._places.get(each, -1) for each in requests], dtype=torch.int32)
        rows = places.repeat_interleave(torch.as_tensor(counts, dtype=torch.int64))
        self._fill(rows)

    def clear(self) -> None:
        """The next step is nobody's, of however many tokens."""
        self._fill(torch.empty(0, dtype=torch.int32))

    def _fill(self, rows: Tensor) -> None:
        if not self._stale and torch.equal(rows, self._last):
            return  # as most steps are: one more token of the same requests
        end = max(len(self._last), len(rows))
        padded = torch.full((end,), -1, dtype=torch.int32)
        padded[: len(rows)] = rows
        self.tokens[:end].copy_(padded)
        self._now = self.tokens[: len(rows)]
        for each in self._groups:
            each.gathered = None
            if self._stale:
                each.table = None
                if not self._is_cpu:
                    each.coefficients.copy_(self._clamped(each.pool).values)
        self._last, self._has_soup, self._stale = rows, bool((rows >= 0).any()), False

    def _clamped(self, pool: Pool) -> Coefficients:
        return pool.coefficients(self._weights.to(self._most.device), torch.zeros_like(self._most), self._most)

    def add(self, y: Tensor, x: Tensor, layer: int) -> None:
        """y [tokens, out] += the soups of all tokens, for x [tokens, in]; see `soupmix_kernels.soup_linear_`.

        Raises:
            RuntimeError: the layer gets other tokens than the step has: whose they are cannot be known.
        """
        held, group = self._layers[layer]
        if not self._is_cpu:
            pool, people, tokens = cast("Pool", held), group.coefficients, self.tokens[: len(x)]
            torch.ops.soupmix.soup_linear_(y, x, pool.A, pool.B, people, tokens, pool.widths)
            return
        if not self._has_soup:
            return
        if len(x) != len(self._now):
            raise RuntimeError(
                f"a layer gets {len(x)} tokens of a step of {len(self._now)}: whose they are is not known"
            )
        if isinstance(held, CompiledSoup):
            if group.table is None:
                group.table = held.table(self._clamped(group.pool))
            held.add_(y, x, group.table, self._now, torch.get_num_threads())
        else:
            soup_linear_(y, x, held, self._gathered(group))

    def _gathered(self, group: _Group) -> RowCoefficients:
        if group.gathered is None:
            group.gathered = RowCoefficients(self._clamped(group.pool), self._now)
        return group.gathered


def compiled_here(dtype: torch.dtype, device: torch.device) -> SoupLibrary | None:
    """What computes soups on this processor in bf16; None, and a line in the log, where torch does. Other dtypes are torch's."""
    if device.type != "cpu" or dtype != torch.bfloat16:
        return None
    asked = os.environ.get("SOUPMIX_KERNELS", "auto") or "auto"
    try:
        if asked != "auto":
            raise CannotCompile(f"SOUPMIX_KERNELS={asked} says so")
        return SoupLibrary(cache_root() / "step")
    except CannotCompile as error:
        logging.getLogger("soupmix.vllm").warning("torch computes soups, which takes longer: %s", error)
        return None


_ROWS: list[StepRows] = []  # of this process; one model, so one


def serve(rows: StepRows) -> None:
    """From now on layers of this process add the soups of these rows."""
    _ROWS[:] = [rows]


def add_soup(y: Tensor, x: Tensor, layer: int) -> None:
    """`StepRows.add` of this process, as an op where a graph is being traced."""
    if torch.compiler.is_compiling():
        torch.ops.soupmix_vllm.add_soup_(y, x, layer)
    else:
        _add(y, x, layer)


def _add(y: Tensor, x: Tensor, layer: int) -> None:
    _ROWS[0].add(y.view(-1, y.shape[-1]), x.reshape(-1, x.shape[-1]), layer)


def _shares(millionths: Sequence[int]) -> Tensor:
    return (torch.tensor(millionths, dtype=torch.float64) / MILLION).float()


def _fake(y: Tensor, x: Tensor, layer: int) -> None:
    """Nothing is made."""


def _same_columns(one: Pool, other: Pool) -> bool:
    alike = torch.equal(one.columns, other.columns) and torch.equal(one.scale, other.scale)
    return alike and len(one.widths) == len(other.widths)


_NAME = _LIBRARY.define("add_soup_(Tensor(a!) y, Tensor x, int layer) -> ()")
for _key in ("CPU", "CUDA"):
    _LIBRARY.impl(_NAME, _add, _key)
torch.library.register_fake("soupmix_vllm::add_soup_", _fake, lib=_LIBRARY)

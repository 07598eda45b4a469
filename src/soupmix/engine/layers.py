"""Soup layers in a transformers model: the base projection plus the deltas of each row's own soup."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

import soupmix_kernels
from soupmix.engine.bank import Bank, Stack
from soupmix.errors import BaseModelError, RecipeError

__all__ = ["METHODS", "Rows", "SoupLinear", "insert"]

METHODS = ("delta", "factor")


class Rows:
    """Who sits in which row of the running batch: the only state that soup layers read.

    Outside of `serving` there is nobody, and every layer is the bare base. One batch is served at a time; threads wait.
    """

    def __init__(self) -> None:
        self._one_batch = threading.Lock()
        self._weights: Tensor | None = None
        self._method = "delta"
        self._coefficients: dict[object, Tensor] = {}

    @property
    def method(self) -> str:
        """How the adapters of a row are merged: "delta" or "factor"."""
        return self._method

    @contextmanager
    def serving(self, weights: Tensor, method: str = "delta") -> Iterator[None]:
        """Serve these rows: weights [rows, K] fp32. Whatever happens inside, nobody is left behind."""
        if method not in METHODS:
            raise RecipeError(f"method '{method}' is not known; choose one of {', '.join(METHODS)}", reason="method")
        with self._one_batch:
            self._weights, self._method = weights, method
            try:
                yield
            finally:
                self._weights, self._method = None, "delta"
                self._coefficients = {}

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows only, in this order (indices [kept])."""
        if self._weights is not None:
            self._weights = self._weights[rows]
            self._coefficients = {}

    def coefficients(self, key: object, stack: Stack, blocks: int) -> Tensor | None:
        """One coefficient per rank column [rows, R] (per adapter [rows, blocks] for `factor`); None: nobody is served."""
        if self._weights is None:
            return None
        if key not in self._coefficients:
            step = stack.columns.numel() // blocks if self._method == "factor" else 1
            scaling = stack.scaling[::step].sqrt() if self._method == "factor" else stack.scaling
            self._coefficients[key] = self._weights[:, stack.columns[::step]] * scaling
        return self._coefficients[key]


class SoupLinear(nn.Module):
    """A linear layer whose rows each have their own soup of low-rank deltas.

    Forward: x [rows, ..., in] -> [rows, ..., out], by the formula of `soupmix_kernels`.
    """

    def __init__(self, base: nn.Linear, stack: Stack, rows: Rows) -> None:
        super().__init__()
        self.base = base
        self.register_buffer("A", stack.A, persistent=False)
        self.register_buffer("B", stack.B, persistent=False)
        self._stack, self._rows, self._key = stack, rows, stack.layout
        self._blocks = len(set(self._key[0]))

    def forward(self, x: Tensor) -> Tensor:
        """Project x, then add every row's soup."""
        y: Tensor = self.base(x)
        c = self._rows.coefficients(self._key, self._stack, self._blocks)
        if c is None:
            return y
        if self._rows.method == "factor":
            return soupmix_kernels.soup_linear_factor(x, y, self.get_buffer("A"), self.get_buffer("B"), c, self._blocks)
        return soupmix_kernels.soup_linear(x, y, self.get_buffer("A"), self.get_buffer("B"), c)


def insert(model: nn.Module, bank: Bank) -> Rows:
    """Replace every linear layer that the bank has factors for; return the rows that the new layers read.

    Raises:
        BaseModelError: the model has no such linear layer, or one of another shape.
    """
    rows = Rows()
    for path, stack in bank.stacks.items():
        parent_path, _, name = path.rpartition(".")
        try:
            parent = model.get_submodule(parent_path)
            base = getattr(parent, name)
        except AttributeError as error:
            raise BaseModelError(f"the base model has no module '{path}'", reason="wrong-base") from error
        asked = (stack.B.shape[0], stack.A.shape[1])
        if not isinstance(base, nn.Linear) or tuple(base.weight.shape) != asked:
            raise BaseModelError(
                f"module '{path}' of the base is not a linear layer of shape {asked}", reason="wrong-base"
            )
        setattr(parent, name, SoupLinear(base, stack, rows))
    return rows


def factor_ready(bank: Bank) -> None:
    """Check that `factor` is defined here: in every layer all adapters have the same rank.

    Raises:
        RecipeError: ranks differ in some layer.
    """
    for path, stack in bank.stacks.items():
        counts = torch.bincount(stack.columns)
        if len(set(counts[counts > 0].tolist())) > 1:
            raise RecipeError(
                f"method 'factor' averages A and B themselves, so every adapter needs the same rank, "
                f"but ranks differ in '{path}'; use method 'delta'",
                reason="ranks-differ",
            )

"""Quantised layers as they are: transformers and the package behind it multiply, and soupmix adds on top. So it is with a plain
weight that a layer of the model's own multiplies in a way of its own.

Some kinds look at all tokens of a batch at once: LLM.int8() computes in half precision every column in which any token has an
outlier, and activations may be scaled by the largest of all tokens. Then somebody's words would change a neighbour's answer.
So every kind is tried when it is loaded, and one that mixes tokens is given them one by one.
"""

import logging
from collections.abc import Collection, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from soupmix.errors import BaseModelError
from soupmix_kernels.rows_apart import whole, widen

__all__ = ["QuantisedLinear", "quantised_linears"]

_log = logging.getLogger("soupmix.engine")
_TOKENS = 8
_LOUD = 1000.0


class QuantisedLinear:
    """One quantised layer, by its own forward.

    Args:
        path: of the layer in the model. module: as transformers loaded it; neither copied nor changed.
        dtype: of activations.

    Attributes:
        inputs: in-features. widths: the out-features, as `BaseLinear` has them. dtype, device: of activations.
        apart: whether a token's output depends on that token only, however many there are.
        spaced: whether zeros must lie behind every token for that; of plain weights, see `soupmix_kernels.rows_apart`.

    Raises:
        BaseModelError: it cannot be computed here (reason "quantised"); its weight is plain, and it is no linear layer all the
            same ("not-linear").
    """

    def __init__(self, path: str, module: Any, dtype: torch.dtype, device: torch.device) -> None:
        self.inputs: int = module.in_features
        self.widths: tuple[int, ...] = (module.out_features,)
        self.dtype, self.device = dtype, device
        self._module = module
        weight = getattr(module, "weight", None)
        plain = isinstance(weight, nn.Parameter) and type(weight.data) is Tensor and weight.dtype == dtype
        self._whole = whole(self.inputs, dtype, device) if plain else self.inputs
        self.spaced = self._whole != self.inputs
        try:
            self.apart = self._keeps_apart()
        except Exception as error:  # whatever the package behind it raises
            said = (str(error).strip() or type(error).__name__).splitlines()[0]
            if plain:
                raise BaseModelError(
                    f"layer '{path}' of the base is a {self.kind}, which gives no output for each token as a linear layer does "
                    f"({said!r}), so no adapter can be added to it for a row; merge into the model itself (`soupmix merge --as "
                    "model`), or use an adapter without it",
                    reason="not-linear",
                ) from error
            raise BaseModelError(
                f"layer '{path}' of the base is quantised ({self.kind}) and cannot be computed in {dtype} on {device}: "
                f"{said!r}; load the base in the dtype that it was saved in, on a device that its package supports, or as it "
                "was before it was quantised",
                reason="quantised",
            ) from error

    @property
    def kind(self) -> str:
        """Such as "Linear8bitLt"; of a plain layer with a packed weight the weight's type."""
        if type(self._module) is nn.Linear:
            return type(self._module.weight.data).__name__
        return type(self._module).__name__

    def __call__(self, x: Tensor) -> Tensor:
        """x [rows, in] -> [rows, out], in the dtype of x."""
        if self.apart or len(x) < 2:
            return self._product(x)
        return torch.cat([self._product(row) for row in x.split(1)])

    def _product(self, x: Tensor) -> Tensor:
        if self.spaced:
            x = widen(x, self._whole)[:, : self.inputs]
        y: Tensor = self._module(x)
        return y

    @torch.inference_mode()
    def _keeps_apart(self) -> bool:
        """Whether loud and broken neighbours leave a token as it is, bit for bit."""
        draw = torch.Generator().manual_seed(0)
        x = torch.randn(_TOKENS, self.inputs, generator=draw).to(self.device, self.dtype)
        alone = self._product(x)
        if alone.shape != (_TOKENS, *self.widths) or alone.dtype != self.dtype:
            raise ValueError(f"it makes {list(alone.shape)} in {alone.dtype} of {list(x.shape)} in {x.dtype}")
        for neighbours in (_LOUD, torch.nan):
            beside = x.clone()
            beside[1::2] *= neighbours
            if not torch.equal(self._product(beside)[::2], alone[::2]):
                return False
        return True


def quantised_linears(model: Any, paths: Iterable[str], changed: Collection[str]) -> dict[str, QuantisedLinear]:
    """These layers of a model, by path. Those that mix tokens are told once.

    Args:
        changed: paths of layers that an adapter changes. Of the others one that is no linear layer is left out.
    """
    found = dict[str, QuantisedLinear]()
    for path in sorted(paths):
        try:
            found[path] = QuantisedLinear(path, model.get_submodule(path), model.dtype, model.device)
        except BaseModelError as error:
            if error.reason != "not-linear" or path in changed:
                raise
    mixing = sorted({each.kind for each in found.values() if not each.apart})
    if mixing:
        _log.warning(
            "%s layers look at all tokens at once, so that one person's words would change another's answer: they are "
            "given tokens one by one, which is slow for long prompts",
            ", ".join(mixing),
        )
    return found

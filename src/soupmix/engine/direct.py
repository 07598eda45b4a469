"""Linear layers whose weight a model's own code reads, instead of calling them: nothing else may stand there.

A model shows them at work. What no token of the trial came by, such as an expert that none was sent to, is taken for what its
like are: layers of the same name in modules of the same class.
"""

from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from soupmix.engine.decode import PaddedBatch

__all__ = ["read_directly"]


class _Watched(nn.Linear):
    """A linear layer that notes whether it is called, and who reads its weight from outside."""

    def forward(self, x: Tensor) -> Tensor:
        object.__setattr__(self, "is_called", True)
        held: dict[str, Any] = self._parameters
        return linear(x, held["weight"], held["bias"])

    def __getattr__(self, name: str) -> Any:
        if name == "weight":
            object.__setattr__(self, "is_read", True)
        return super().__getattr__(name)


@torch.inference_mode()
def read_directly(model: Any) -> frozenset[str]:
    """Paths of plain linear layers whose weight is read while the model computes two tokens and one more, or would be."""
    linears = {path: each for path, each in model.named_modules() if type(each) is nn.Linear}
    ids = torch.tensor([[1, 2]], device=model.device)
    for each in linears.values():
        each.__class__ = _Watched
    try:
        with suppress(Exception):  # a model that cannot compute this says so where it is asked to
            batch = PaddedBatch(model, ids, torch.ones_like(ids))
            batch.logits()
            batch.add(ids[:, 0], ids[:, 0] > 0)
            batch.logits()
    finally:
        for each in linears.values():
            each.__class__ = nn.Linear
    read = {path for path, each in linears.items() if each.__dict__.pop("is_read", False)}
    called = {path for path, each in linears.items() if each.__dict__.pop("is_called", False)}
    kinds = {_kind(model, path) for path in read}
    return frozenset(read | {path for path in linears.keys() - called if _kind(model, path) in kinds})


def _kind(model: Any, path: str) -> tuple[type, str]:
    """The class of the module that a layer lies in, and the layer's name there."""
    parent, _, name = path.rpartition(".")
    return type(model.get_submodule(parent)), name

"""Adapters that no row can have, as what they change is no linear layer that the model calls, or more than its factors say.

They are merged into models of their own. The other adapters of their store are served.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from soupmix.base.layers import weight_path
from soupmix.engine.layers import is_linear, is_unusual
from soupmix.engine.quantised import QuantisedLinear
from soupmix.engine.rows import Unserved
from soupmix.errors import BaseModelError
from soupmix.store.adapter import Adapter

__all__ = ["unserved"]


def unserved(model: Any, adapters: Sequence[Adapter], left: Collection[str]) -> Mapping[str, Unserved]:
    """Name -> why no row of this model can have the adapter.

    Args:
        model: without soup layers. left: paths of layers that stay, as the model's own code reads their weights.
    """
    modules, found = dict(model.named_modules()), dict[str, Unserved]()
    odd = dict[str, Unserved | None]()  # a path is tried once
    for adapter in adapters:
        for path in _to_be_tried(adapter, found):
            if path not in odd:
                odd[path] = _why(model, path, modules.get(path), left)
            if (why := odd[path]) is not None:
                found.setdefault(adapter.name, why)
    return found


def _to_be_tried(adapter: Adapter, found: dict[str, Unserved]) -> Iterator[str]:
    """The layers of an adapter; none if it is of experts that lie in one weight, or of whole weights, which is noted."""
    if adapter.whole:
        found[adapter.name] = Unserved(
            "whole weights, embeddings, biases or DoRA's lengths, which all rows share", "whole"
        )
    elif any(weight_path(path) != path for path in adapter.modules):
        found[adapter.name] = Unserved("experts, which lie in one weight and are no linear layers", "experts")
    else:
        yield from sorted(adapter.modules)


def _why(model: Any, path: str, module: Any, left: Collection[str]) -> Unserved | None:
    if module is None:
        return None  # it is of another model, and nobody is served
    if path in left:
        return Unserved(f"layer '{path}', whose weight the model's own code reads and never calls", "read-directly")
    kind = type(module).__name__
    if not is_linear(module, model):
        return Unserved(f"'{path}', which is a {kind} and no linear layer", "not-linear")
    if is_unusual(module):
        try:
            QuantisedLinear(path, module, model.dtype, model.device)
        except BaseModelError as error:
            if error.reason == "not-linear":
                return Unserved(f"'{path}', a {kind} that gives no output for each token", "not-linear")
    return None

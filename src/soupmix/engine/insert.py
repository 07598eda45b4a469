"""Put the adapters of a store into a transformers model: which linear layers are computed together, and how."""

from collections.abc import Iterator, Sequence

from torch import nn

import soupmix_kernels
from soupmix.engine.bank import parts
from soupmix.engine.layers import Member, SoupGroup
from soupmix.engine.rows import Rows
from soupmix.errors import BaseModelError, RecipeError
from soupmix.store.adapter import Adapter
from soupmix_kernels import Part

__all__ = ["factor_ready", "insert"]

_SHARED_INPUT = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))

Paths = tuple[str, ...]


def insert(model: nn.Module, adapters: Sequence[Adapter], rows: Rows, *, fused: bool) -> dict[Paths, SoupGroup]:
    """Replace linear layers by soup layers: those that an adapter changes, and if `fused` on the CPU all others too.

    Args:
        fused: compute projections that share an input together, and on the CPU with weights in oneDNN's layout (the
            originals are dropped). Otherwise every layer does what it did, bit for bit, and its soup is added.

    Returns:
        The groups by the module paths of their members.

    Raises:
        BaseModelError: the model has no such linear layer, or one of another shape.
    """
    linears = {path: module for path, module in model.named_modules() if isinstance(module, nn.Linear)}
    changed = {path for adapter in adapters for path in adapter.modules}
    for path in sorted(changed - set(linears)):
        raise BaseModelError(f"the base model has no linear layer '{path}'", reason="wrong-base")
    held = {path: parts(adapters, path, linear) for path, linear in linears.items()}
    made = {}
    for paths in _groups(held, fused=fused):
        chosen = [linears[path] for path in paths]
        weight = chosen[0].weight
        everything = (fused and weight.device.type == "cpu") or soupmix_kernels.wide_weight(weight) is not weight
        if everything or any(held[path] for path in paths):
            group = made[paths] = SoupGroup(chosen, [held[path] for path in paths], rows, fused=fused)
            for number, path in enumerate(paths):
                parent, _, name = path.rpartition(".")
                setattr(model.get_submodule(parent), name, Member(group, number, linears[path]))
    return made


def _groups(held: dict[str, tuple[Part, ...]], *, fused: bool) -> Iterator[Paths]:
    """Every path once; paths that share their input together, if their adapters have the same ranks."""
    left = dict(held)
    for path in held:
        if path in left:
            parent, _, name = path.rpartition(".")
            names = next((family for family in _SHARED_INPUT if name in family), (name,)) if fused else (name,)
            together = tuple(each for each in (f"{parent}.{one}".lstrip(".") for one in names) if each in left)
            ranks = {part.A.shape[0] for each in together for part in left[each]}
            yield from [together] if len(ranks) <= 1 else [(each,) for each in together]
            for each in together:
                del left[each]


def factor_ready(groups: dict[Paths, SoupGroup]) -> None:
    """Check that `factor` is defined here: in every layer all adapters have the same rank, and no scaling is negative.

    Raises:
        RecipeError: they have not, in some layer.
    """
    for paths, group in groups.items():
        if group.pool is not None and not group.pool.rank:
            raise RecipeError(
                f"method 'factor' averages A and B themselves, so every adapter needs the same rank and a scaling that "
                f"is not negative, which is not so in '{paths[0]}'; use method 'delta'",
                reason="ranks-differ",
            )

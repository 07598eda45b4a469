"""Put the adapters of a store into a transformers model: which linear layers are computed together, and how."""

from collections.abc import Sequence

from torch import Tensor, nn

from soupmix.engine.bank import parts
from soupmix.engine.layers import Member, SoupGroup
from soupmix.engine.rows import Rows
from soupmix.errors import BaseModelError, RecipeError
from soupmix.store.adapter import Adapter
from soupmix_kernels import Part
from soupmix_kernels.checks import FLOATS
from soupmix_kernels.rows_apart import whole

__all__ = ["factor_ready", "insert"]

_SHARED_INPUT = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))

Paths = tuple[str, ...]


def insert(model: nn.Module, adapters: Sequence[Adapter], rows: Rows, *, fused: bool) -> dict[Paths, SoupGroup]:
    """Replace linear layers by soup layers: those that an adapter changes, and if `fused` on the CPU all others too.

    Args:
        fused: compute projections that share an input together, and on the CPU with weights in oneDNN's layout (the
            originals are dropped, group by group). Otherwise every layer does what it did, bit for bit, and its soup is added.

    Returns:
        The groups by the module paths of their members.

    Raises:
        BaseModelError: the model has no such linear layer, one of another shape, or one that is not plain (reason
            "quantised"): its weight is no fp32, fp16 or bf16 tensor, or it does more than multiply by it.
    """
    held = _held(model, adapters)
    made = {}
    for paths in _groups(model, held, fused=fused):
        linears = _linears(model, paths)  # what the group before was made of is gone by now
        everything = (fused and linears[0].weight.device.type == "cpu") or not _keeps_rows_apart(linears[0])
        if everything or any(held[path] for path in paths):
            made[paths] = _replaced(model, paths, SoupGroup(linears, [held[path] for path in paths], rows, fused=fused))
    return made


def _held(model: nn.Module, adapters: Sequence[Adapter]) -> dict[str, tuple[Part, ...]]:
    """What every plain linear layer gets from the adapters, by path; other layers stay as they are."""
    changed = {path for adapter in adapters for path in adapter.modules}
    linears = {path: module for path, module in model.named_modules() if isinstance(module, nn.Linear)}
    for path in sorted(changed - set(linears)):
        raise BaseModelError(f"the base model has no linear layer '{path}'", reason="wrong-base")
    odd = {path: oddity for path, linear in linears.items() if (oddity := _oddity(linear))}
    for path in sorted(changed & set(odd)):
        raise BaseModelError(
            f"layer '{path}' of the base {odd[path]}, and adapters are added to plain fp32, fp16 or bf16 layers only; "
            "load the base as it was before it was quantised",
            reason="quantised",
        )
    return {path: parts(adapters, path, linear) for path, linear in linears.items() if path not in odd}


def _linears(model: nn.Module, paths: Paths) -> list[nn.Linear]:
    return [module for path in paths if isinstance(module := model.get_submodule(path), nn.Linear)]


def _oddity(linear: nn.Linear) -> str | None:
    """What sets a layer apart from x W^T + bias in a dtype that the kernels multiply in, or None."""
    weight = linear.weight.data
    if weight.dtype not in FLOATS.values():
        return f"holds its weight in {weight.dtype}"
    if type(weight) is not Tensor:
        return f"holds its weight as {type(weight).__name__}"
    if type(linear).forward is not nn.Linear.forward or "forward" in vars(linear):
        return f"is a {type(linear).__name__} that computes in its own way"
    return None


def _keeps_rows_apart(linear: nn.Linear) -> bool:
    """Whether torch's own product by this weight leaves rows alone on this processor."""
    weight = linear.weight
    return whole(linear.in_features, weight.dtype, weight.device) == linear.in_features


def _replaced(model: nn.Module, paths: Paths, group: SoupGroup) -> SoupGroup:
    for number, path in enumerate(paths):
        parent, _, name = path.rpartition(".")
        within = model.get_submodule(parent)
        setattr(within, name, Member(group, number, getattr(within, name)))
    return group


def _groups(model: nn.Module, held: dict[str, tuple[Part, ...]], *, fused: bool) -> list[Paths]:
    """Every path once; paths that share their input together, if their adapters have the same ranks and they one dtype."""
    left, found = dict(held), list[Paths]()
    for path in held:
        if path in left:
            parent, _, name = path.rpartition(".")
            names = next((family for family in _SHARED_INPUT if name in family), (name,)) if fused else (name,)
            together = tuple(each for each in (f"{parent}.{one}".lstrip(".") for one in names) if each in left)
            ranks = {part.A.shape[0] for each in together for part in left[each]}
            kinds = {(each.weight.dtype, each.weight.device) for each in _linears(model, together)}
            alike = len(ranks) <= 1 and len(kinds) == 1
            found += [together] if alike else [(each,) for each in together]
            for each in together:
                del left[each]
    return found


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

"""Soup layers: what takes the place of linear layers, and which linear layers are computed together.

Linear layers that read the same input (q, k and v; gate and up) become one group: one base projection by their stacked weights,
and one product for the soup of every row. `insert` puts groups into a transformers model.
"""

import threading
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

import soupmix_kernels
from soupmix.base.layers import linear_kind, plain_forwards
from soupmix.engine.few_bits import FewBits
from soupmix.engine.quantised import quantised_linears
from soupmix.engine.rows import ActiveBatch
from soupmix.errors import BaseModelError, RecipeError
from soupmix.methods import DEFAULT, request_op
from soupmix.store.adapter import Adapter
from soupmix_kernels import Part, Pool
from soupmix_kernels.checks import FLOATS
from soupmix_kernels.compiled import Blocks
from soupmix_kernels.rows_apart import whole

__all__ = ["BaseLinear", "Paths", "SoupGroup", "SoupLinear", "check_ranks", "insert", "is_linear", "is_unusual"]

_SHARED_INPUT = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))

Paths = tuple[str, ...]


class Projection(Protocol):
    """The base's own part of a group: x [rows, in] -> a new tensor [rows, sum of widths], every row by itself."""

    inputs: int
    widths: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    def __call__(self, x: Tensor) -> Tensor:
        """In the dtype of x, which is `dtype`."""


class BaseLinear:
    """`x W^T + bias` for the stacked weights of one or more linear layers, without any soup.

    Args:
        linears: layers with the same input. packed: on the CPU, hold the weight in oneDNN's layout. blocks: hold it in these
            instead; None: as it is.

    Attributes:
        inputs: in-features. widths: out-features of every layer. dtype, device: of weights and activations.
        weight: [sum of widths, in], possibly with more columns, of zeros; None where it is packed or in blocks. blocks: the
            weight in blocks, or None. bias: [sum of widths] or None.
    """

    def __init__(self, linears: Sequence[nn.Module], *, packed: bool, blocks: Blocks | None = None) -> None:
        weights = [_weight(each) for each in linears]
        self.inputs, self.dtype, self.device = weights[0].shape[1], weights[0].dtype, weights[0].device
        self.widths = tuple(len(weight) for weight in weights)
        self.weight: Tensor | None = None
        self.bias, self.blocks, self._packed = _bias(linears), blocks, None
        if blocks is None:
            weight = weights[0] if len(weights) == 1 else torch.cat(weights)
            self._packed = soupmix_kernels.pack(weight) if packed else None
            self.weight = None if self._packed is not None else soupmix_kernels.wide_weight(weight)

    def pack(self) -> None:
        """From now on hold the weight in oneDNN's layout, where that is possible."""
        weight = self.rows
        if isinstance(weight, Blocks):
            self.blocks, weight = None, weight.decoded()
            self.weight = soupmix_kernels.wide_weight(weight)
        if weight is not None:
            self._packed = soupmix_kernels.pack(weight)
            self.weight = self.weight if self._packed is None else None

    @property
    def held(self) -> Tensor:
        """The memory of the weight, where it is not packed: to be replaced by a copy."""
        held = self.weight if self.blocks is None else self.blocks.data
        if held is None:
            raise RuntimeError("a packed weight is not ours to move")
        return held

    @held.setter
    def held(self, copy: Tensor) -> None:
        if self.blocks is None:
            self.weight = copy
        else:
            self.blocks = replace(self.blocks, data=copy)

    @property
    def rows(self) -> "Tensor | Blocks | None":
        """The weight [sum of widths, in] as a compiled step reads it; None where it is packed."""
        return self.blocks if self.weight is None else self.weight[:, : self.inputs]

    def __call__(self, x: Tensor) -> Tensor:
        """x [rows, in] -> [rows, sum of widths], in the dtype of x."""
        if self._packed is not None:
            return soupmix_kernels.packed_linear(x, self._packed, self.bias)
        if self.blocks is not None:
            return soupmix_kernels.wide_linear(x, soupmix_kernels.wide_weight(self.blocks.decoded()), self.bias)
        if self.weight is None:
            raise RuntimeError("a base layer has lost its weight")
        return soupmix_kernels.wide_linear(x, self.weight, self.bias)


def _weight(linear: nn.Module) -> Tensor:
    """The weight of a linear layer [out, in], a view of it where the layer holds it the other way round."""
    weight = linear.get_parameter("weight").data
    return weight.T if linear_kind(linear) == "conv1d" else weight


def _bias(linears: Sequence[nn.Module]) -> Tensor | None:
    biases = [each.bias if isinstance(each.bias, Tensor) else None for each in linears]
    if all(bias is None for bias in biases):
        return None
    weights = [_weight(each) for each in linears]
    return torch.cat(
        [weight.new_zeros(len(weight)) if b is None else b for weight, b in zip(weights, biases, strict=True)]
    )


class _Outputs(threading.local):
    """Outputs that the other layers of a group have not taken yet, and the input and generation they were computed for."""

    def __init__(self) -> None:
        self.x: Tensor | None = None
        self.generation = -1
        self.left: dict[int, Tensor] = {}


class SoupGroup:
    """One to three linear layers that read the same input, with the adapters of all of them in one pool.

    Args:
        base: what the layers compute without a soup. parts: what each of them gets from the adapters, possibly nothing.
        batch: whose coefficients are used. chosen: whether they are of one of several modules that tokens are sent to.

    Attributes:
        base: as given. pool: the factors of all adapters, or None where no adapter changes these layers.
        key: number of the pool's columns, see `ActiveBatch.columns_key`; -1 without a pool.
    """

    def __init__(
        self, base: Projection, parts: Sequence[Sequence[Part]], batch: ActiveBatch, *, chosen: bool = False
    ) -> None:
        self.base, self._batch, self._chosen = base, batch, chosen
        self.pool = (
            Pool.stack(parts, base.widths, inputs=base.inputs, dtype=base.dtype, device=base.device)
            if any(parts)
            else None
        )
        self.key = batch.columns_key(self.pool) if self.pool else -1
        self._outputs = _Outputs()

    def output(self, number: int, x: Tensor) -> Tensor:
        """The output of one layer for x [rows, ..., in] -> [rows, ..., out].

        The first layer that is asked computes all of them. Each other layer then takes its own output once, if it is asked in
        the same thread, with the very same tensor, and no other batch was served in between; otherwise all are computed anew.
        So nothing is taken that is stale or belongs to other persons.
        """
        held = self._outputs
        if held.x is not x or held.generation != self._batch.generation or number not in held.left:
            held.x, held.generation, held.left = x, self._batch.generation, dict(enumerate(self._compute(x)))
        taken = held.left.pop(number)
        if not held.left:
            held.x = None
        return taken

    def _compute(self, x: Tensor) -> tuple[Tensor, ...]:
        flat = x.reshape(-1, x.shape[-1])
        y = self.base(flat)
        if self.pool is not None and self._batch.has_soup:
            coefficients = self._batch.coefficients(self.key, self.pool, x.shape[:-1], chosen=self._chosen)
            add = getattr(soupmix_kernels, request_op(self._batch.method).op)
            add(y, flat, self.pool, coefficients)
        return tuple(y.view(*x.shape[:-1], y.shape[-1]).split_with_sizes(self.base.widths, -1))


class SoupLinear(nn.Module):
    """Stands where a linear layer stood: x [rows, ..., in] -> [rows, ..., out], by the formula of `soupmix_kernels`."""

    def __init__(self, group: SoupGroup, number: int) -> None:
        super().__init__()
        self.in_features, self.out_features = group.base.inputs, group.base.widths[number]
        self.group, self._number = group, number

    def forward(self, x: Tensor) -> Tensor:
        """The base projection of x plus the soup of every row."""
        return self.group.output(self._number, x)


def insert(
    model: nn.Module,
    adapters: Sequence[Adapter],
    batch: ActiveBatch,
    *,
    fused: bool,
    packed: bool = True,
    few: FewBits | None = None,
    left: Collection[str] = (),
) -> dict[Paths, SoupGroup]:
    """Replace linear layers of a model by soup layers: those that an adapter changes, and if `fused` on the CPU all others too.

    Args:
        left: paths of layers that stay, as the model's own code reads their weights.
        adapters: in the order of the weights that `batch` serves; none of those in `soupmix.engine.unserved`.
        batch: whose coefficients layers use; it follows the model from now on.
        fused: compute layers that share an input together, on the CPU with weights in oneDNN's layout. The original weights
            are dropped group by group. False: every layer does what it did, bit for bit, and its soup is added.
        packed: False: layers that are fused hold their weights row by row, as a compiled step reads them. few: they hold them
            in its blocks instead.

    Returns:
        The groups by the module paths of their layers.

    Raises:
        BaseModelError: the model has no such linear layer or one of another shape (reason "wrong-base"), or one that is not
            plain in a model that says nothing of quantised weights (reason "quantised"): its weight is no fp32, fp16 or bf16
            tensor.
    """
    held, odd = _parts_by_path(model, adapters)
    held = {path: parts for path, parts in held.items() if path not in left}
    made = {}
    for paths in _groups(model, {path: held[path] for path in held if path not in odd}, fused=fused):
        linears = _linears(model, paths)  # the weights of the group before are gone by now
        everything = (fused and linears[0].weight.device.type == "cpu") or not _keeps_rows_apart(linears[0])
        if everything or any(held[path] for path in paths):
            blocks = None if few is None else few.blocks(paths, [_weight(each) for each in linears])
            base = BaseLinear(linears, packed=fused and packed, blocks=blocks)
            group = SoupGroup(base, [held[path] for path in paths], batch, chosen=_is_chosen(paths[0]))
            made[paths] = _replaced(model, paths, group)
    changed = {path for path, parts in held.items() if parts}
    for path, layer in quantised_linears(model, odd & held.keys(), changed).items():
        if held[path] or layer.spaced or not layer.apart:
            made[(path,)] = _replaced(model, (path,), SoupGroup(layer, [held[path]], batch, chosen=_is_chosen(path)))
    batch.follow(model)
    return made


def check_ranks(groups: dict[Paths, SoupGroup], method: str) -> None:
    """Check that a method is defined here: if it needs that, all adapters of a layer have one rank and no negative scaling.

    Raises:
        RecipeError: it is not defined in some layer (reason "ranks-differ").
    """
    why = request_op(method).one_rank
    for paths, group in groups.items():
        if why is not None and group.pool is not None and not group.pool.rank:
            raise RecipeError(
                f"method '{method}' {why}, so every adapter needs the same rank and a scaling that "
                f"is not negative, which is not so in '{paths[0]}'; use method '{DEFAULT}'",
                reason="ranks-differ",
            )


def _parts_by_path(model: nn.Module, adapters: Sequence[Adapter]) -> tuple[dict[str, tuple[Part, ...]], frozenset[str]]:
    """What every linear layer gets from the adapters, by path, and which layers compute by their own forward.

    Layers that are neither plain nor of these stay as they are.
    """
    quantised = _is_quantised(model)
    changed = {path for adapter in adapters for path in adapter.modules}
    linears = {path: module for path, module in model.named_modules() if is_linear(module, model)}
    for path in sorted(changed - set(linears)):
        raise BaseModelError(f"the base model has no linear layer '{path}'", reason="wrong-base")
    odd = {path: oddity for path, linear in linears.items() if (oddity := _oddity(linear))}
    unfit = {path for path in odd if not quantised and _weight_oddity(linears[path])}
    for path in sorted(changed & unfit):
        raise BaseModelError(
            f"layer '{path}' of the base {odd[path]}, and adapters are added to plain fp32, fp16 or bf16 layers only; "
            "load the base as it was before it was quantised",
            reason="quantised",
        )
    parts = {path: _parts(adapters, path, linear) for path, linear in linears.items() if path not in unfit}
    return parts, frozenset(odd.keys() - unfit)


def _is_quantised(model: nn.Module) -> bool:
    return bool(getattr(model, "is_quantized", False))  # set by transformers where it loaded quantised weights


def is_linear(module: nn.Module, model: nn.Module) -> bool:
    """Whether a module of a model is a linear layer.

    Packages of quantised weights have layers of their own, which are neither of torch nor of transformers.
    """
    if linear_kind(module) or not _is_quantised(model):
        return linear_kind(module) is not None
    return type(getattr(module, "in_features", None)) is int and type(getattr(module, "out_features", None)) is int


def _shape(linear: Any) -> tuple[int, ...]:
    """[out, in]; the weight of a quantised layer may have any other."""
    if _weight_oddity(linear) is None:
        return tuple(_weight(linear).shape)
    return linear.out_features, linear.in_features


def _parts(adapters: Sequence[Adapter], path: str, linear: nn.Module) -> tuple[Part, ...]:
    """The factors of every adapter that changes this layer."""
    found, held = [], _shape(linear)
    for number, adapter in enumerate(adapters):
        factors = adapter.modules.get(path)
        if factors is not None:
            asked = factors.B.shape[0], factors.A.shape[1]
            if asked != held:
                raise BaseModelError(
                    f"module '{path}' of the base is a linear layer of shape {held}, but adapter '{adapter.name}' "
                    f"is for shape {asked}",
                    reason="wrong-base",
                )
            found.append(Part(number, factors.A, factors.B, factors.scaling))
    return tuple(found)


def _linears(model: nn.Module, paths: Paths) -> list[nn.Module]:
    return [module for path in paths if linear_kind(module := model.get_submodule(path))]


def _oddity(linear: nn.Module) -> str | None:
    """What makes a layer more than x W^T + bias in a dtype that the kernels multiply in; None for a plain layer."""
    return _weight_oddity(linear) or (None if _is_plain(linear) else _in_its_own_way(linear))


def _weight_oddity(linear: nn.Module) -> str | None:
    """What makes the weight of a layer no matrix in a dtype that the kernels multiply in; None if it is one."""
    if linear_kind(linear) is None:
        return f"is a {type(linear).__name__}"
    weight = linear.get_parameter("weight").data
    if weight.dtype not in FLOATS.values():
        return f"holds its weight in {weight.dtype}"
    if type(weight) is not Tensor:
        return f"holds its weight as {type(weight).__name__}"
    return None if _is_plain(linear) or linear_kind(linear) == "linear" else _in_its_own_way(linear)


def _is_plain(linear: nn.Module) -> bool:
    return type(linear).forward in plain_forwards() and "forward" not in vars(linear)


def is_unusual(linear: nn.Module) -> bool:
    """Whether a layer with a plain weight computes in a way of its own."""
    return not _is_plain(linear) and _weight_oddity(linear) is None


def _in_its_own_way(linear: nn.Module) -> str:
    return f"is a {type(linear).__name__} that computes in its own way"


def _keeps_rows_apart(linear: nn.Module) -> bool:
    """Whether torch's own product by this weight keeps rows apart on this processor; see `soupmix_kernels.rows_apart`."""
    weight = _weight(linear)
    return whole(weight.shape[1], weight.dtype, weight.device) == weight.shape[1]


def _is_chosen(path: str) -> bool:
    """Whether a layer lies in a list within the list of layers, as an expert of several does: which tokens it gets, and in what
    order, may depend on the tokens."""
    return sum(name.isdecimal() for name in path.split(".")) > 1


def _replaced(model: nn.Module, paths: Paths, group: SoupGroup) -> SoupGroup:
    for number, path in enumerate(paths):
        parent, _, name = path.rpartition(".")
        within = model.get_submodule(parent)
        setattr(within, name, SoupLinear(group, number))
    return group


def _groups(model: nn.Module, held: dict[str, tuple[Part, ...]], *, fused: bool) -> list[Paths]:
    """Every path once; paths that share an input together, if their adapters have the same ranks and they have one dtype."""
    left, found = dict(held), list[Paths]()
    for path in held:
        if path in left:
            parent, _, name = path.rpartition(".")
            names = next((family for family in _SHARED_INPUT if name in family), (name,)) if fused else (name,)
            together = tuple(each for each in (f"{parent}.{one}".lstrip(".") for one in names) if each in left)
            ranks = {part.A.shape[0] for each in together for part in left[each]}
            kinds = {(weight.dtype, weight.device) for weight in map(_weight, _linears(model, together))}
            alike = len(ranks) <= 1 and len(kinds) == 1
            found += [together] if alike else [(each,) for each in together]
            for each in together:
                del left[each]
    return found

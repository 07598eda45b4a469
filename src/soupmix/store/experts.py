"""Factors of all experts in one weight, as PEFT saves them, taken apart into those of every expert.

PEFT wraps a parameter of three dimensions (`peft.tuners.lora.layer.ParamWrapper`): A is [experts * rank, inputs], expert after
expert; B is [outputs, rank * experts], and there the expert is what changes from column to column. Where several parameters of
one module are wrapped, the wrapper of the last is outermost, and each further in is called `.base_layer`.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from soupmix.base import Base, Layer, LayerTable
from soupmix.base.layers import expert_path, weight_path
from soupmix.base.pieces import pieces_of
from soupmix.base.safetensors import StoredTensor
from soupmix.errors import AdapterError
from soupmix.store.config import LoraSettings
from soupmix.store.names import TensorPart

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["by_expert", "check_pieces", "stacked_weights"]

_INNER = ".base_layer"


def stacked_weights(
    parts: Mapping[str, TensorPart],
    slots: Mapping[str, StoredTensor],
    settings: LoraSettings,
    layers: LayerTable,
    where: str,
) -> Mapping[str, Layer]:
    """Module as the file calls it -> the weight of experts that its factors are of.

    Raises:
        AdapterError: the config targets parameters that the base does not have ("unsupported"), the file holds factors of more
            or fewer parameters of a module than it targets ("experts"), of one expert beside those of all ("bad-key"), or they do
            not fit the base ("wrong-base").
    """
    targets = settings.targets
    if targets.parameters and not any(targets.has_parameter(layer.parameter) for layer in layers.values()):
        raise AdapterError(
            f"{where} is of parameters that are no matrices of the base (target_parameters: {targets.parameters[0][:80]!a}): it "
            "was trained on another base, or fold it in with PEFT's merge_and_unload, and use the result as a base",
            reason="unsupported",
        )
    targeted: dict[str, list[str]] = {}
    for path, layer in layers.items():
        if layer.kind == "experts" and targets.has_parameter(layer.parameter):
            targeted.setdefault(layer.parameter.rpartition(".")[0], []).append(path)
    found: dict[str, Layer] = {}
    for owner, modules in _owners(parts, layers).items():
        nested = [owner + _INNER * depth for depth in range(len(modules))]
        paths = targeted.get(owner, [])
        if modules != set(nested) or len(paths) != len(nested):
            raise AdapterError(
                f"{where} holds factors of {len(modules)} parameters of {owner}, and adapter_config.json targets {len(paths)} of "
                "its weights of experts (target_parameters), so it is not known which are which: fold it in with PEFT's "
                "merge_and_unload, and use the result as a base",
                reason="experts",
            )
        found |= {module: layers[path] for module, path in zip(nested, reversed(paths), strict=True)}
    _check_once(parts, found, where)
    ranks = settings.ranks.find((layer.parameter for layer in found.values()), settings.rank)
    for key, part in parts.items():
        if part.module in found:
            _check_shape(key, part, slots[key], found[part.module], int(ranks[found[part.module].parameter]), where)
    return found


def _owners(parts: Mapping[str, TensorPart], layers: LayerTable) -> Mapping[str, set[str]]:
    """Module with weights of experts -> the modules by which the file calls it, wrapped ever so often."""
    owners = {layer.parameter.rpartition(".")[0] for layer in layers.values() if layer.kind == "experts"}
    found: dict[str, set[str]] = {}
    for part in parts.values():
        owner = part.module
        while owner.endswith(_INNER):
            owner = owner.removesuffix(_INNER)
        if owner in owners:
            found.setdefault(owner, set()).add(part.module)
    return found


def _check_once(parts: Mapping[str, TensorPart], found: Mapping[str, Layer], where: str) -> None:
    """Refuse factors of one expert beside those of all experts of the same weight."""
    all_at_once = {layer.path for layer in found.values()}
    for key, part in parts.items():
        if part.module not in found and weight_path(part.module) in all_at_once:
            raise AdapterError(
                f"{where} holds {key[:120]!a} and factors of all experts of {weight_path(part.module)} at once, and an expert "
                "can have only one of them",
                reason="bad-key",
            )


def _check_shape(key: str, part: TensorPart, slot: StoredTensor, layer: Layer, rank: int, where: str) -> None:
    if layer.experts == 1 and layer.transposed:
        raise AdapterError(
            f"{where} adapts the only expert of {layer.path}, which PEFT would add the wrong way round: train it without",
            reason="experts",
        )
    wide = layer.experts * rank
    wanted = (wide, layer.inputs) if part.side == "A" else (layer.outputs, wide)
    if part.transposed or part.side == "alpha" or tuple(slot.shape) != wanted:
        raise AdapterError(
            f"{where} holds {key[:120]!a} of shape {list(slot.shape)}; for {layer.experts} experts of {layer.path} and rank "
            f"{rank} it must be {list(wanted)}: it was trained on another base, or saved by another version of PEFT",
            reason="wrong-base",
        )


def by_expert(layer: Layer, side: str, factor: "Tensor") -> "Iterator[tuple[str, Tensor]]":
    """Path of every expert, and its A [rank, inputs] or B [outputs, rank], of a factor of all of them."""
    rows = factor.shape[0]
    each = (
        factor.reshape(layer.experts, -1, factor.shape[1])
        if side == "A"
        else factor.reshape(rows, -1, layer.experts).permute(2, 0, 1)
    )
    for number, one in enumerate(each):
        yield expert_path(layer.path, number), one


def check_pieces(modules: Iterable[str], base: Base) -> None:
    """Refuse experts that soupmix could not fold into. Raises `BaseModelError` as `pieces_of` does."""
    layers, tensors = base.layers(), base.tensors()
    for path in sorted({weight_path(module) for module in modules if weight_path(module) != module}):
        pieces_of(layers, layers[path], tensors)

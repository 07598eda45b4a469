"""Adapters in other forms than PEFT's, written anew in PEFT's: the same numbers under other names, some of them turned round.

An adapter that changes more than factors of linear layers say is written in a form of the store's own: what every weight is
changed by, as factors under PEFT's names, with a `peft_type` that PEFT refuses.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from soupmix.base import Base, Layer
from soupmix.base.layers import weight_path
from soupmix.base.safetensors import StoredTensor
from soupmix.dtypes import WORDS
from soupmix.errors import AdapterError
from soupmix.files import canonical_json
from soupmix.sealed import Sealed
from soupmix.store.adapter import Factors
from soupmix.store.config import EXTRACT, STORE_FORM, LoraSettings, check_alpha
from soupmix.store.deltas import changed
from soupmix.store.experts import by_expert
from soupmix.store.names import TensorPart
from soupmix.store.reader import MAX_BYTES, check_dtype, factor_key, gain_key, load_tensors, split_key
from soupmix.store.whole import Extra

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["MlxSettings", "check_parts", "in_peft_form", "mlx_settings", "rewritten"]

_FACTORS = (*WORDS, "F64")
_ALPHAS = (*_FACTORS, "I64", "I32")
Number = TypeVar("Number", int, float)
_ROUNDED = 1e-2  # an alpha may be stored as BF16


@dataclass(frozen=True, slots=True)
class MlxSettings:
    """What an adapter_config.json of MLX-LM says: delta = scale * B A whatever the rank, and the name of the base."""

    scale: float
    base: str | None


def mlx_settings(config: Mapping[str, Any], where: str) -> MlxSettings | None:
    """The settings in a config of MLX-LM, or None if it is of somebody else.

    Raises:
        AdapterError: it is of no plain LoRA ("unsupported"), or says no single scale ("bad-config").
    """
    if "peft_type" in config or not {"lora_parameters", "fine_tune_type"} & set(config):
        return None
    if config.get("fine_tune_type", "lora") != "lora":
        raise AdapterError(
            f"{where} says fine_tune_type = {str(config['fine_tune_type'])[:60]!a}, which is no plain LoRA: fuse it with "
            f"mlx_lm.fuse, then {EXTRACT}",
            reason="unsupported",
        )
    said = config.get("lora_parameters")
    if not isinstance(said, dict):
        raise AdapterError(f"{where} lacks 'lora_parameters'", reason="bad-config")
    if "alpha" in said and said["alpha"] != said.get("rank"):
        raise AdapterError(
            f"{where} says a scale and an alpha, of which versions of MLX-LM make different scalings: leave the scale that "
            "is meant, and take alpha out",
            reason="bad-config",
        )
    base = config.get("model")
    scale = check_alpha(said.get("scale"), "lora_parameters.scale", where)
    return MlxSettings(scale, base if isinstance(base, str) else None)


def check_parts(slots: Mapping[str, StoredTensor], parts: Mapping[str, TensorPart], where: str) -> None:
    """Refuse tensors that are no part of a LoRA, or in a dtype that no LoRA is stored in.

    Raises:
        AdapterError: reason "bad-key", "embedding", "dora" or "dtype".
    """
    for key, slot in slots.items():
        if key not in parts:
            split_key(key, where)
        check_dtype(key, slot.dtype, _ALPHAS if parts[key].side == "alpha" else _FACTORS, where)


def in_peft_form(slots: Mapping[str, StoredTensor], parts: Mapping[str, TensorPart]) -> bool:
    """Whether a file is as PEFT writes it: then its bytes are kept."""
    return all(
        key == factor_key(part.module, part.side) and slots[key].dtype in WORDS and not part.transposed
        for key, part in parts.items()
    )


def rewritten(
    tensors: Sealed,
    parts: Mapping[str, TensorPart],
    settings: LoraSettings | MlxSettings | None,
    stacked: Mapping[str, Layer],
    where: str,
    extras: Sequence[Extra] = (),
    base: Base | None = None,
) -> tuple[bytes, bytes]:
    """adapter_config.json and adapter_model.safetensors in PEFT's form.

    Every number stays as it is, but of F64, which is rounded to F32 as PEFT rounds it.

    Args:
        settings: what the config says; None if there is none, as of kohya, where alpha is the rank unless a tensor says it.
        stacked: weights of experts by the modules whose factors are of all experts at once.
        extras: the other tensors of a PEFT adapter that count, whose changes are differences from this `base`.

    Raises:
        AdapterError: a tensor holds no number ("not-finite"), an alpha is no scaling ("bad-config"), with a `base` factors do
            not fit it ("wrong-base", "missing-factor") or their config ("rank"), what would be written is more than a store
            reads ("too-large"), or as `changed`.
        BaseModelError: as `changed`.
    """
    import torch
    from safetensors.torch import save

    factors: dict[str, Tensor] = {}
    alphas: dict[str, float] = {}
    said: dict[str, str] = {}
    held = load_tensors(tensors, where)
    for key, tensor in held.items():
        part = parts.get(key)
        if part is None:
            continue  # a weight of the base's own
        if part.side == "alpha":
            alphas[part.module] = _number(tensor, key, where)
        else:
            single = tensor.float() if tensor.dtype == torch.float64 else tensor
            turned = single.T if part.transposed and single.dim() == 2 else single
            for module, factor in _each(part, turned, stacked):
                factors[factor_key(module, part.side)] = factor.contiguous()
                said[module] = _said(part, settings, stacked)
    ranks = {module: _rank(factors, module) for module in sorted(said)}
    alphas = dict(_agreed(alphas, said, _alphas(said, ranks, settings), settings, where))
    if base is not None and isinstance(settings, LoraSettings):
        scalings = {module: settings.scaling(rank, alphas[module]) for module, rank in ranks.items()}
        before = _paired(factors, scalings, base, where)
        _check_ranks(ranks, said, settings, where)
        after = changed(before, extras, held, base, where)
        if any(each.kind != "linear" or each is not before.get(path) for path, each in after.items()):
            return _in_store_form(after, settings, base, where)
    return _config(ranks, alphas, settings), save(factors, metadata={"format": "pt"})


def _paired(
    factors: "Mapping[str, Tensor]", scalings: Mapping[str, float], base: Base, where: str
) -> Mapping[str, Factors]:
    """Module -> its factors, which fit the base."""
    found, shapes = {}, base.layers().every_shape()
    for module, scaling in scalings.items():
        A, B = (factors.get(factor_key(module, side)) for side in "AB")
        if A is None or B is None:
            raise AdapterError(f"{where} has only one factor for {module}", reason="missing-factor")
        outputs, inputs = shapes.get(module, (0, 0))
        if A.dim() != 2 or B.dim() != 2 or A.shape[1] != inputs or B.shape != (outputs, A.shape[0]):
            raise AdapterError(
                f"{where} has factors of {module} that do not fit the base: A {list(A.shape)} must be [rank, {inputs}], B "
                f"{list(B.shape)} [{outputs}, rank]",
                reason="wrong-base",
            )
        kind = base.layers()[weight_path(module)].kind
        found[module] = Factors(A, B, scaling, kind="embedding" if kind == "embedding" else "linear")
    return found


def _check_ranks(ranks: Mapping[str, int], said: Mapping[str, str], settings: LoraSettings, where: str) -> None:
    """Refuse factors of another rank than the config says: which of the two their scaling was by is not known."""
    wanted = settings.ranks.find(set(said.values()), settings.rank)
    for module, rank in ranks.items():
        if rank != wanted[said[module]]:
            raise AdapterError(
                f"{where} has rank {rank} for {module}, adapter_config.json says {wanted[said[module]]:g}",
                reason="rank",
            )


def _in_store_form(
    changes: Mapping[str, Factors], settings: LoraSettings, base: Base, where: str
) -> tuple[bytes, bytes]:
    from safetensors.torch import save

    tensors: dict[str, Tensor] = {}
    for path, each in changes.items():
        tensors |= {factor_key(path, "A"): each.A.contiguous(), factor_key(path, "B"): each.B.contiguous()}
        tensors |= {} if each.gain is None else {gain_key(path): each.gain}
    size = sum(each.numel() * each.element_size() for each in tensors.values())
    if size > MAX_BYTES - (1 << 22):
        raise AdapterError(
            f"{where} changes weights of {size / 1e9:.1f} GB as they are, and a store reads {MAX_BYTES / 1e9:.1f} GB of an "
            f"adapter at most: {EXTRACT}",
            reason="too-large",
        )
    ranks = {path: each.rank for path, each in sorted(changes.items()) if each.kind != "vector"}
    power = 0.5 if settings.rslora else 1.0
    alphas = {path: changes[path].scaling * rank**power for path, rank in ranks.items()}
    more = {
        "peft_type": STORE_FORM,
        "base_digest": base.digest,
        "kinds": {path: each.kind for path, each in sorted(changes.items()) if each.kind != "linear"},
    }
    return _config(ranks, alphas, settings, (settings.rank, settings.alpha), more), save(
        tensors, metadata={"format": "pt"}
    )


def _each(part: TensorPart, factor: "Tensor", stacked: Mapping[str, Layer]) -> "Iterable[tuple[str, Tensor]]":
    layer = stacked.get(part.module)
    return [(part.module, factor)] if layer is None else by_expert(layer, part.side, factor)


def _said(part: TensorPart, settings: LoraSettings | MlxSettings | None, stacked: Mapping[str, Layer]) -> str:
    """What the patterns of a config are matched with: the path of a module, or the name of a parameter that is targeted."""
    if part.module in stacked:
        return stacked[part.module].parameter
    name = f"{part.said}.weight"
    return name if isinstance(settings, LoraSettings) and settings.targets.has_parameter(name) else part.said


def _rank(factors: "Mapping[str, Tensor]", module: str) -> int:
    """Rows of A; what does not fit is found by the reader."""
    A = factors.get(factor_key(module, "A"))
    return A.shape[0] if A is not None and A.dim() == 2 and A.shape[0] else 1


def _number(tensor: "Tensor", key: str, where: str) -> float:
    if tensor.numel() != 1:
        raise AdapterError(
            f"{where} holds {key!a} of shape {list(tensor.shape)}; an alpha is one number", reason="shape"
        )
    return check_alpha(float(tensor.item()), f"{key[:120]!a}", where)


def _alphas(
    said: Mapping[str, str], ranks: Mapping[str, int], settings: LoraSettings | MlxSettings | None
) -> Mapping[str, float]:
    if isinstance(settings, LoraSettings):
        found = settings.alphas.find(set(said.values()), settings.alpha)
        return {module: found[name] for module, name in said.items()}
    return {module: rank * (settings.scale if settings is not None else 1.0) for module, rank in ranks.items()}


def _agreed(
    alphas: Mapping[str, float],
    said: Mapping[str, str],
    by_config: Mapping[str, float],
    settings: LoraSettings | MlxSettings | None,
    where: str,
) -> Mapping[str, float]:
    """The alphas that tensors say; where a config says them too, both must say the same."""
    for module, alpha in alphas.items():
        if module not in said:
            raise AdapterError(f"{where} has an alpha and no factors for {module}", reason="missing-factor")
        if settings is not None and not math.isclose(alpha, by_config[module], rel_tol=_ROUNDED):
            raise AdapterError(
                f"{where} says alpha {alpha:g} for {module}, adapter_config.json says {by_config[module]:g}: one of them "
                "is wrong",
                reason="bad-config",
            )
    return by_config if settings is not None else {**by_config, **alphas}


def _config(
    ranks: Mapping[str, int],
    alphas: Mapping[str, float],
    settings: LoraSettings | MlxSettings | None,
    usual: tuple[int, float] | None = None,
    more: Mapping[str, object] = MappingProxyType({}),
) -> bytes:
    first = next(iter(ranks))
    rank, alpha = usual or (ranks[first], alphas[first])
    fields: dict[str, object] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": None if settings is None else settings.base,
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": _patterns(ranks, rank),
        "alpha_pattern": _patterns({module: alphas[module] for module in ranks}, alpha),
        "target_modules": sorted(set(map(weight_path, ranks))),
        "use_rslora": isinstance(settings, LoraSettings) and settings.rslora,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    return canonical_json(fields | dict(more))


def _patterns(values: Mapping[str, Number], usual: Number) -> Mapping[str, Number]:
    """Pattern -> what the modules that it matches have, where that is not usual. Experts of one kind have one together."""
    kinds: dict[str, set[Number]] = {}
    for module, value in values.items():
        kinds.setdefault(_kind(module), set()).add(value)
    return {
        _kind(module) if len(kinds[_kind(module)]) == 1 else _exactly(module): value
        for module, value in values.items()
        if value != usual
    }


def _kind(module: str) -> str:
    """A pattern of PEFT's that matches an expert and all others of its name, or this module and no other."""
    weight = weight_path(module)
    return _exactly(module) if weight == module else weight.rpartition(".")[2] + r"\[\d+\]"


def _exactly(module: str) -> str:
    """A pattern of PEFT's that matches this module and no other."""
    return "^" + module.replace(".", r"\.").replace("[", r"\[").replace("]", r"\]")

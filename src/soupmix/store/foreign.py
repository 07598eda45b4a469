"""Adapters in other forms than PEFT's, written anew in PEFT's: the same numbers under other names, some of them turned round."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from soupmix.base import Layer
from soupmix.base.layers import weight_path
from soupmix.base.safetensors import StoredTensor
from soupmix.dtypes import WORDS
from soupmix.errors import AdapterError
from soupmix.files import canonical_json
from soupmix.sealed import Sealed
from soupmix.store.config import EXTRACT, LoraSettings, check_alpha
from soupmix.store.experts import by_expert
from soupmix.store.names import TensorPart
from soupmix.store.reader import check_dtype, factor_key, load_tensors, split_key

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
) -> tuple[bytes, bytes]:
    """adapter_config.json and adapter_model.safetensors in PEFT's form.

    Every number stays as it is, but of F64, which is rounded to F32 as PEFT rounds it.

    Args:
        settings: what the config says; None if there is none, as of kohya, where alpha is the rank unless a tensor says it.
        stacked: weights of experts by the modules whose factors are of all experts at once.

    Raises:
        AdapterError: a tensor holds no number ("not-finite"), or an alpha is no scaling ("bad-config").
    """
    import torch
    from safetensors.torch import save

    factors: dict[str, Tensor] = {}
    alphas: dict[str, float] = {}
    said: dict[str, str] = {}
    for key, tensor in load_tensors(tensors, where).items():
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
    scalings = _agreed(alphas, said, _alphas(said, ranks, settings), settings, where)
    return _config(ranks, scalings, settings), save(factors, metadata={"format": "pt"})


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
    ranks: Mapping[str, int], alphas: Mapping[str, float], settings: LoraSettings | MlxSettings | None
) -> bytes:
    first = next(iter(ranks))
    rank, alpha = ranks[first], alphas[first]
    fields = {
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
    return canonical_json(fields)


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

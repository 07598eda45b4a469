"""A plain PEFT LoRA folder: the merged deltas as one adapter of scaling 1, exact or recompressed to a rank."""

import itertools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from soupmix.errors import OutputError, RecipeError
from soupmix.files import canonical_json
from soupmix.merge.result import Errors
from soupmix.merge.sink import Sink
from soupmix.merge.stack import Stack, compress, distance, one_thread
from soupmix.merge.tensors import DTYPES, Spec, header, raw

__all__ = ["WEIGHTS", "AdapterLosses", "write_adapter"]

WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True, slots=True)
class AdapterLosses:
    """What an exported adapter lost of the exact deltas: by cutting the rank, and in all (rounding included)."""

    truncation: Errors
    total: Errors


def write_adapter(
    sink: Sink, modules: Mapping[str, Stack], *, rank: int | None, dtype: str, base_name: str
) -> AdapterLosses:
    """Write `adapter_model.safetensors` and `adapter_config.json` so that PEFT's delta is B A of every module.

    Args:
        modules: module path -> merged update; at least one.
        rank: highest rank of a module; None keeps every column (the sum of the ranks of the adapters).
        dtype: "F32", "F16" or "BF16" of the stored factors.

    Raises:
        RecipeError: `rank` is not positive ("bad-rank").
        OutputError: a value does not fit the dtype ("overflow").
    """
    if rank is not None and rank < 1:
        raise RecipeError(f"rank {rank} was asked for; it must be at least 1", reason="bad-rank")
    truncated: dict[str, list[float]] = {}
    errors: dict[str, tuple[float, float]] = {}
    stored: dict[str, Tensor] = {}
    for path, stack in sorted(modules.items()):
        name_A, name_B = f"base_model.model.{path}.lora_A.weight", f"base_model.model.{path}.lora_B.weight"
        with one_thread():
            B, A, *truncated[path] = _factors(stack, rank)
            stored[name_A], stored[name_B] = _rounded(name_A, A, dtype), _rounded(name_B, B, dtype)
            errors[path] = distance(stack, stored[name_B], stored[name_A])
    _write_tensors(sink, stored, dtype)
    ranks = {path: stored[f"base_model.model.{path}.lora_A.weight"].shape[0] for path in sorted(modules)}
    sink.write("adapter_config.json", _config(ranks, base_name))
    return AdapterLosses(Errors.of({path: (lost, norm) for path, (lost, norm) in truncated.items()}), Errors.of(errors))


def _factors(stack: Stack, rank: int | None) -> tuple[Tensor, Tensor, float, float]:
    """B and A in float64, the norm that cutting the rank lost, the norm of all."""
    if rank is None or rank >= stack.rank:
        return stack.scaled(), stack.A.double(), 0.0, 1.0
    return compress(stack, rank)


def _rounded(name: str, factor: Tensor, dtype: str) -> Tensor:
    rounded = factor.to(DTYPES[dtype]).contiguous()
    if not torch.isfinite(rounded).all():
        raise OutputError(
            f"{name} holds values that do not fit {dtype}; write the adapter with --dtype fp32", reason="overflow"
        )
    return rounded


def _write_tensors(sink: Sink, stored: Mapping[str, Tensor], dtype: str) -> None:
    specs = [Spec(name, dtype, tuple(tensor.shape), tensor.nbytes) for name, tensor in stored.items()]
    with sink.stream(WEIGHTS) as stream:
        stream.write_all(itertools.chain([header(specs)], (raw(tensor) for tensor in stored.values())))


def _config(ranks: Mapping[str, int], base_name: str) -> bytes:
    """alpha = rank, so that PEFT scales by 1; modules by full path, so that no other layer matches."""
    counts = Counter(ranks.values())
    common = max(counts, key=lambda rank: (counts[rank], rank))
    pattern = {path: rank for path, rank in ranks.items() if rank != common}
    return canonical_json(
        {
            "alpha_pattern": pattern,
            "base_model_name_or_path": base_name,
            "bias": "none",
            "fan_in_fan_out": False,
            "inference_mode": True,
            "init_lora_weights": True,
            "lora_alpha": common,
            "lora_dropout": 0.0,
            "modules_to_save": None,
            "peft_type": "LORA",
            "r": common,
            "rank_pattern": pattern,
            "target_modules": sorted(ranks),
            "task_type": "CAUSAL_LM",
            "use_dora": False,
            "use_rslora": False,
        }
    )

"""A plain PEFT LoRA folder: the merged deltas as one adapter of scaling 1, exact or recompressed to a rank.

It means one thing to every reader: all modules have one rank, r, and lora_alpha = r. Modules of less are filled with zeros.
Were their ranks to differ, PEFT would take alpha from patterns, llama.cpp divide one alpha by the rank of each tensor
(src/llama-adapter.h, `get_scale`), and vLLM scale all by lora_alpha / r (vllm/lora/peft_helper.py): three models.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from soupmix.base.layers import weight_path
from soupmix.errors import OutputError, RecipeError
from soupmix.files import canonical_json
from soupmix.merge.approximation import apart, nearest
from soupmix.merge.entries import Entries, Merged
from soupmix.merge.result import Errors
from soupmix.merge.sink import Sink
from soupmix.merge.stack import Stack, compress, distance, one_thread
from soupmix.merge.tensors import DTYPES, Spec, header, raw
from soupmix.store.config import MAX_RANK
from soupmix.store.reader import MAX_BYTES

__all__ = ["WEIGHTS", "AdapterLosses", "Made", "filled", "made_factors", "readers_refuse", "write_adapter"]

WEIGHTS = "adapter_model.safetensors"
_VLLM_RANK = 512  # the most that --max-lora-rank may be (vllm/config/lora.py: MaxLoRARanks)
_MOST_BYTES = MAX_BYTES - (1 << 22)  # the header is in the file too


@dataclass(frozen=True, slots=True)
class AdapterLosses:
    """What an exported adapter lost of the exact deltas: by cutting the rank, and in all (rounding included)."""

    truncation: Errors
    total: Errors

    def to_dict(self) -> Mapping[str, Errors]:
        """As `Result.errors` has them."""
        return {"truncation": self.truncation, "total": self.total}


@dataclass(frozen=True, slots=True)
class Made:
    """The factors of an adapter.

    Attributes:
        rank: of the module that has most. factors: module path -> A [r, in], B [out, r] in the stored dtype, r at most
            `rank`, sorted by path. losses: what they lost.
    """

    rank: int
    factors: Mapping[str, tuple[Tensor, Tensor]]
    losses: AdapterLosses


def write_adapter(
    sink: Sink, modules: Mapping[str, Merged], *, rank: int | None, dtype: str, base_name: str
) -> AdapterLosses:
    """Write `adapter_model.safetensors` and `adapter_config.json` so that every reader's delta is B A of every module.

    Args:
        modules: module path -> merged update; at least one.
        rank: highest rank of a module; None keeps every column (the sum of the ranks of the adapters).
        dtype: "F32", "F16" or "BF16" of the stored factors.

    Raises:
        RecipeError: `rank` is not positive, or the adapter would be of a rank that no store takes ("bad-rank"); the soup
            changes experts that lie in one weight ("experts"), or more than factors of linear layers say ("whole").
        OutputError: a value does not fit the dtype ("overflow").
    """
    made = made_factors(modules, rank=rank, dtype=dtype)
    stored: dict[str, Tensor] = {}
    for path, (A, B) in made.factors.items():
        stored[f"base_model.model.{path}.lora_A.weight"], stored[f"base_model.model.{path}.lora_B.weight"] = A, B
    _write_tensors(sink, stored, made.rank, dtype)
    sink.write("adapter_config.json", _config(made.factors, made.rank, base_name))
    return made.losses


def made_factors(modules: Mapping[str, Merged], *, rank: int | None, dtype: str) -> Made:
    """The factors of every module, as they are stored. Arguments and errors as of `write_adapter`."""
    common = _common_rank(modules, rank)
    truncated: dict[str, tuple[float, float]] = {}
    errors: dict[str, tuple[float, float]] = {}
    stored: dict[str, tuple[Tensor, Tensor]] = {}
    for path, stack in sorted(modules.items()):
        with one_thread():
            exact = stack.matrix() if isinstance(stack, Entries) else stack
            B, A, lost, norm = _factors(exact, stack.rank if rank is None else rank)
            stored[path] = A, B = (
                _rounded(f"base_model.model.{path}.lora_A.weight", A, dtype),
                _rounded(f"base_model.model.{path}.lora_B.weight", B, dtype),
            )
            truncated[path], errors[path] = (lost, norm), _distance(exact, B, A)
    return Made(common, stored, AdapterLosses(Errors.of(truncated), Errors.of(errors)))


def readers_refuse(modules: Mapping[str, Merged], *, rank: int | None, dtype: str) -> tuple[str, ...]:
    """Which readers will not take the adapter that `write_adapter` would write, and what to do: one sentence each.

    Raises:
        RecipeError: as `write_adapter` does ("bad-rank", "experts", "whole").
    """
    common, width = _common_rank(modules, rank), DTYPES[dtype].itemsize
    size = width * common * sum(sum(stack.shape) for stack in modules.values())
    said = []
    if common > _VLLM_RANK:
        said.append(
            f"vLLM reads adapters of rank {_VLLM_RANK} at most (--max-lora-rank), and this one has {common}; for vLLM "
            f"write it with --rank {_VLLM_RANK}"
        )
    if size > _MOST_BYTES:
        said.append(
            f"its {size / 1e9:.1f} GB are more than the {MAX_BYTES / 1e9:.1f} GB that `soupmix adapters add` reads; to add "
            f"it to a store write it with --rank {max(1, common * _MOST_BYTES // size)}"
        )
    return tuple(said)


def _common_rank(modules: Mapping[str, Merged], rank: int | None) -> int:
    """The largest rank that a module will have."""
    whole = sorted(path for path, stack in modules.items() if stack.kind != "linear" or stack.gain is not None)
    if whole:
        others = f" and {len(whole) - 1} more" if len(whole) > 1 else ""
        raise RecipeError(
            f"the soup changes {whole[0]}{others} by more than factors of linear layers (embeddings, biases, norms or DoRA's "
            "lengths), and a plain adapter holds no more: merge it into a model (--as model), or leave that adapter out",
            reason="whole",
        )
    experts = sorted(path for path in modules if weight_path(path) != path)
    if experts:
        raise RecipeError(
            f"the soup changes experts ({experts[0]} and {len(experts) - 1} more), which lie in one weight, and readers of "
            "adapters do not agree on their factors: merge it into a model (--as model), or leave the adapters of experts out",
            reason="experts",
        )
    if rank is not None and rank < 1:
        raise RecipeError(f"rank {rank} was asked for; it must be at least 1", reason="bad-rank")
    common = max(_rank(stack, rank) for stack in modules.values())
    if common > MAX_RANK:
        raise RecipeError(
            f"the adapter would have rank {common}, and no store takes more than {MAX_RANK}; write it with a lower one, "
            f"such as --rank {_VLLM_RANK}",
            reason="bad-rank",
        )
    return common


def _rank(stack: Merged, rank: int | None) -> int:
    if isinstance(stack, Stack) and (rank is None or rank >= stack.rank):
        return stack.rank
    return min(stack.rank if rank is None else rank, *stack.shape)


def _factors(exact: Stack | Tensor, rank: int) -> tuple[Tensor, Tensor, float, float]:
    """B and A in float64, the norm that cutting the rank lost, the norm of all."""
    if isinstance(exact, Tensor):
        return nearest(exact, rank)
    if rank >= exact.rank:
        return exact.scaled(), exact.A.double(), 0.0, 1.0
    return compress(exact, rank)


def _distance(exact: Stack | Tensor, B: Tensor, A: Tensor) -> tuple[float, float]:
    return apart(exact, B, A) if isinstance(exact, Tensor) else distance(exact, B, A)


def _rounded(name: str, factor: Tensor, dtype: str) -> Tensor:
    rounded = factor.to(DTYPES[dtype]).contiguous()
    if not torch.isfinite(rounded).all():
        raise OutputError(
            f"{name} holds values that do not fit {dtype}; write the adapter with --dtype fp32", reason="overflow"
        )
    return rounded


def _write_tensors(sink: Sink, stored: Mapping[str, Tensor], rank: int, dtype: str) -> None:
    """Factors of less than the common rank are filled with zeros as they are written."""
    width = DTYPES[dtype].itemsize
    shapes = {name: _shape(name, tensor, rank) for name, tensor in stored.items()}
    specs = [Spec(name, dtype, shape, width * shape[0] * shape[1]) for name, shape in shapes.items()]
    with sink.stream(WEIGHTS) as stream:
        stream.write(header(specs))
        for name, tensor in stored.items():
            stream.write(raw(filled(tensor, shapes[name])))


def _shape(name: str, factor: Tensor, rank: int) -> tuple[int, int]:
    rows, columns = factor.shape
    return (rank, columns) if name.endswith(".lora_A.weight") else (rows, rank)


def filled(factor: Tensor, shape: tuple[int, int]) -> Tensor:
    """A factor with zeros behind its rows and columns."""
    return pad(factor, (0, shape[1] - factor.shape[1], 0, shape[0] - factor.shape[0]))


def _config(paths: Iterable[str], rank: int, base_name: str) -> bytes:
    """alpha = rank, so that every reader scales by 1; modules by full path, so that no other layer matches."""
    return canonical_json(
        {
            "alpha_pattern": {},
            "base_model_name_or_path": base_name,
            "bias": "none",
            "fan_in_fan_out": False,
            "inference_mode": True,
            "init_lora_weights": True,
            "lora_alpha": rank,
            "lora_dropout": 0.0,
            "modules_to_save": None,
            "peft_type": "LORA",
            "r": rank,
            "rank_pattern": {},
            "target_modules": sorted(paths),
            "task_type": "CAUSAL_LM",
            "use_dora": False,
            "use_rslora": False,
        }
    )

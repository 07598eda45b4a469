"""How llama.cpp has a base: its architecture, its names of weights, the order of their rows, and the numbers that say what it is.

Known of llama.cpp's `conversion` programs and of its src/llama-model.cpp. A family that is not listed is refused, and so is a
setting whose meaning there is not known: a layout that is guessed gives another model in silence.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor

from soupmix.base import Base
from soupmix.base.companions import config_of
from soupmix.errors import BaseModelError

if TYPE_CHECKING:
    from gguf import GGUFWriter

__all__ = ["ROPE_FACTORS", "GgufLayout", "describe", "gguf_layout", "gguf_names", "reordered", "rope_factors"]

ROPE_FACTORS: Final = "rope_freqs.weight"
_FAMILIES: Final = {
    "LlamaForCausalLM": ("llama", True),
    "MistralForCausalLM": ("llama", True),
    "Qwen2ForCausalLM": ("qwen2", False),
    "Qwen3ForCausalLM": ("qwen3", False),
}
"""Class of transformers -> architecture of llama.cpp, and whether its converter reorders the rows of q and k."""
_ROPES: Final = {
    "default": {"rope_type", "type", "rope_theta"},
    "linear": {"rope_type", "type", "rope_theta", "factor"},
    "yarn": {"rope_type", "type", "rope_theta", "factor", "original_max_position_embeddings"},
    "llama3": {
        *("rope_type", "type", "rope_theta", "factor", "original_max_position_embeddings"),
        *("low_freq_factor", "high_freq_factor"),
    },
}
"""Way to stretch positions -> all that it may say of itself."""


@dataclass(frozen=True, slots=True)
class GgufLayout:
    """How llama.cpp has a base.

    Attributes:
        architecture: its name there. layers: how many. heads: of q and k, by llama.cpp's name of the layer, where rows are
            reordered; None: rows keep their order.
        tied: whether input and output embeddings are one. config: config.json.
    """

    architecture: str
    layers: int
    heads: Mapping[str, int] | None
    tied: bool
    config: Mapping[str, Any]

    def heads_of(self, name: str) -> int | None:
        """How many heads the rows of a weight or bias are reordered in; None: they keep their order."""
        return (self.heads or {}).get(name.removesuffix(".weight").removesuffix(".bias").rpartition(".")[2])


def gguf_layout(base: Base) -> GgufLayout:
    """The layout of a base. Raises `BaseModelError` if it is not known ("no-gguf-layout"), or config.json is damaged."""
    config = config_of(base.folder)
    listed = config.get("architectures")
    kind = listed[0] if isinstance(listed, list) and listed else None
    if not isinstance(kind, str) or kind not in _FAMILIES:
        raise BaseModelError(
            f"base {base.name} is a {str(kind)[:80]!a}, and how llama.cpp names and orders its weights is not known here (known: "
            f"{', '.join(_FAMILIES)}); write what PEFT and transformers read (--as adapter, --as model) and convert it with "
            "llama.cpp's own convert_lora_to_gguf.py or convert_hf_to_gguf.py",
            reason="no-gguf-layout",
        )
    architecture, is_reordered = _FAMILIES[kind]
    heads = _natural(config, "num_attention_heads")
    of_keys = _natural(config, "num_key_value_heads", heads)
    tied = config.get("tie_word_embeddings") is True
    layers = _natural(config, "num_hidden_layers")
    return GgufLayout(
        architecture, layers, {"attn_q": heads, "attn_k": of_keys} if is_reordered else None, tied, config
    )


def gguf_names(layout: GgufLayout, rows: Mapping[str, int], base: Base) -> Mapping[str, str]:
    """Path -> llama.cpp's name of it, with the ending that the path has.

    Args:
        rows: path of a module, or of a parameter that ends in ".weight" or ".bias" -> how many rows it has.

    Raises:
        BaseModelError: llama.cpp has no such weight ("no-gguf-layout"), or config.json and the rows do not agree ("bad-config").
    """
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    (kind,) = [arch for arch, name in MODEL_ARCH_NAMES.items() if name == layout.architecture]
    known = get_tensor_name_map(kind, layout.layers)
    found: dict[str, str] = {}
    for path, count in rows.items():
        name = known.get_name(path, try_suffixes=(".weight", ".bias"))
        if name is None or (name.partition(".")[0] == "output" and layout.tied):
            raise BaseModelError(
                f"the result holds {path}, for which llama.cpp has no weight of its own in base {base.name}; leave out the "
                "adapter that changes it, or write a model (--as model)",
                reason="no-gguf-layout",
            )
        heads = layout.heads_of(name)
        if heads is not None and count % (2 * heads):
            raise BaseModelError(
                f"config.json of the base gives {heads} heads, and {path} has {count} rows", reason="bad-config"
            )
        found[path] = name
    return found


def reordered(rows: Tensor, per_head: int | None) -> Tensor:
    """Rows from (head, half, place in it) to (head, place, half).

    Where llama.cpp rotates neighbours and transformers halves (the Llama family), rows of q and k are in another order.

    Args:
        rows: [whole heads, columns]. per_head: rows of a head; None: they keep their order.
    """
    if per_head is None:
        return rows
    return rows.reshape(-1, 2, per_head // 2, rows.shape[1]).transpose(1, 2).reshape(rows.shape)


def describe(writer: "GGUFWriter", layout: GgufLayout, base: Base) -> None:
    """Write what llama.cpp has to know to run the model, its vocabulary aside.

    Raises:
        BaseModelError: config.json asks for what llama.cpp has no setting for ("no-gguf-layout"), or is damaged ("bad-config").
    """
    config = layout.config
    heads, hidden = _natural(config, "num_attention_heads"), _natural(config, "hidden_size")
    width = _natural(config, "head_dim", hidden // heads)
    _check_usual(config, base)
    writer.add_block_count(layout.layers)
    writer.add_context_length(_context(config))
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(_natural(config, "intermediate_size"))
    writer.add_head_count(heads)
    writer.add_head_count_kv(_natural(config, "num_key_value_heads", heads))
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_layer_norm_rms_eps(_number(config, "rms_norm_eps"))
    writer.add_rope_dimension_count(width)
    writer.add_vocab_size(_natural(config, "vocab_size"))
    _describe_rope(writer, _rope(config, base))


def rope_factors(layout: GgufLayout, base: Base) -> Tensor | None:
    """By how much every frequency is slowed down [head / 2] fp32, where llama.cpp has that as a tensor (Llama 3.1 and later).

    Wavelengths that fit often into the old context stay, those that hardly fit are stretched by the factor, and between them
    frequencies go over linearly in the number of turns.
    """
    said = _rope(layout.config, base)
    if _rope_type(said) != "llama3":
        return None
    config = layout.config
    width = _natural(config, "head_dim", _natural(config, "hidden_size") // _natural(config, "num_attention_heads"))
    factor, low, high = (_number(said, key) for key in ("factor", "low_freq_factor", "high_freq_factor"))
    frequencies = _number(said, "rope_theta") ** -(torch.arange(0, width, 2, dtype=torch.float64) / width)
    turns = _natural(said, "original_max_position_embeddings") * frequencies / (2 * math.pi)
    kept = ((turns - low) / (high - low)).clamp(0.0, 1.0)
    return (1.0 / ((1.0 - kept) / factor + kept)).float()


def _describe_rope(writer: "GGUFWriter", said: Mapping[str, Any]) -> None:
    from gguf import RopeScalingType

    writer.add_rope_freq_base(_number(said, "rope_theta"))
    if (kind := _rope_type(said)) in ("linear", "yarn"):
        writer.add_rope_scaling_type(RopeScalingType(kind))
        writer.add_rope_scaling_factor(_number(said, "factor"))
    if kind == "yarn":
        writer.add_rope_scaling_orig_ctx_len(_natural(said, "original_max_position_embeddings"))


def _rope(config: Mapping[str, Any], base: Base) -> Mapping[str, Any]:
    """How positions are turned, as transformers has it since its version 5 or before."""
    said = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(said, Mapping):
        raise BaseModelError("config.json of the base gives rope_parameters that are no mapping", reason="bad-config")
    said = {"rope_theta": config.get("rope_theta", 10000.0)} | {
        key: each for key, each in said.items() if each is not None
    }
    unknown: Collection[str] = said.keys() - _ROPES.get(_rope_type(said), set())
    if unknown:
        _refuse(base, f"rotates positions by {_rope_type(said)[:40]!a} with {', '.join(sorted(unknown))[:80]!a}")
    return said


def _rope_type(said: Mapping[str, Any]) -> str:
    return str(said.get("rope_type", said.get("type", "default")))


def _check_usual(config: Mapping[str, Any], base: Base) -> None:
    for key, usual in (("hidden_act", "silu"), ("partial_rotary_factor", 1.0)):
        if config.get(key, usual) != usual:
            _refuse(base, f"has {key} = {str(config[key])[:40]!a}")


def _refuse(base: Base, why: str) -> None:
    raise BaseModelError(
        f"base {base.name} {why}, and how llama.cpp is told so is not known here; write a model (--as model) and convert it with "
        "llama.cpp's own convert_hf_to_gguf.py",
        reason="no-gguf-layout",
    )


def _context(config: Mapping[str, Any]) -> int:
    """Most tokens. llama.cpp has no sliding window in these architectures, so there are no more than fit into one."""
    most = _natural(config, "max_position_embeddings")
    is_used = config.get("use_sliding_window", config.get("model_type") == "mistral")
    return min(most, _natural(config, "sliding_window", most)) if is_used else most


def _natural(config: Mapping[str, Any], key: str, otherwise: int | None = None) -> int:
    value = config.get(key)
    value = otherwise if value is None else value
    if type(value) is not int or not 0 < value < 1 << 24:
        raise BaseModelError(f"config.json of the base gives {key} = {str(value)[:80]!a}", reason="bad-config")
    return value


def _number(config: Mapping[str, Any], key: str) -> float:
    value = config.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e12:
        raise BaseModelError(f"config.json of the base gives {key} = {str(value)[:80]!a}", reason="bad-config")
    return float(value)

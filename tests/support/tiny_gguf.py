"""The picoscopic model as a GGUF file."""

import json
from pathlib import Path

import gguf
import numpy as np
from safetensors.numpy import load_file

from soupmix.base import Base

__all__ = ["write_gguf"]

_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
_HEADS = {"attn_q": 4, "attn_k": 2}


def _gguf_name(name: str) -> str:
    if name == "model.embed_tokens.weight":
        return "token_embd.weight"
    if name == "model.norm.weight":
        return "output_norm.weight"
    _, _, layer, module = name.removesuffix(".weight").split(".", 3)
    return f"blk.{layer}.{_NAMES[module]}.weight"


def _interleaved(name: str, weight: np.ndarray) -> np.ndarray:
    """The row order in which GGUF keeps the rotary halves of a Llama's q and k."""
    for part, heads in _HEADS.items():
        if part in name:
            split = weight.reshape(heads, 2, weight.shape[0] // heads // 2, -1)
            return np.ascontiguousarray(split.swapaxes(1, 2).reshape(weight.shape))
    return weight


def write_gguf(base: Base, path: Path, kind: str = "F32") -> Path:
    """The picoscopic model as a GGUF file, so that a conversion takes no time and has a known answer.

    Args:
        kind: of the matrices whose rows are whole groups of 32 numbers; all else is fp32.
    """
    vocabulary = json.loads((base.folder / "tokenizer.json").read_bytes())["model"]["vocab"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(2)
    writer.add_context_length(512)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(48)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(8)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(len(vocabulary))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list([*sorted(vocabulary, key=vocabulary.__getitem__)[:-1], "ab"])
    writer.add_token_types([3 if number < 5 else 1 for number in range(len(vocabulary))])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(3)
    writer.add_eos_token_id(1)
    writer.add_pad_token_id(0)
    writer.add_chat_template("{{ messages[0]['content'] }}")
    for name, weight in load_file(base.folder / "model.safetensors").items():
        numbers, raw = _interleaved(_gguf_name(name), weight), None
        if kind != "F32" and weight.ndim == 2 and not weight.shape[1] % 32:
            raw = gguf.GGMLQuantizationType[kind]
            numbers = gguf.quants.quantize(numbers, raw)
        writer.add_tensor(_gguf_name(name), numbers, raw_dtype=raw)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path

"""llama.cpp itself, as llama-cpp-python from an environment of its own (`make test-llama`): a base as GGUF, its logits with a
LoRA, and its tokens."""

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFWriter
from safetensors.torch import load_file
from torch import Tensor

__all__ = ["llama_greedy", "llama_logits", "llama_tokens", "needs_llama_cpp", "write_base"]

_PYTHON = Path(os.environ.get("SOUPMIX_LLAMA_PYTHON", Path(__file__).parents[2] / ".venv-llama/bin/python"))
needs_llama_cpp = pytest.mark.skipif(not _PYTHON.exists(), reason="no .venv-llama with llama-cpp-python")

_READER = """
import json, sys
from llama_cpp import Llama
asked = json.load(sys.stdin)
model = Llama(asked["base"], lora_path=asked["lora"], n_ctx=256, logits_all=True, verbose=False, n_threads=1)
model.eval(asked["ids"])
json.dump(model.scores[: len(asked["ids"])].tolist(), sys.stdout)
"""
_GREEDY = """
import json, sys
from llama_cpp import Llama
asked = json.load(sys.stdin)
model = Llama(asked["base"], lora_path=asked["lora"], n_ctx=256, logits_all=True, verbose=False, n_threads=1)
model.eval(asked["ids"])
said = []
while len(said) < asked["count"]:
    said.append(int(model.scores[model.n_tokens - 1].argmax()))
    model.eval(said[-1:])
json.dump(said, sys.stdout)
"""
_TOKENS = """
import json, sys
from llama_cpp import Llama
asked = json.load(sys.stdin)
model = Llama(asked["base"], vocab_only=True, verbose=False)
json.dump([model.tokenize(text.encode()) for text in asked["texts"]], sys.stdout)
"""
_PARTS = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip


def write_base(folder: Path, file: Path) -> Path:
    """A Llama of transformers as GGUF of fp32, without a tokenizer."""
    config = json.loads((folder / "config.json").read_text())
    heads = config["num_attention_heads"], config["num_key_value_heads"]
    writer = GGUFWriter(file, "llama")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads[0])
    writer.add_head_count_kv(heads[1])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(config["hidden_size"] // heads[0])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("none")
    for name, weight in load_file(folder / "model.safetensors").items():
        if name != "lm_head.weight":
            writer.add_tensor(*_tensor(name, weight.float().numpy(), heads))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _tensor(name: str, weight: "np.ndarray", heads: tuple[int, int]) -> tuple[str, "np.ndarray"]:
    outer = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
    if name in outer:
        return outer[name], weight
    _, _, number, rest = name.split(".", 3)
    part = _PARTS[rest.removesuffix(".weight")]
    if part in ("attn_q", "attn_k"):
        count = heads[part == "attn_k"]
        halves = weight.reshape(count, 2, -1, weight.shape[1])
        weight = np.ascontiguousarray(np.stack([halves[:, 0], halves[:, 1]], axis=2).reshape(weight.shape))
    return f"blk.{number}.{part}.weight", weight


def llama_logits(base: Path, lora: Path | None, ids: Sequence[int]) -> Tensor:
    """Logits [tokens, vocabulary] of every place, fp32."""
    return torch.tensor(_ask(_READER, base=str(base), lora=None if lora is None else str(lora), ids=list(ids)))


def llama_greedy(base: Path, lora: Path | None, ids: Sequence[int], count: int) -> list[int]:
    """The likeliest next token, so many times."""
    found: list[int] = _ask(
        _GREEDY, base=str(base), lora=None if lora is None else str(lora), ids=list(ids), count=count
    )
    return found


def llama_tokens(model: Path, texts: Sequence[str]) -> list[list[int]]:
    """Ids of every text, with those that every text begins or ends with; what looks like a special token is text."""
    found: list[list[int]] = _ask(_TOKENS, base=str(model), texts=list(texts))
    return found


def _ask(program: str, **asked: Any) -> Any:
    done = subprocess.run(
        [_PYTHON, "-c", program], input=json.dumps(asked), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)

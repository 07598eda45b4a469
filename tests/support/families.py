"""Tiny random models of real architectures, as transformers builds them from a config, each with a tokenizer of its own.

    folder = make_family("gpt2", tmp_path / "base")

Hidden 64, 2 layers (4 where a pattern of layers needs them), a vocabulary of 1024, a context of 512. The same call gives
the same bytes. `FAMILIES` lists them; those whose name ends in "-hub" lie on disk as their hubs have them, with other names
or more tensors than transformers would save. soupmix knows none of these names.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

__all__ = ["CHAT_TEMPLATE", "FAMILIES", "Family", "make_family", "make_tokenizer"]

VOCABULARY = 1024
PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_TEXT = Path(__file__).parents[2] / "LICENSE"  # English that nobody edits, so that the tokenizer stays the same

Layout = Callable[[dict[str, Tensor]], dict[str, Tensor]]
"""From the tensors that transformers saves to those that lie in a hub."""


@dataclass(frozen=True, slots=True)
class Family:
    """One architecture.

    Attributes:
        kind: `model_type` of config.json.
        settings: fields of config.json.
        layout: how its tensors lie on a hub, where that is not what transformers saves.
    """

    kind: str
    settings: Mapping[str, Any]
    layout: Layout | None = None


def make_family(
    name: str,
    folder: Path,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    shard: str | int | None = None,
    chat: bool = True,
    pad: bool = True,
    **settings: Any,
) -> Path:
    """Write a random model of a family and its tokenizer into a new folder.

    Args:
        name: among `FAMILIES`.
        shard: size of a file of weights at most, as "200KB"; None: one file.
        chat: with a chat template.
        pad: with a padding token.
        settings: further fields of config.json.

    Returns:
        The folder.

    Raises:
        KeyError: no such family.
        FileExistsError: the folder exists.
    """
    family = FAMILIES[name]
    folder.mkdir(parents=True)
    _random_model(family, settings, seed).to(dtype).save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    size = "1GB" if shard is None else shard
    save_torch_state_dict((family.layout or dict)(tensors), folder, max_shard_size=size)
    make_tokenizer(chat=chat, pad=pad).save_pretrained(folder)
    return folder


def make_tokenizer(*, chat: bool = True, pad: bool = True) -> Any:
    """A byte-level BPE of 1024 tokens: id 0 pads, 1 starts a turn, 2 ends it and the text."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_trained()),
        bos_token=START,
        eos_token=END,
        unk_token=PAD,
        padding_side="left",
        **({"pad_token": PAD} if pad else {}),
        **({"chat_template": CHAT_TEMPLATE} if chat else {}),
    )


@cache
def _trained() -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, START, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([_TEXT.read_text("utf-8")], trainer)
    return tokenizer.to_str()


def _random_model(family: Family, settings: Mapping[str, Any], seed: int) -> Any:
    """With matrices large enough that every layer tells in the logits, and norms and biases that are not neutral."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(family.kind, **{**family.settings, **settings})
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        for name, parameter in model.named_parameters():
            if parameter.dim() >= 2:
                parameter.normal_(0, 0.08)
            elif "norm" in name or "ln_" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
            elif name.endswith("bias"):
                parameter.normal_(0, 0.05)
        model.get_output_embeddings().weight[2] = 0  # the end, which few answers should begin with
    model.tie_weights()
    model.generation_config.update(bos_token_id=1, eos_token_id=2, pad_token_id=0)
    return model.eval()


# How hubs hold what transformers would save otherwise.


def _gpt2_hub(saved: dict[str, Tensor]) -> dict[str, Tensor]:
    """OpenAI's names, without `transformer.`, and the causal masks that old versions kept among the weights."""
    found = _without("transformer.", saved)
    masks = {name.replace("c_attn.weight", "bias"): _causal() for name in found if name.endswith("attn.c_attn.weight")}
    return found | masks


def _causal() -> Tensor:
    return torch.ones(64, 64).tril()[None, None]


def _bloom_hub(saved: dict[str, Tensor]) -> dict[str, Tensor]:
    return _without("transformer.", saved)


def _without(prefix: str, saved: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in saved.items()}


def _next_token_layer(saved: dict[str, Tensor]) -> dict[str, Tensor]:
    """One layer beyond the last, which predicts the token after the next; transformers does not use it."""
    more = {name.replace(".layers.1.", ".layers.2."): t.flip(0) for name, t in saved.items() if ".layers.1." in name}
    norm, head = saved["model.norm.weight"], saved["lm_head.weight"]
    more |= {f"model.layers.2.{name}.weight": norm.clone() for name in ("enorm", "hnorm", "shared_head.norm")}
    more |= {"model.layers.2.eh_proj.weight": head.new_ones(norm.shape[0], 2 * norm.shape[0])}
    more |= {f"model.layers.2.{name}.weight": head.clone() for name in ("embed_tokens", "shared_head.head")}
    return saved | more


def _mtp_tensors(saved: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors called `mtp.*`, which transformers does not use."""
    layer = {
        name.replace("model.layers.1.", "mtp.layers.0."): tensor.flip(0)
        for name, tensor in saved.items()
        if name.startswith("model.layers.1.")
    }
    return saved | layer | {"mtp.norm.weight": saved["model.norm.weight"].clone()}


# The table.


def _like_llama(kind: str, layout: Layout | None = None, /, **settings: Any) -> Family:
    """A family whose config has Llama's fields."""
    common = {
        "vocab_size": VOCABULARY,
        "hidden_size": 64,
        "intermediate_size": 160,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "pad_token_id": 0,
    }
    return _other(kind, layout, **common | settings)


def _other(kind: str, layout: Layout | None = None, /, **settings: Any) -> Family:
    """A family whose config has fields of its own."""
    return Family(kind, {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2} | settings, layout)


def _rope(theta: float = 10000.0, **more: Any) -> dict[str, Any]:
    return {"rope_type": "default", "rope_theta": theta} | more


_LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
}
_SLIDING_THEN_FULL = ["sliding_attention", "full_attention"]
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 48}
_LOCAL_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
_LATENT = {
    "num_key_value_heads": 4,
    "kv_lora_rank": 16,
    "q_lora_rank": 24,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 16,
    "v_head_dim": 16,
}
_DEEPSEEK = _LATENT | {
    "n_routed_experts": 4,
    "n_group": 2,
    "topk_group": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 48,
    "first_k_dense_replace": 1,
    "n_shared_experts": 1,
}
_DELTA = {
    "head_dim": 32,
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
}
_QWEN3_NEXT = _DELTA | _EXPERTS | {"shared_expert_intermediate_size": 48}
_MAMBA2 = {"mamba_d_head": 16, "mamba_n_groups": 1, "mamba_d_state": 8}
_HEADS = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
_FALCON = _HEADS | {"bias": False, "parallel_attn": True, "max_position_embeddings": 512}
_GPT2 = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 512}
_BLOOM = {"hidden_size": 64, "n_layer": 2, "n_head": 4, "pad_token_id": 0}
_GEMMA3 = {"head_dim": 32, "sliding_window": 8, "query_pre_attn_scalar": 32, "layer_types": _SLIDING_THEN_FULL}
_VISION = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "image_size": 28,
    "patch_size": 14,
}

FAMILIES: Mapping[str, Family] = {
    "llama3": _like_llama("llama", head_dim=16, rope_parameters=_LLAMA3_ROPE, tie_word_embeddings=False),
    "llama3.2-tied": _like_llama("llama", tie_word_embeddings=True),
    "llama-bias": _like_llama("llama", attention_bias=True, mlp_bias=True),
    "falcon3": _like_llama("llama", head_dim=32),
    "llama4-text": _like_llama(
        "llama4_text",
        head_dim=16,
        intermediate_size_mlp=160,
        num_local_experts=4,
        num_experts_per_tok=1,
        interleave_moe_layer_step=2,
        attention_chunk_size=16,
        num_hidden_layers=4,
    ),
    "mistral-v0.1": _like_llama("mistral", sliding_window=8),
    "mistral-v0.3": _like_llama("mistral", sliding_window=None, head_dim=16),
    "mixtral": _like_llama("mixtral", sliding_window=None, **_LOCAL_EXPERTS),
    "qwen2.5": _like_llama(
        "qwen2", tie_word_embeddings=True, use_sliding_window=False, sliding_window=64, max_window_layers=2
    ),
    "qwen3": _like_llama("qwen3", head_dim=32, tie_word_embeddings=True),
    "qwen3-moe": _like_llama("qwen3_moe", head_dim=32, decoder_sparse_step=1, norm_topk_prob=True, **_EXPERTS),
    "qwen3-next": _like_llama("qwen3_next", **_QWEN3_NEXT),
    "qwen3-next-hub": _like_llama("qwen3_next", _mtp_tensors, **_QWEN3_NEXT),
    "qwen3.5-text": _like_llama("qwen3_5_text", **_DELTA),
    "gemma2": _like_llama("gemma2", head_dim=32, sliding_window=8, query_pre_attn_scalar=32),
    "gemma3-text": _like_llama("gemma3_text", **_GEMMA3),
    "gemma3": Family(
        "gemma3",
        {
            "text_config": _like_llama("gemma3_text", **_GEMMA3).settings,
            "vision_config": _VISION,
            "mm_tokens_per_image": 4,
            "boi_token_index": 1021,
            "eoi_token_index": 1022,
            "image_token_index": 1023,
            "eos_token_id": 2,
        },
    ),
    "gemma4-text": _like_llama(
        "gemma4_text",
        head_dim=32,
        global_head_dim=32,
        sliding_window=8,
        layer_types=_SLIDING_THEN_FULL,
        hidden_size_per_layer_input=16,
        vocab_size_per_layer_input=VOCABULARY,
        num_kv_shared_layers=0,
    ),
    "phi2": _like_llama("phi", num_key_value_heads=4, rope_parameters=_rope(partial_rotary_factor=0.5)),
    "phi3": _like_llama("phi3", sliding_window=2047, rope_parameters=_rope()),
    "phi4": _like_llama("phi3", sliding_window=None, rope_parameters=_rope(250000.0)),
    "phi4-mini": _like_llama(
        "phi3",
        sliding_window=262144,
        tie_word_embeddings=True,
        rope_parameters=_rope(partial_rotary_factor=0.75),
    ),
    "olmo2": _like_llama("olmo2"),
    "olmo3": _like_llama("olmo3", sliding_window=8, num_hidden_layers=4),
    "olmoe": _like_llama("olmoe", num_experts=4, num_experts_per_tok=2),
    "smollm3": _like_llama(
        "smollm3", num_hidden_layers=4, no_rope_layer_interval=4, use_sliding_window=False, tie_word_embeddings=True
    ),
    "granite": _like_llama(
        "granite", embedding_multiplier=12.0, residual_multiplier=0.22, attention_multiplier=0.1, logits_scaling=8.0
    ),
    "granitemoe": _like_llama("granitemoe", **_LOCAL_EXPERTS),
    "granitemoehybrid": _like_llama(
        "granitemoehybrid",
        num_local_experts=0,
        layer_types=["mamba", "attention"],
        mamba_n_heads=8,
        shared_intermediate_size=96,
        **_MAMBA2,
    ),
    "cohere": _like_llama("cohere", use_qk_norm=True),
    "cohere2": _like_llama("cohere2", sliding_window=8, num_hidden_layers=4),
    "deepseek-v2": _like_llama("deepseek_v2", **_DEEPSEEK),
    "deepseek-v3": _like_llama("deepseek_v3", num_nextn_predict_layers=0, **_DEEPSEEK),
    "deepseek-v3-hub": _like_llama("deepseek_v3", _next_token_layer, num_nextn_predict_layers=1, **_DEEPSEEK),
    "gpt-oss": _like_llama(
        "gpt_oss",
        head_dim=16,
        sliding_window=8,
        layer_types=_SLIDING_THEN_FULL,
        rope_parameters=_rope(150000.0),
        **_LOCAL_EXPERTS,
    ),
    "glm4": _like_llama("glm4", head_dim=16),
    "starcoder2": _like_llama("starcoder2", sliding_window=None),
    "stablelm": _like_llama("stablelm", num_key_value_heads=4),
    "exaone4": _like_llama("exaone4", sliding_window=8, num_hidden_layers=4),
    "nemotron": _like_llama("nemotron"),
    "internlm3": _like_llama("internlm3", head_dim=16),
    "seed-oss": _like_llama("seed_oss", head_dim=16),
    "minicpm3": _like_llama("minicpm3", **_LATENT),
    "hunyuan": _like_llama("hunyuan_v1_dense", head_dim=16),
    "ernie4.5": _like_llama("ernie4_5", head_dim=16),
    "helium": _like_llama("helium", head_dim=16),
    "apertus": _like_llama("apertus"),
    "persimmon": _like_llama("persimmon", num_key_value_heads=4),
    "diffllama": _like_llama("diffllama"),
    "doge": _like_llama("doge", keep_window_size=16),
    "lfm2": _like_llama("lfm2", layer_types=["conv", "full_attention"], block_auto_adjust_ff_dim=False),
    "falcon-h1": _like_llama("falcon_h1", mamba_d_ssm=64, mamba_n_heads=4, **_MAMBA2),
    "bamba": _like_llama("bamba", attn_layer_indices=[1], mamba_n_heads=8, **_MAMBA2),
    "mamba": _other("mamba", hidden_size=64, num_hidden_layers=2, state_size=8, pad_token_id=0),
    "jetmoe": _other(
        "jetmoe",
        hidden_size=64,
        num_hidden_layers=2,
        num_key_value_heads=2,
        kv_channels=16,
        intermediate_size=96,
        max_position_embeddings=512,
        **_LOCAL_EXPERTS,
    ),
    "falcon-7b": _other("falcon", multi_query=True, new_decoder_architecture=False, **_FALCON),
    "falcon-40b": _other("falcon", num_kv_heads=2, new_decoder_architecture=True, **_FALCON),
    "falcon-rw": _other(
        "falcon",
        **_FALCON
        | {
            "multi_query": False,
            "new_decoder_architecture": False,
            "alibi": True,
            "bias": True,
            "parallel_attn": False,
        },
    ),
    "gpt-neox": _other(
        "gpt_neox",
        intermediate_size=160,
        max_position_embeddings=512,
        use_parallel_residual=True,
        rope_parameters=_rope(partial_rotary_factor=0.25),
        **_HEADS,
    ),
    "gpt2": _other("gpt2", **_GPT2),
    "gpt2-hub": _other("gpt2", _gpt2_hub, **_GPT2),
    "gpt-bigcode": _other("gpt_bigcode", **_GPT2),
    "gptj": _other("gptj", rotary_dim=8, **_GPT2),
    "codegen": _other("codegen", rotary_dim=8, **_GPT2),
    "gpt-neo": _other(
        "gpt_neo",
        hidden_size=64,
        num_layers=2,
        num_heads=4,
        max_position_embeddings=512,
        window_size=8,
        attention_types=[[["global", "local"], 1]],
    ),
    "opt": _other("opt", ffn_dim=160, max_position_embeddings=512, word_embed_proj_dim=64, pad_token_id=0, **_HEADS),
    "bloom": _other("bloom", **_BLOOM),
    "bloom-hub": _other("bloom", _bloom_hub, **_BLOOM),
    "mpt": _other("mpt", d_model=64, n_layers=2, n_heads=4, max_seq_len=512, expansion_ratio=2),
    "xglm": _other(
        "xglm", d_model=64, ffn_dim=160, num_layers=2, attention_heads=4, max_position_embeddings=512, pad_token_id=0
    ),
}

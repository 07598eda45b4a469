"""A tiny random Llama with any tokenizer."""

from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from soupmix.base import Base, resolve


def base_with(tokenizer: Any, folder: Path, cache: Path, *, size: int | None = None, **config: Any) -> Base:
    """One layer, hidden 16; `size`: rows of the embedding, if not as many as the tokenizer has tokens."""
    settings = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None} | config
    made = LlamaConfig(
        vocab_size=size or len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=512,
        **settings,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(made).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return resolve(folder, cache=cache)

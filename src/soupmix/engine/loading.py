"""A base as an engine computes with it."""

from logging import ERROR, getLogger
from typing import Any

from soupmix.base import Base, load_model, load_tokenizer
from soupmix.dtypes import WORDS, dtype_code, torch_dtype
from soupmix.errors import BaseModelError, RecipeError

__all__ = ["load_base"]


def load_base(base: Base, dtype: str | None, device: str) -> tuple[Any, Any]:
    """Model and tokenizer of transformers, on this device; the model's weights need no gradient, the tokenizer pads on the left.

    Args:
        dtype: "fp32", "bf16" or "fp16"; None: as the base was saved.

    Raises:
        RecipeError: unknown dtype. BaseModelError: as `load_model`, or a quantised base is asked for in another dtype
            ("quantised").
    """
    from transformers.utils import logging

    if dtype is not None and dtype not in WORDS.values():
        raise RecipeError(f"dtype '{dtype}' is not known; choose one of {', '.join(WORDS.values())}", reason="dtype")
    logging.disable_progress_bar()
    getLogger("bitsandbytes").setLevel(ERROR)  # it tells of a cast at every product
    asked = torch_dtype(dtype_code(dtype)) if dtype else None
    model = load_model(base.folder, asked or "auto", device).eval()
    if asked not in (None, model.dtype):
        raise BaseModelError(
            f"base model {base.name} is quantised and computes in {model.dtype} as it was saved, not in {dtype}: leave the "
            "dtype out",
            reason="quantised",
        )
    tokenizer = load_tokenizer(base.folder, base.chat_template)
    tokenizer.padding_side = "left"
    return model.requires_grad_(False), tokenizer

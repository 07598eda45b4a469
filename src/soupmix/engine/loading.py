"""A base as an engine computes with it."""

from logging import ERROR, getLogger
from typing import Any

from soupmix.base import Base, load_model, load_tokenizer
from soupmix.dtypes import WORDS, dtype_code, torch_dtype
from soupmix.errors import BaseModelError, RecipeError

__all__ = ["check_device", "load_base"]


def check_device(device: str) -> None:
    """Raise RecipeError (reason "device") if nothing of this name is known, or it is not there."""
    import torch

    try:
        known = torch.device(device)
        kind, number = known.type, known.index
    except RuntimeError:
        kind, number = "", None
    if kind not in ("cpu", "cuda"):
        raise RecipeError(f"device '{device}' is not known; choose cpu, cuda, or cuda:N", reason="device")
    count = torch.cuda.device_count() if kind == "cuda" else 1
    if (number or 0) >= count:
        here = (
            f"torch {torch.__version__} finds {count} of them" if count else f"torch {torch.__version__} finds no GPU"
        )
        raise RecipeError(f"device '{device}' is not there: {here}; `soupmix doctor` says what is", reason="device")


def load_base(base: Base, dtype: str | None, device: str) -> tuple[Any, Any]:
    """Model and tokenizer of transformers, on this device; the model's weights need no gradient, the tokenizer pads on the left.

    Args:
        dtype: "fp32", "bf16" or "fp16"; None: as the base was saved.

    Raises:
        RecipeError: unknown dtype, or no such device ("device").
        BaseModelError: as `load_model`, or a quantised base is asked for in another dtype ("quantised").
    """
    from transformers.utils import logging

    if dtype is not None and dtype not in WORDS.values():
        raise RecipeError(f"dtype '{dtype}' is not known; choose one of {', '.join(WORDS.values())}", reason="dtype")
    check_device(device)
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

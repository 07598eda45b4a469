"""A base as an engine computes with it, and the adapters of a store in it."""

from logging import ERROR, getLogger
from typing import Any

import torch

from soupmix.base import Base, load_model, load_tokenizer
from soupmix.dtypes import HELD, WORDS, dtype_code, torch_dtype
from soupmix.engine.compiled import TORCH, StepChoice, step_for
from soupmix.engine.direct import read_directly
from soupmix.engine.few_bits import FewBits
from soupmix.engine.layers import Paths, SoupGroup, insert
from soupmix.engine.rows import ActiveBatch, LoadedAdapters
from soupmix.engine.unserved import unserved
from soupmix.errors import AdapterError, BaseModelError, RecipeError
from soupmix.policy import Policy
from soupmix.store.store import Store

__all__ = ["check_device", "load_base", "loaded"]

_log = getLogger(__name__)

Loaded = tuple[Any, Any, LoadedAdapters, ActiveBatch, dict[Paths, SoupGroup], str, StepChoice]


def check_device(device: str) -> None:
    """Raise RecipeError (reason "device") if nothing of this name is known, or it is not there."""
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


def loaded(
    found: Base, store: Store | None, policy: Policy | None, dtype: str | None, device: str, fused: bool, compiled: bool
) -> Loaded:
    """What an `Engine` is made of, by the arguments of its `load`. Called in a thread that ends afterwards.

    OpenMP keeps workers for every thread that has computed and lives, and libgomp's workers stop spinning as soon as there
    are more of them than processors: a loading thread that lives on costs a running batch two fifths of its speed.
    """
    adapters = [store.load(name) for name in store.names] if store else []
    for adapter in adapters:
        if adapter.base_digest != found.digest:
            raise AdapterError(
                f"adapter '{adapter.name}' was trained on base {adapter.base_digest}, "
                f"but '{found.name}' is {found.digest}; use the base it was trained on",
                reason="wrong-base",
            )
    held = dtype if dtype in HELD else None
    model, tokenizer = load_base(found, "bf16" if held else dtype, device)
    left = read_directly(model)
    none = unserved(model, adapters, left)
    for name, each in none.items():
        _log.warning("%s", each.error(name))
    step = step_for(model, device, fused=fused) if compiled or held else TORCH
    few = FewBits.of(found, held) if held else None
    if held:
        step = _in_few_bits(step, found, held)
    served = LoadedAdapters.of(adapters, policy, none)
    batch = ActiveBatch(served, torch.device(device))
    mine = [each for each in adapters if each.name not in none]
    groups = insert(model, mine, batch, fused=fused, packed=step.library is None, few=few, left=left)
    if few is not None and few.taken:
        own = f"{len(few.taken)} of its layers as its GGUF file has them"
        step = step._replace(why=f"{step.why}, {own}", exact=True)
    return model, tokenizer, served, batch, groups, found.digest, step


def _in_few_bits(step: StepChoice, found: Base, held: str) -> StepChoice:
    if step.library is None:
        raise BaseModelError(
            f"base model {found.name} is asked for in {held}, which compiled steps compute and nothing else here, but "
            f"{step.why}; ask for {', '.join(WORDS.values())}, or leave the dtype out",
            reason="not-compiled",
        )
    return step._replace(why=f"{step.why}, from weights in {held}", held=held)


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
        raise RecipeError(
            f"dtype '{dtype}' is not known; choose one of {', '.join((*WORDS.values(), *HELD))}", reason="dtype"
        )
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

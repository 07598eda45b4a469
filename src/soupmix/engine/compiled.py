"""Which models a compiled step computes, and who computes the steps of an engine.

Only families whose code in transformers was read are taken, by the very classes of transformers; of everything that can differ
within them it is looked at what is there, or tried (`soupmix.engine.described`). What is left over is a reason to compute by
torch, in words. That the whole computes what transformers computes is tried before anybody is served (`soupmix.batching.probe`).
"""

import ctypes
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import soupmix_kernels
from soupmix.base import cache_root
from soupmix.engine.described import DescribedModel, Unfit
from soupmix.engine.layers import BaseLinear, Paths, SoupGroup
from soupmix.engine.rows import ActiveBatch
from soupmix.methods import request_op
from soupmix_kernels import Pool, RowCoefficients
from soupmix_kernels.compiled import CannotCompile, CompiledStep, LargePages, library, made_for

__all__ = ["FAMILIES", "TORCH", "EngineStep", "StepChoice", "Steps", "step_for", "step_here"]

FAMILIES: Mapping[str, str] = {
    "gemma": "Gemma",
    "gemma2": "Gemma2",
    "gemma3_text": "Gemma3",
    "granite": "Granite",
    "llama": "Llama",
    "mistral": "Mistral",
    "phi3": "Phi3",
    "qwen2": "Qwen2",
    "qwen3": "Qwen3",
    "smollm3": "SmolLM3",
}
"""`model_type` of a family -> how its classes in transformers begin."""

_ROPES = ("default", "linear", "llama3", "yarn")  # those whose angles do not depend on how long a text has become
_CHILDREN = {
    "body": {"embed_tokens", "layers", "norm", "rotary_emb"},
    "layer": {
        "self_attn",
        "mlp",
        "input_layernorm",
        "post_attention_layernorm",
        "pre_feedforward_layernorm",
        "post_feedforward_layernorm",
        "resid_attn_dropout",
        "resid_mlp_dropout",
    },
    "attention": {"q_proj", "k_proj", "v_proj", "qkv_proj", "o_proj", "q_norm", "k_norm"},
    "mlp": {"gate_proj", "up_proj", "gate_up_proj", "down_proj", "act_fn", "activation_fn"},
}


class StepChoice(NamedTuple):
    """Who computes steps: the library of the compiled step, or None for torch; and why, in words."""

    library: ctypes.CDLL | None
    why: str
    held: str | None = None  # what the weights are held in, of `soupmix.dtypes.HELD`
    exact: bool = False  # whether some of those are just what the base's GGUF file has


TORCH = StepChoice(None, "torch computes the steps")


class EngineStep:
    """How the steps of an engine's answers are computed.

    Args:
        model, groups, batch: of the engine. choice: who computes.

    Attributes:
        library: that of the compiled step; None: torch computes. why: in words. held, exact: see `StepChoice`.
    """

    def __init__(self, model: Any, groups: Mapping[Paths, SoupGroup], batch: ActiveBatch, choice: StepChoice) -> None:
        self._model, self._groups, self._batch = model, groups, batch
        self._described: DescribedModel | None = None
        self._settling, self._is_settled = threading.RLock(), False
        self.library, self.why, self.held, self.exact = choice

    def __repr__(self) -> str:
        """Such as "<EngineStep: compiled for avx512-bf16>"."""
        return f"<EngineStep: {self.why}>"

    def over(self, keys: list[Tensor], values: list[Tensor]) -> "Steps":
        """Compiled steps over keys and values of every layer in slots, [slots, key heads, length, size] each.

        Raises:
            ValueError: this model is none for it, or steps of this engine are not compiled.
        """
        if self.library is None:
            raise ValueError(self.why)
        try:
            if self._described is None:
                _settle(self._model, self._groups)
                self._described = DescribedModel(self._model, self._groups, keys[0].shape[2])
            decoder = self._described.decoder_of(keys[0].shape[2])
        except Unfit as error:
            raise ValueError(str(error)) from error
        return Steps(CompiledStep(decoder, self.library, keys, values), self._described.tables, self._batch)

    def in_slots(self, slots: int, length: int) -> "Steps":
        """Compiled steps over so many new slots for so many tokens each; raises as `over`."""
        config, dtype = self._model.config, self._model.dtype
        shape = slots, config.num_key_value_heads, length, self._model.model.layers[0].self_attn.head_dim
        keys, values = ([torch.empty(shape, dtype=dtype) for _ in range(config.num_hidden_layers)] for _ in range(2))
        return self.over(keys, values)  # what was not computed is not read

    def settle(self, trial: Callable[[], str | None]) -> None:
        """Have a trial say whether steps stay compiled: once, whoever asks first; others wait for what comes of it."""
        with self._settling:
            if self.library is not None and not self._is_settled:
                self.check(trial())
            self._is_settled = True

    def check(self, objection: str | None) -> None:
        """Where a trial found an objection, compute by torch from now on, and hold weights as that reads them fastest."""
        if objection is None:
            return
        self.library, self._described = None, None
        self.why = f"torch computes the steps: the compiled one was tried, and {objection}"
        for group in self._groups.values():
            if isinstance(group.base, BaseLinear):
                group.base.pack()


def _settle(model: nn.Module, groups: Mapping[Paths, SoupGroup]) -> None:
    """Copy all weights into large pages, in the order in which a step reads them, and let go of where they were."""
    bases = [each.base for each in groups.values() if isinstance(each.base, BaseLinear)]
    others = {each.data_ptr(): each for each in model.parameters()}
    pages = LargePages([*(each.held for each in bases), *(each.data for each in others.values())])
    moved = dict[int, Tensor]()
    for base in bases:
        was = base.held
        base.held = pages.copy(was)
        moved[was.data_ptr()] = base.held
    for each in model.parameters():  # embeddings may be the output layer's weights
        was = each.data
        same = moved.get(was.data_ptr())
        each.data = same if same is not None and same.shape == was.shape else pages.copy(was)


def step_for(model: Any, device: str, *, fused: bool) -> StepChoice:
    """Whether a model's steps are compiled, asked before its layers are replaced."""
    try:
        if torch.device(device).type != "cpu" or not fused:
            raise Unfit("a compiled step is for the CPU and layers that may be computed together")
        _check_family(model)
    except Unfit as error:
        return StepChoice(None, f"torch computes the steps: {error}")
    return step_here()


def step_here() -> StepChoice:
    """Whether steps of models that it knows are compiled on this machine."""
    asked = os.environ.get("SOUPMIX_KERNELS", "auto") or "auto"
    if asked != "auto":
        return StepChoice(None, f"torch computes the steps: SOUPMIX_KERNELS={asked} says so")
    try:
        found = library(cache_root() / "step")
        return StepChoice(found, f"steps are compiled for {made_for(found)}")
    except CannotCompile as error:
        return StepChoice(None, f"torch computes the steps: {error}")


def _check_family(model: Any) -> None:
    config, kind = model.config, type(model)
    family, where = FAMILIES.get(config.model_type), config.model_type.removesuffix("_text")
    name = f"transformers.models.{where}.modeling_{where}.{family}ForCausalLM"
    if family is None or f"{kind.__module__}.{kind.__qualname__}" != name:
        raise Unfit(f"a compiled step knows {', '.join(FAMILIES.values())}, and this is a {kind.__name__}")
    if model.dtype not in (torch.float32, torch.bfloat16):
        raise Unfit(f"a compiled step is of fp32 or bf16, not of {model.dtype}")
    body = model.model
    _only(model, {"model", "lm_head"}, "model")
    _only(body, _CHILDREN["body"], "body")
    kinds = body.rotary_emb.rope_type
    for rope in [kinds] if isinstance(kinds, str) else kinds.values():
        if rope not in _ROPES:
            raise Unfit(f"a compiled step knows no angles that change with the text ('{rope}')")
    for layer in body.layers:
        for name, module in (("layer", layer), ("attention", layer.self_attn), ("mlp", layer.mlp)):
            _only(module, _CHILDREN[name], name)
        if not layer.self_attn.is_causal:
            raise Unfit("a compiled step lets no token see what comes after it")


def _only(module: nn.Module, known: set[str], what: str) -> None:
    unknown = {name for name, _ in module.named_children()} - known
    if unknown or module._forward_hooks or "forward" in vars(module):
        raise Unfit(f"a compiled step knows no {what} with {', '.join(sorted(unknown)) or 'a forward of its own'}")


class Steps:
    """The compiled steps of a running batch.

    Args:
        step: over its keys and values. tables: the number of the columns of every table, and a pool that has them.
        batch: which the model serves.
    """

    def __init__(self, step: CompiledStep, tables: tuple[tuple[int, Pool], ...], batch: ActiveBatch) -> None:
        self._step, self._tables, self._batch = step, tables, batch

    def logits(self, tokens: Tensor, positions: Tensor, slots: Tensor, kept: Tensor) -> Tensor:
        """See `CompiledStep`; the soups are those of the batch that is served. Logits [kept, vocabulary] fp32."""
        batch = self._batch
        batch.expect(len(tokens), len(kept))
        soups, kept_soups = (list(self._coefficients(n)) for n in (len(tokens), len(kept)))
        return self._step(tokens, positions, slots, kept, soups, kept_soups, factor=_averages_factors(batch.method))

    @property
    def slots(self) -> int:
        """How many there are."""
        return len(self._step.keys[0])

    def take(self, source: "Steps", slot: int, target: int, length: int) -> None:
        """Copy keys and values of the first `length` tokens of a slot of steps of the same decoder into a slot of these."""
        pairs = zip((*source._step.keys, *source._step.values), (*self._step.keys, *self._step.values), strict=True)
        for theirs, mine in pairs:
            mine[target, :, :length] = theirs[slot, :, :length]

    def _coefficients(self, rows: int) -> Iterator[RowCoefficients]:
        if self._batch.has_soup:
            for key, pool in self._tables:
                yield self._batch.coefficients(key, pool, (1, rows))


def _averages_factors(method: str) -> bool:
    return bool(getattr(soupmix_kernels, request_op(method).op) is soupmix_kernels.soup_linear_factor_)

"""Which models a compiled step computes, and what it is told of them (`soupmix_kernels.compiled`).

Only families whose code in transformers was read are taken, by the very classes of transformers; of everything that can differ
within them it is looked at what is there, or tried: which norm, which activation, which angles. What is left over is a reason to
compute by torch, in words. That the whole computes what transformers computes is tried before anybody is served
(`soupmix.batching.probe`).
"""

import ctypes
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, silu

import soupmix_kernels
from soupmix.base import cache_root
from soupmix.engine.layers import BaseLinear, Paths, SoupGroup
from soupmix.engine.rows import ActiveBatch
from soupmix.methods import request_op
from soupmix_kernels import Pool, RowCoefficients
from soupmix_kernels.compiled import (
    ACTIVATIONS,
    CannotCompile,
    CompiledStep,
    Decoder,
    DecoderLayer,
    LargePages,
    Product,
    library,
    made_for,
)

__all__ = ["FAMILIES", "TORCH", "EngineStep", "StepChoice", "Steps", "step_for", "step_here"]

FAMILIES: Mapping[str, str] = {
    "gemma": "Gemma",
    "granite": "Granite",
    "llama": "Llama",
    "mistral": "Mistral",
    "qwen2": "Qwen2",
    "qwen3": "Qwen3",
    "smollm3": "SmolLM3",
}
"""`model_type` of a family -> how its classes in transformers begin."""

_ROPES = ("default", "linear", "llama3", "yarn")  # those whose angles do not depend on how long a text has become
_CHILDREN = {
    "body": {"embed_tokens", "layers", "norm", "rotary_emb"},
    "layer": {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"},
    "attention": {"q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm"},
    "mlp": {"gate_proj", "up_proj", "down_proj", "act_fn"},
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
        self._described: _Described | None = None
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
                self._described = _Described(self._model, self._groups, keys[0].shape[2])
            decoder = self._described.decoder_of(keys[0].shape[2])
        except _Unfit as error:
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


class _Unfit(Exception):
    """What a compiled step cannot do, in words."""


def step_for(model: Any, device: str, *, fused: bool) -> StepChoice:
    """Whether a model's steps are compiled, asked before its layers are replaced."""
    try:
        if torch.device(device).type != "cpu" or not fused:
            raise _Unfit("a compiled step is for the CPU and layers that may be computed together")
        _check_family(model)
    except _Unfit as error:
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
    family = FAMILIES.get(config.model_type)
    names = {f"transformers.models.{config.model_type}.modeling_{config.model_type}.{family}ForCausalLM"}
    if family is None or f"{kind.__module__}.{kind.__qualname__}" not in names:
        raise _Unfit(f"a compiled step knows {', '.join(FAMILIES.values())}, and this is a {kind.__name__}")
    if model.dtype not in (torch.float32, torch.bfloat16):
        raise _Unfit(f"a compiled step is of fp32 or bf16, not of {model.dtype}")
    body = model.model
    _only(model, {"model", "lm_head"}, "model")
    _only(body, _CHILDREN["body"], "body")
    if body.rotary_emb.rope_type not in _ROPES:
        raise _Unfit(f"a compiled step knows no angles that change with the text ('{body.rotary_emb.rope_type}')")
    for layer in body.layers:
        for name, module in (("layer", layer), ("attention", layer.self_attn), ("mlp", layer.mlp)):
            _only(module, _CHILDREN[name], name)
        if not layer.self_attn.is_causal:
            raise _Unfit("a compiled step lets no token see what comes after it")


def _only(module: nn.Module, known: set[str], what: str) -> None:
    unknown = {name for name, _ in module.named_children()} - known
    if unknown or module._forward_hooks or "forward" in vars(module):
        raise _Unfit(f"a compiled step knows no {what} with {', '.join(sorted(unknown)) or 'a forward of its own'}")


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


class _Described:
    """A `Decoder` of a model whose layers are soup layers, and the pools whose coefficients are its tables."""

    def __init__(self, model: Any, groups: Mapping[Paths, SoupGroup], length: int) -> None:
        self._by_path = {path: (paths, group) for paths, group in groups.items() for path in paths}
        self._keys: dict[int, Pool] = {}
        body, config = model.model, model.config
        first = body.layers[0].self_attn
        self._rotary = body.rotary_emb
        cos, sin = _angles(self._rotary, length, first.head_dim)
        epsilon, norm = _norm(body.norm)
        self._epsilon = epsilon
        scaled = getattr(body.embed_tokens, "embed_scale", None)
        embedded = getattr(body, "embedding_multiplier", 1.0) if scaled is None else float(scaled.to(model.dtype))
        self.decoder = Decoder(
            embedding=body.embed_tokens.weight.data,
            layers=tuple(self._layer(f"model.layers.{n}", each, config) for n, each in enumerate(body.layers)),
            norm=norm,
            head=self._products("lm_head")[0],
            heads=config.num_attention_heads,
            key_heads=config.num_key_value_heads,
            size=first.head_dim,
            cos=cos,
            sin=sin,
            activation=_activation(body.layers[0].mlp.act_fn),
            epsilon=epsilon,
            scale=float(_one({each.self_attn.scaling for each in body.layers}, "scales")),
            embedding_scale=embedded,
            residual_scale=float(
                _one({getattr(each, "residual_multiplier", 1.0) for each in body.layers}, "residuals")
            ),
            logit_scale=1.0 / getattr(config, "logits_scaling", 1.0),
        )

    def decoder_of(self, length: int) -> Decoder:
        """The decoder, with angles for so many positions at least."""
        if length > len(self.decoder.cos):
            cos, sin = _angles(self._rotary, length, self.decoder.size)
            self.decoder = replace(self.decoder, cos=cos, sin=sin)
        return self.decoder

    @property
    def tables(self) -> tuple[tuple[int, Pool], ...]:
        """The number of the columns of every table, and a pool that has them."""
        return tuple(self._keys.items())

    def _layer(self, path: str, layer: Any, config: Any) -> DecoderLayer:
        attention = layer.self_attn
        window = getattr(attention, "sliding_window", None)
        if config.model_type == "mistral":
            window = config.sliding_window
        query_norm, key_norm = (getattr(attention, name, None) for name in ("q_norm", "k_norm"))
        return DecoderLayer(
            self._products(*(f"{path}.self_attn.{name}_proj" for name in "qkv")),
            self._products(f"{path}.self_attn.o_proj")[0],
            self._products(*(f"{path}.mlp.{name}_proj" for name in ("gate", "up"))),
            self._products(f"{path}.mlp.down_proj")[0],
            self._weight(layer.input_layernorm),
            self._weight(layer.post_attention_layernorm),
            None if query_norm is None else self._weight(query_norm),
            None if key_norm is None else self._weight(key_norm),
            window=window or 0,
            rotates=bool(getattr(attention, "use_rope", True)),
        )

    def _weight(self, norm: Any) -> Tensor:
        epsilon, weight = _norm(norm)
        _one({epsilon, self._epsilon}, "epsilons")
        return weight

    def _products(self, *paths: str) -> tuple[Product, ...]:
        """The products of layers with one input, which are one group or a group each."""
        made = dict[Paths, Product]()
        for path in paths:
            if path not in self._by_path:
                raise _Unfit(f"'{path}' is no layer that it could compute")
            group_paths, group = self._by_path[path]
            base = group.base
            if not isinstance(base, BaseLinear) or base.rows is None:
                raise _Unfit(f"'{path}' does not hold its weight row by row")
            if group.pool is not None:
                self._keys.setdefault(group.key, group.pool)
            table = list(self._keys).index(group.key) if group.pool is not None else 0
            made[group_paths] = Product(base.rows, base.bias, group.pool, table)
        return tuple(made.values())


def _norm(module: Any) -> tuple[float, Tensor]:
    """Epsilon and factors [features] fp32 of an RMS norm, which is tried."""
    epsilon = float(getattr(module, "variance_epsilon", getattr(module, "eps", 0.0)))
    held = module.weight.data.float()
    x = torch.linspace(-2.0, 3.0, len(held))
    normed, found = x * torch.rsqrt(x.pow(2).mean() + epsilon), module(x[None])[0].float()
    for weight in (held, 1.0 + held):
        if torch.allclose(found, normed * weight, rtol=1e-4, atol=1e-5):
            return epsilon, weight
    raise _Unfit(f"a compiled step knows no norm like {type(module).__name__}")


def _activation(module: Any) -> str:
    x = torch.linspace(-6.0, 6.0, 101)
    known = (silu(x), gelu(x, approximate="tanh"), gelu(x))
    for name, expected in zip(ACTIVATIONS, known, strict=True):
        if torch.allclose(module(x), expected, rtol=1e-5, atol=1e-6):
            return name
    raise _Unfit(f"a compiled step knows no activation like {type(module).__name__}")


def _angles(rotary: Any, length: int, size: int) -> tuple[Tensor, Tensor]:
    """cos and sin [length, size / 2] fp32 of every position."""
    both = rotary(torch.zeros(1), torch.arange(length)[None])
    if any(each.shape[-1] != size or not torch.equal(*each[0].chunk(2, -1)) for each in both):
        raise _Unfit("a compiled step turns number i of a head with number i + size / 2, and all of them")
    cos, sin = (each[0, :, : size // 2].float().contiguous() for each in both)
    return cos, sin


def _one(values: set[Any], what: str) -> Any:
    if len(values) > 1:
        raise _Unfit(f"a compiled step has one of all {what}")
    return next(iter(values))


def _averages_factors(method: str) -> bool:
    return bool(getattr(soupmix_kernels, request_op(method).op) is soupmix_kernels.soup_linear_factor_)

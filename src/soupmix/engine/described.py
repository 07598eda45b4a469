"""A model of transformers as a compiled step's `Decoder`: which of its tensors are what, and what each of its parts computes.

Which norm, which activation and which angles are tried, not believed.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import gelu, silu

from soupmix.engine.layers import BaseLinear, Paths, SoupGroup
from soupmix_kernels import Pool
from soupmix_kernels.compiled import ACTIVATIONS, Decoder, DecoderLayer, Product

__all__ = ["DescribedModel", "Unfit"]


class Unfit(Exception):
    """What a compiled step cannot do, in words."""


class DescribedModel:
    """A `Decoder` of a model whose layers are soup layers, and the pools whose coefficients are its tables."""

    def __init__(self, model: Any, groups: Mapping[Paths, SoupGroup], length: int) -> None:
        self._by_path = {path: (paths, group) for paths, group in groups.items() for path in paths}
        self._keys: dict[int, Pool] = {}
        body, config = model.model, model.config
        first = body.layers[0].self_attn
        self._rotary = body.rotary_emb
        cos, sin = _angles(self._rotary, length, first.head_dim)
        capped = config.model_type == "gemma2"  # Gemma 3 has the field and does not read it
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
            activation=_activation(getattr(body.layers[0].mlp, "act_fn", None) or body.layers[0].mlp.activation_fn),
            epsilon=epsilon,
            scale=float(_one({each.self_attn.scaling for each in body.layers}, "scales")),
            embedding_scale=embedded,
            residual_scale=float(
                _one({getattr(each, "residual_multiplier", 1.0) for each in body.layers}, "residuals")
            ),
            logit_scale=1.0 / getattr(config, "logits_scaling", 1.0),
            score_cap=first.attn_logit_softcapping or 0.0 if capped else 0.0,
            logit_cap=getattr(config, "final_logit_softcapping", None) or 0.0,
        )

    def decoder_of(self, length: int) -> Decoder:
        """The decoder, with angles for so many positions at least."""
        if length > self.decoder.positions:
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
        if config.model_type in ("mistral", "phi3"):
            window = config.sliding_window
        after = hasattr(layer, "pre_feedforward_layernorm")  # else what is called post_attention is before the MLP
        turning = bool(getattr(attention, "use_rope", True))
        qkv, gate_up = ("qkv", ("gate", "up")) if hasattr(attention, "q_proj") else (("qkv",), ("gate_up",))
        return DecoderLayer(
            self._products(*(f"{path}.self_attn.{name}_proj" for name in qkv)),
            self._products(f"{path}.self_attn.o_proj")[0],
            self._products(*(f"{path}.mlp.{name}_proj" for name in gate_up)),
            self._products(f"{path}.mlp.down_proj")[0],
            before_attention=self._weight(layer, "input_layernorm"),
            before_mlp=self._weight(layer, "pre_feedforward_layernorm" if after else "post_attention_layernorm"),
            after_attention=self._weight(layer, "post_attention_layernorm") if after else None,
            after_mlp=self._weight(layer, "post_feedforward_layernorm") if after else None,
            query_norm=self._weight(attention, "q_norm"),
            key_norm=self._weight(attention, "k_norm"),
            window=window or 0,
            angles=_kinds(self._rotary).index(_kind(self._rotary, attention)) if turning else None,
        )

    def _weight(self, of: Any, name: str) -> Any:
        """What a norm multiplies by; None where there is none."""
        norm = getattr(of, name, None)
        if norm is None:
            return None
        epsilon, weight = _norm(norm)
        _one({epsilon, self._epsilon}, "epsilons")
        return weight

    def _products(self, *paths: str) -> tuple[Product, ...]:
        """The products of layers with one input, which are one group or a group each."""
        made = dict[Paths, Product]()
        for path in paths:
            if path not in self._by_path:
                raise Unfit(f"'{path}' is no layer that it could compute")
            group_paths, group = self._by_path[path]
            base = group.base
            if not isinstance(base, BaseLinear) or base.rows is None:
                raise Unfit(f"'{path}' does not hold its weight row by row")
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
    raise Unfit(f"a compiled step knows no norm like {type(module).__name__}")


def _activation(module: Any) -> str:
    x = torch.linspace(-6.0, 6.0, 101)
    known = (silu(x), gelu(x, approximate="tanh"), gelu(x))
    for name, expected in zip(ACTIVATIONS, known, strict=True):
        if torch.allclose(module(x), expected, rtol=1e-5, atol=1e-6):
            return name
    raise Unfit(f"a compiled step knows no activation like {type(module).__name__}")


def _kinds(rotary: Any) -> list[str]:
    """Of layers that have angles of their own; one, "", where all have the same."""
    return [""] if isinstance(rotary.rope_type, str) else [*rotary.rope_type]


def _kind(rotary: Any, attention: Any) -> str:
    return "" if isinstance(rotary.rope_type, str) else attention.layer_type


def _angles(rotary: Any, length: int, size: int) -> tuple[Tensor, Tensor]:
    """cos and sin [kinds, length, rotated / 2] fp32 of every position, of heads of this size."""
    both = [rotary(torch.zeros(1), torch.arange(length)[None], *([kind] if kind else [])) for kind in _kinds(rotary)]
    if any(each.shape[-1] > size or not torch.equal(*each[0].chunk(2, -1)) for pair in both for each in pair):
        raise Unfit("a compiled step turns number i of a head with number i + half of those that turn")
    cos, sin = (torch.cat(each).chunk(2, -1)[0].float().contiguous() for each in zip(*both, strict=True))
    return cos, sin


def _one(values: set[Any], what: str) -> Any:
    if len(values) > 1:
        raise Unfit(f"a compiled step has one of all {what}")
    return next(iter(values))

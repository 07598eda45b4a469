"""Attacks by what an adapter holds beside factors of linear layers: whole weights, rows of tokens, biases, lengths."""

import atexit
import shutil
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from soupmix.base import Base, resolve
from soupmix.errors import AdapterError
from soupmix.store import Store
from tests.attacks.attack import Attack
from tests.attacks.on_bases import base
from tests.support.adapter_folder import Item, adapter, encode, item

__all__ = ["ATTACKS", "whole_base"]

_P = "base_model.model."
_Q = f"{_P}model.layers.0.self_attn.q_proj"
_EMBEDDING, _HEAD, _NORM = f"{_P}model.embed_tokens", f"{_P}lm_head", f"{_P}model.norm.weight"
_FACTORS = {f"{_Q}.lora_A.weight": item([2, 8]), f"{_Q}.lora_B.weight": item([8, 2])}
_ROWS, _LENGTHS = f"{_EMBEDDING}.token_adapter.trainable_tokens_delta", f"{_Q}.lora_magnitude_vector"


@cache
def whole_base(*, tied: bool) -> Base:
    """The base that is attacked; read once a process, and best before the cage."""
    folder = Path(tempfile.mkdtemp(prefix="soupmix-attacks-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    found = resolve(base(folder / "base", tied=tied), cache=folder / "cache", squares=True)
    found.layers()
    return found


def _whole(
    name: str, tries: str, reason: str, more: Mapping[str, Item], /, *, tied: bool = False, **fields: Any
) -> Attack:
    """Add sound factors and this for a base of 4 tokens, 8 wide."""

    def run(where: Path) -> None:
        source = adapter(where / "adapter", tensors=encode(_FACTORS | more), **fields)
        Store(where / "store", create=True).add(source, dimension="d", pole="p", base=whole_base(tied=tied))

    return Attack(name, tries, run, AdapterError, reason)


def _own(name: str, tries: str, reason: str, /, tensors: Mapping[str, Item], **fields: Any) -> Attack:
    """Add what pretends to be from another store."""

    def run(where: Path) -> None:
        model = whole_base(tied=False)
        said = {"peft_type": "SOUPMIX", "base_digest": model.digest, "kinds": {}} | fields
        source = adapter(where / "adapter", tensors=encode(tensors), **said)
        Store(where / "store", create=True).add(source, dimension="d", pole="p", base=model)

    return Attack(name, tries, run, AdapterError, reason)


def _pair(module: str, outputs: int, inputs: int) -> dict[str, Item]:
    return {f"{_P}{module}.lora_A.weight": item([2, inputs]), f"{_P}{module}.lora_B.weight": item([outputs, 2])}


_NAN, _HUGE = float("nan"), 3e38

ATTACKS = (
    _whole("whole-wrong-shape", "write behind the end of a weight", "wrong-base", {f"{_HEAD}.weight": item([4, 9])}),
    _whole("whole-turned-round", "the weight the other way round", "wrong-base", {f"{_HEAD}.weight": item([8, 4])}),
    _whole("whole-flat", "the right count in another shape", "wrong-base", {f"{_HEAD}.weight": item([32])}),
    _whole("whole-of-nothing", "a weight without numbers", "wrong-base", {f"{_HEAD}.weight": item([0, 8])}),
    _whole("whole-of-nan", "spoil every answer", "not-finite", {f"{_HEAD}.weight": item([4, 8], _NAN)}),
    _whole("whole-of-infinity", "spoil every answer", "not-finite", {_NORM: item([8], float("inf"))}),
    _whole("whole-beyond-f32", "an infinite difference", "not-finite", {_NORM: ("F64", [8], b"\x7f" * 64)}),
    _whole("larger-vocabulary", "tokens that the base has not", "wrong-base", {f"{_EMBEDDING}.weight": item([5, 8], 2)}),
    _whole("smaller-vocabulary", "take tokens away", "wrong-base", {f"{_EMBEDDING}.weight": item([3, 8], 2)}),
    _whole("whole-of-bytes", "a dtype without arithmetic", "dtype", {_NORM: ("I8", [8], bytes(8))}),
    _whole("whole-of-eight-bits", "a dtype in which many are equal", "dtype", {_NORM: ("F8_E4M3", [8], bytes(8))}),
    _whole("whole-of-no-layer", "a weight that nobody counts", "bad-key", {f"{_P}model.secret.weight": item([8])}),
    _whole(
        "whole-by-two-names", "one weight, two values", "bad-key",
        {f"{_HEAD}.weight": item([4, 8], 1), f"{_HEAD}.modules_to_save.weight": item([4, 8], 2)},
    ),
    _whole("whole-and-factors", "one weight, two changes", "bad-key", {f"{_Q}.base_layer.weight": item([8, 8], 2)}),
    _whole(
        "rows-and-whole", "one weight, two changes", "bad-key",
        {_ROWS: item([1, 8]), f"{_EMBEDDING}.weight": item([4, 8], 2)}, trainable_token_indices=[1],
    ),
    _whole("one-of-two-tied", "two weights for one", "embedding", {f"{_HEAD}.weight": item([4, 8], 1)}, tied=True),
    _whole(
        "tied-apart", "two weights for one", "embedding",
        {f"{_HEAD}.weight": item([4, 8], 1), f"{_EMBEDDING}.weight": item([4, 8], 2)}, tied=True,
    ),
    _whole(
        "factors-of-tied", "a head that differs when merged", "embedding",
        {f"{_EMBEDDING}.lora_embedding_A": item([2, 4]), f"{_EMBEDDING}.lora_embedding_B": item([8, 2])}, tied=True,
    ),
    _whole(
        "embedding-factors-wide", "add behind the end of a weight", "wrong-base",
        {f"{_EMBEDDING}.lora_embedding_A": item([2, 5]), f"{_EMBEDDING}.lora_embedding_B": item([8, 2])},
    ),
    _whole(
        "embedding-factor-alone", "a product of one factor", "missing-factor",
        {f"{_EMBEDDING}.lora_embedding_A": item([2, 4])},
    ),
    _whole("rows-unsaid", "rows of nobody knows which tokens", "bad-config", {_ROWS: item([1, 8])}),
    _whole("rows-too-few", "a row for two tokens", "wrong-base", {_ROWS: item([1, 8])}, trainable_token_indices=[1, 2]),
    _whole("row-behind-the-end", "write behind the end", "wrong-base", {_ROWS: item([1, 8])}, trainable_token_indices=[4]),
    _whole("row-below-zero", "count from the end", "bad-config", {_ROWS: item([1, 8])}, trainable_token_indices=[-1]),
    _whole("row-twice", "one token, two rows", "bad-config", {_ROWS: item([2, 8])}, trainable_token_indices=[1, 1]),
    _whole(
        "rows-said-twice", "two lists for one embedding", "bad-config", {_ROWS: item([1, 8])},
        trainable_token_indices={"embed_tokens": [1], "model.embed_tokens": [2]},
    ),
    _whole("rows-of-two-to-the-63", "wrap around", "wrong-base", {_ROWS: item([1, 8])}, trainable_token_indices=[1 << 63]),
    _whole(
        "rows-of-a-vector", "set every number by one", "wrong-base",
        {f"{_P}model.norm.token_adapter.trainable_tokens_delta": item([1], 2)}, trainable_token_indices={"norm": [0]},
    ),
    _whole(
        "rows-of-a-vector-too-few", "write behind the end", "wrong-base",
        {f"{_P}model.norm.token_adapter.trainable_tokens_delta": item([2], 2)}, trainable_token_indices={"norm": [0, 1]},
    ),
    _whole(
        "rows-of-an-unsaid-head", "change the head by a list for the embedding", "bad-config",
        {f"{_HEAD}.token_adapter.trainable_tokens_delta": item([1, 8], 2)}, trainable_token_indices=[1],
    ),
    _whole(
        "factors-of-a-vector", "change a norm beside a weight that may change", "wrong-base",
        _pair("model.norm", 8, 1) | {f"{_HEAD}.weight": item([4, 8], 2)},
    ),
    _whole(
        "another-rank-beside-a-whole", "be scaled by another rank than is said", "rank",
        _pair("model.layers.0.mlp.up_proj", 8, 8) | {_NORM: item([8], 2)}, rank_pattern={"up_proj": 4},
    ),
    _whole(
        "another-rank-of-an-embedding", "be scaled by another rank than is said", "rank",
        {f"{_EMBEDDING}.lora_embedding_A": item([3, 4]), f"{_EMBEDDING}.lora_embedding_B": item([8, 3])},
    ),
    _whole("lengths-unsaid", "rescale outputs", "dora", {_LENGTHS: item([8])}),
    _whole("lengths-missing", "half a DoRA", "dora", {}, use_dora=True),
    _whole("lengths-of-another", "rescale what has no factors", "missing-factor",
           {f"{_P}model.layers.1.self_attn.q_proj.lora_magnitude_vector": item([8])}, use_dora=True),
    _whole("lengths-too-few", "rescale some outputs", "wrong-base", {_LENGTHS: item([7])}, use_dora=True),
    _whole(
        "lengths-of-zero-outputs", "divide by zero", "not-finite",
        {_LENGTHS: item([8]), f"{_Q}.lora_A.weight": item([2, 8], 1), f"{_Q}.lora_B.weight": item([8, 2], -0.0025)},
        use_dora=True,
    ),
    _whole("lengths-huge", "an infinite gain", "not-finite", {_LENGTHS: item([8], _HUGE)}, use_dora=True),
    _whole("bias-of-no-bias", "give a layer a bias", "wrong-base", {f"{_Q}.lora_B.bias": item([8])}, lora_bias=True),
    _own("own-form-of-another-base", "differences from other weights", "wrong-base", _FACTORS, base_digest="sha256:0"),
    _own("own-form-of-no-base", "differences from nothing", "bad-config", _FACTORS, base_digest=None),
    _own("own-form-with-whole", "differences and weights in one", "bad-config", _FACTORS, modules_to_save=["lm_head"]),
    _own("own-form-of-experts", "read as what it is not", "bad-config", _FACTORS, target_parameters=["experts.weight"]),
    _own("embedding-as-linear", "served per row as what it is not", "wrong-base", _pair("model.embed_tokens", 8, 4)),
    _own(
        "linear-as-embedding", "written the other way round", "wrong-base", _FACTORS,
        kinds={"model.layers.0.self_attn.q_proj": "embedding"},
    ),
    _own("vector-of-rank-two", "a vector that is a matrix", "rank", _pair("model.norm", 8, 1), kinds={"model.norm": "vector"}),
    _own("gain-of-nothing", "rescale what has no factors", "shape", _FACTORS | {f"{_P}model.norm.gain": item([8])}),
    _own("gain-alone", "a store's form without factors", "empty", {f"{_Q}.gain": item([8])}),
    _own("gain-too-short", "rescale behind the end", "shape", _FACTORS | {f"{_Q}.gain": item([7])}),
    _own(
        "gain-of-a-vector", "a change that no store writes", "wrong-base",
        _FACTORS | {f"{_P}model.norm.lora_A.weight": item([1, 1]), f"{_P}model.norm.lora_B.weight": item([8, 1])}
        | {f"{_P}model.norm.gain": item([8])}, kinds={"model.norm": "vector"},
    ),
    _own("gain-of-nan", "spoil every answer", "not-finite", _FACTORS | {f"{_Q}.gain": item([8], _NAN)}),
)  # fmt: skip

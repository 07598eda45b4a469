"""Attacks through the SOURCE of an extraction: an adapter of any method, or a folder that says it is a fine-tune."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import peft  # noqa: F401  # loaded before the cage, whose memory is for the attack
from peft import PeftModel  # noqa: F401

from soupmix.base import resolve
from soupmix.errors import AdapterError, BaseModelError, OutputError, SoupmixError
from soupmix.extract import extract_adapter
from tests.attacks.attack import Attack
from tests.attacks.on_bases import base
from tests.support.adapter_folder import Item, encode, item

__all__ = ["ATTACKS"]

_Q0 = "base_model.model.model.layers.0.self_attn.q_proj"
_LOHA: dict[str, Any] = {"peft_type": "LOHA", "r": 2, "alpha": 2, "target_modules": ["q_proj"]}


def _loha() -> dict[str, Item]:
    """A sound LoHa of rank 2 of one layer of 8 x 8."""
    return {f"{_Q0}.hada_w{n}_{side}": item([8, 2] if side == "a" else [2, 8], 0.1) for n in (1, 2) for side in "ab"}


def _lora() -> dict[str, Item]:
    return {f"{_Q0}.lora_A.weight": item([2, 8], 0.1), f"{_Q0}.lora_B.weight": item([8, 2], 0.1)}


def source(folder: Path, config: Mapping[str, Any] | bytes, tensors: Mapping[str, Item]) -> Path:
    """A PEFT folder of any method."""
    folder.mkdir()
    text = config if isinstance(config, bytes) else json.dumps(config).encode()
    (folder / "adapter_config.json").write_bytes(text)
    (folder / "adapter_model.safetensors").write_bytes(encode(tensors))
    return folder


def _extract(where: Path, folder: Path) -> None:
    found = resolve(base(where / "base"), cache=where / "cache")
    extract_adapter(folder, base=found).save(where / "out", rank=2, error=1.0)


def _says(name: str, tries: str, reason: str, tensors: Mapping[str, Item] | None = None, **fields: Any) -> Attack:
    """The sound LoHa with other fields or tensors."""

    def run(where: Path) -> None:
        _extract(where, source(where / "in", _LOHA | fields, _loha() if tensors is None else tensors))

    return Attack(name, tries, run, AdapterError, reason)


def _is(name: str, tries: str, reason: str, config: bytes) -> Attack:
    def run(where: Path) -> None:
        _extract(where, source(where / "in", config, _loha()))

    return Attack(name, tries, run, AdapterError, reason)


def _tuned(
    name: str, tries: str, reason: str, spoil: Callable[[Path], object], error: type[SoupmixError] = AdapterError
) -> Attack:
    """A fine-tune of the sound base, spoilt."""

    def run(where: Path) -> None:
        spoil(base(where / "in"))
        _extract(where, where / "in")

    return Attack(name, tries, run, error, reason)


def _config(**fields: Any) -> Callable[[Path], object]:
    return lambda folder: (folder / "config.json").write_text(json.dumps(fields))


def _weights(data: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / "model.safetensors").write_bytes(data)


def _over_the_source(where: Path) -> None:
    found = resolve(base(where / "base"), cache=where / "cache")
    folder = source(where / "in", _LOHA, _loha())
    extract_adapter(folder, base=found).save(folder, rank=2, error=1.0, force=True)


_VERA = {
    "base_model.vera_A": item([2, 8], 0.1),
    "base_model.vera_B": item([8, 2], 0.1),
    f"{_Q0}.vera_lambda_b": item([8], 0.1),
    f"{_Q0}.vera_lambda_d": item([2], 0.1),
}
_OFT: dict[str, Any] = {"alpha": None, "r": 0, "oft_block_size": 4, "peft_type": "OFT", "peft_version": "0.21.2"}

ATTACKS = (
    _says("method-unknown", "a class by a name of its own", "unsupported", peft_type="os.system"),
    _says("method-as-list", "an unhashable name", "unsupported", peft_type=["LOHA"]),
    _says("method-of-prompts", "what changes no weight", "unsupported", peft_type="PROMPT_TUNING"),
    _says(
        "method-of-another-file",
        "factors of one method under the formula of another",
        "not-of-method",
        peft_type="LOKR",
    ),
    _is("extract-config-twice", "one file, two ranks", "bad-config", b'{"peft_type": "LOHA", "r": 2, "r": 3}'),
    _is("extract-config-deep", "overflow the stack", "bad-config", b"[" * 500_000),
    _says("extract-rank-huge", "allocate by the config", "bad-config", r=10**9),
    _says("extract-rank-lie", "allocate by the config", "not-of-method", r=1 << 16),
    _says("extract-alpha-huge", "make a small adapter loud", "bad-config", alpha=10**300),
    _says("extract-alpha-true", "true is 1", "bad-config", alpha=True),
    _says("extract-rank-as-text", "a text where PEFT counts", "bad-config", r="2"),
    _says("extract-conv-as-text", "a text that counts as true", "bad-config", use_effective_conv2d="false"),
    _says("extract-unknown-field", "a feature that is ignored", "unknown-field", use_something=True),
    _says("extract-dunder-field", "walk into Python's insides", "unknown-field", __class__="Evil"),
    _says("extract-pattern-loops", "backtrack for ever", "pattern", rank_pattern={"(a+)+$": 2}),
    _says("extract-start-elsewhere", "trained against a changed base", "changed-base", init_weights="residual"),
    _says(
        "extract-tensor-too-many",
        "a tensor that nobody reads",
        "not-of-method",
        _loha() | {f"{_Q0}.hada_t1": item([2, 2])},
    ),
    _says("extract-tensor-missing", "a factor as it happens to be", "not-of-method", dict(list(_loha().items())[:3])),
    _says(
        "extract-another-model",
        "a layer that the base lacks",
        "not-of-method",
        {"base_model.model.x.hada_w1_a": item([8, 2])},
    ),
    _says(
        "extract-name-of-a-method",
        "call what a name means",
        "not-of-method",
        {"base_model.model.__init__": item([8, 2])},
    ),
    _says("extract-nothing", "an adapter of nothing", "empty", {}),
    _says(
        "extract-nan", "NaN in every answer", "not-finite", _loha() | {f"{_Q0}.hada_w1_a": item([8, 2], float("nan"))}
    ),
    _says(
        "extract-overflow",
        "infinity by multiplying",
        "not-finite",
        {name: item(each[1], 3e38) for name, each in _loha().items()},
    ),
    _says(
        "extract-vera-huge",
        "projections sized by the config",
        "not-of-method",
        _VERA,
        peft_type="VERA",
        r=60_000,
        alpha=None,
    ),
    _says(
        "extract-oft-huge",
        "index tables sized by the config",
        "not-of-method",
        {f"{_Q0}.oft_R.weight": item([2, 6], 0.1)},
        **_OFT | {"oft_block_size": 8},
    ),
    _says(
        "extract-oft-old",
        "another formula",
        "unsupported",
        {f"{_Q0}.oft_R.weight": item([2, 6])},
        **_OFT | {"peft_version": "0.9"},
    ),
    _says(
        "extract-series",
        "a series of a million terms",
        "bad-config",
        {f"{_Q0}.oft_R.weight": item([2, 6])},
        **_OFT | {"num_cayley_neumann_terms": 10**6},
    ),
    _says(
        "extract-pissa-at-random",
        "a base nobody knows",
        "changed-base",
        _lora(),
        peft_type="LORA",
        alpha=None,
        init_lora_weights="pissa_niter_4",
    ),
    _says(
        "extract-loftq",
        "requantise the base",
        "changed-base",
        _lora(),
        peft_type="LORA",
        alpha=None,
        init_lora_weights="loftq",
    ),
    _says(
        "extract-megatron",
        "import a module by name",
        "unsupported",
        _lora(),
        peft_type="LORA",
        alpha=None,
        megatron_config={"a": 1},
    ),
    _says(
        "extract-parameters",
        "adapt what is no module",
        "unsupported",
        _lora(),
        peft_type="LORA",
        alpha=None,
        target_parameters=["x.weight"],
    ),
    _says(
        "extract-replication",
        "grow the model",
        "unsupported",
        _lora(),
        peft_type="LORA",
        alpha=None,
        layer_replication=[[0, 10**9]],
    ),
    _says(
        "extract-invocation",
        "act on a secret word only",
        "unsupported",
        _lora(),
        peft_type="LORA",
        alpha=None,
        alora_invocation_tokens=[1],
    ),
    _says(
        "extract-adalora-name",
        "a layer by any name",
        "not-of-method",
        {f"{_Q0}.lora_A": item([2, 8]), f"{_Q0}.lora_B": item([8, 2]), f"{_Q0}.lora_E": item([2, 1])},
        peft_type="ADALORA",
        alpha=None,
        rank_pattern={"__class__.__init__.lora_E": [True]},
    ),
    Attack("extract-over-source", "destroy what is read", _over_the_source, OutputError, "not-ours"),
    _tuned("tuned-is-the-base", "an adapter of nothing", "no-change", lambda folder: None),
    _tuned(
        "tuned-config-cut-off",
        "half an object",
        "bad-config",
        lambda folder: (folder / "config.json").write_bytes(b"{"),
    ),
    _tuned(
        "tuned-config-list",
        "an attribute of a list",
        "bad-config",
        lambda folder: (folder / "config.json").write_text("[]"),
    ),
    _tuned("tuned-incomplete", "a layer of zeros", "incomplete", _weights(encode({"model.norm.weight": item([8])}))),
    _tuned("tuned-cut-off", "read beyond the end", "truncated", _weights(b"\x00" * 4), BaseModelError),
    _tuned(
        "tuned-pickle",
        "run a pickle",
        "pickle",
        lambda folder: (folder / "model.safetensors").rename(folder / "model.bin"),
        BaseModelError,
    ),
)

"""Attacks through adapter_config.json."""

import json
from pathlib import Path
from typing import Any

from soupmix.errors import AdapterError
from soupmix.store import read_adapter
from tests.attacks.attack import Attack
from tests.support.adapter_folder import SHAPES, adapter

__all__ = ["ATTACKS"]


def _says(name: str, tries: str, reason: str, **fields: Any) -> Attack:
    """The sound config with other fields."""
    return Attack(
        name, tries, lambda where: read_adapter(adapter(where / "adapter", **fields), SHAPES), AdapterError, reason
    )


def _is(name: str, tries: str, reason: str, config: bytes) -> Attack:
    """Another file in place of the config."""

    def run(where: Path) -> None:
        read_adapter(adapter(where / "adapter", config=config), SHAPES)

    return Attack(name, tries, run, AdapterError, reason)


_WHOLE = json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]})


def _number(field: str, text: str) -> bytes:
    """The sound config with a number spelled like this."""
    return json.dumps(json.loads(_WHOLE) | {field: "HERE"}).replace('"HERE"', text).encode()


def _nested(depth: int) -> bytes:
    return _WHOLE.replace("{", '{"bias": ' + "[" * depth + "]" * depth + ", ", 1).encode()


_FULL = (1 << 20) - 1000

ATTACKS = (
    _is("config-empty", "index behind the end", "bad-config", b""),
    _is("config-cut-off", "half an object", "bad-config", b'{"r": 2'),
    _is("config-as-list", "an attribute of a list", "bad-config", b"[]"),
    _is("config-not-utf-8", "a decoder's error", "bad-config", b"\xff"),
    _is("config-with-mark", "a byte order mark that others refuse", "bad-config", b"\xef\xbb\xbf" + _WHOLE.encode()),
    _is("config-in-utf-16", "another reading than PEFT's", "bad-config", _WHOLE.encode("utf-16")),
    _is("config-in-utf-32", "another reading than PEFT's", "bad-config", _WHOLE.encode("utf-32-le")),
    _is("config-twice", "two documents in one", "bad-config", (_WHOLE * 2).encode()),
    _is("duplicate-rank", "one file, two ranks", "bad-config", _WHOLE.replace("{", '{"r": 64, ', 1).encode()),
    _is(
        "duplicate-by-escape",
        "one name in two spellings",
        "bad-config",
        _WHOLE.replace("{", r'{"\u0072": 64, ', 1).encode(),
    ),
    _is("config-deep", "overflow the stack", "bad-config", b"[" * 500_000),
    _is("config-deep-in-a-field", "overflow the stack in a message", "unsupported", _nested(400)),
    _is("config-of-lists", "a megabyte that becomes fifty", "bad-config", b"[" + b"[]," * (_FULL // 3) + b"[]]"),
    _is("config-without-rank", "a default", "bad-config", _WHOLE.replace('"r": 2, ', "").encode()),
    _is("alpha-nan", "NaN as a scaling", "bad-config", _number("lora_alpha", "NaN")),
    _is("alpha-infinity", "infinity as a scaling", "bad-config", _number("lora_alpha", "Infinity")),
    _is("alpha-beyond-float", "infinity by overflow", "bad-config", _number("lora_alpha", "1e999")),
    _is("dropout-beyond-float", "infinity where nobody looks", "bad-config", _number("lora_dropout", "-1e999")),
    _is("alpha-of-5000-digits", "convert a huge number", "bad-config", _number("lora_alpha", "9" * 5000)),
    _says("alpha-of-400-digits", "overflow a float", "bad-config", lora_alpha=10**400),
    _says("alpha-huge", "make a small adapter loud", "bad-config", lora_alpha=1e300),
    _says("alpha-below-zero", "turn the adapter round", "bad-config", lora_alpha=-4),
    _says("alpha-zero", "an adapter that only seems to act", "bad-config", lora_alpha=0),
    _says("alpha-as-text", "a text times a number", "bad-config", lora_alpha="4"),
    _says("alpha-true", "true is 1", "bad-config", lora_alpha=True),
    _says("rank-zero-in-config", "divide by zero", "bad-config", r=0),
    _says("rank-below-zero", "a root of less than zero", "bad-config", r=-2),
    _says("rank-a-million", "allocate by the config", "bad-config", r=10**6),
    _says("rank-as-fraction", "2.0 is not 2", "bad-config", r=2.0),
    _says("rank-true", "true is 1", "bad-config", r=True),
    _says("rank-full-width", "a digit that int() takes", "bad-config", r="\uff12"),
    _says("rank-lie", "another scaling than trained", "rank", r=4),
    _says("rslora-as-text", "a text that counts as true", "unsupported", use_rslora="false"),
    _says("rslora-as-one", "1 is true", "unsupported", use_rslora=1),
    _says("dora", "another formula", "unsupported", use_dora=True),
    _says("whole-modules", "replace modules of the base", "unsupported", modules_to_save=["lm_head"]),
    _says("layer-replication", "grow the model", "unsupported", layer_replication=[[0, 10**9]]),
    _says("biases", "shift outputs without a factor", "unsupported", bias="all"),
    _says("lora-bias", "shift outputs without a factor", "unsupported", lora_bias=True),
    _says("changed-base", "trained against a changed base", "unsupported", init_lora_weights="pissa"),
    _says("loftq", "requantise the base", "unsupported", init_lora_weights="loftq", loftq_config={"loftq_bits": 1}),
    _says("parameters", "adapt what is no module", "unsupported", target_parameters=["experts.weight"]),
    _says("new-tokens", "train single tokens", "unsupported", trainable_token_indices=[1]),
    _says("invocation-tokens", "act on a secret word only", "unsupported", alora_invocation_tokens=[1]),
    _says("another-method", "read as what it is not", "unsupported", peft_type="IA3"),
    _says("prompts", "tokens for weights", "unsupported", peft_type="PROMPT_TUNING"),
    _says("kind-as-list", "an unhashable kind", "unsupported", peft_type=["LORA"]),
    _says("another-task", "a classifier as a language model", "unsupported", task_type="SEQ_CLS"),
    _says("field-of-tomorrow", "a feature that is ignored", "unknown-field", use_something=True),
    _says("dunder-field", "walk into Python's insides", "unknown-field", __class__="Evil"),
    _says("pattern-nested-loops", "backtrack for ever", "pattern", rank_pattern={"(a+)+": 2}),
    _says("pattern-many-loops", "backtrack for ever", "pattern", rank_pattern={".*" * 20 + "x": 2}),
    _says("pattern-choices", "2^60 ways to match", "pattern", alpha_pattern={"(a|a)" * 60: 2}),
    _says("pattern-looking-ahead", "a grammar nobody checked", "pattern", alpha_pattern={"(?=a)q_proj": 2}),
    _says("pattern-not-a-regex", "a compiler's error", "pattern", rank_pattern={"[z-a]": 2}),
    _says("patterns-by-thousands", "compile for minutes", "pattern", rank_pattern={f"a{n}": 2 for n in range(50_000)}),
    _says("pattern-for-rank-zero", "divide by zero in one layer", "bad-config", rank_pattern={"q_proj": 0}),
    _says("pattern-for-alpha-nothing", "None times a number", "bad-config", alpha_pattern={"q_proj": None}),
    _says("patterns-as-list", "an attribute of a list", "bad-config", rank_pattern=["q_proj"]),
    _says("targets-nested", "an unhashable name", "bad-config", target_modules=[["q_proj"]]),
    _says("revision-as-number", "a number where text is expected", "bad-config", revision=1),
)

"""Attacks through the folder of a base model: configs, tokenizers, chat templates, and what lies beside the weights."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import transformers  # noqa: F401  # loaded before the cage, whose memory is for the attack
from transformers import AutoTokenizer, LlamaForCausalLM  # noqa: F401

from soupmix.base import chat_text, load_model, load_tokenizer, resolve
from soupmix.errors import BaseModelError, RecipeError, SoupmixError
from tests.attacks.attack import Attack
from tests.support.adapter_folder import Item, encode, item

__all__ = ["ATTACKS"]

_CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": 4,
    "tie_word_embeddings": True,
    "eos_token_id": 1,
}
_TOKENIZER: dict[str, Any] = {
    "version": "1.0",
    "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1, "c": 2, "d": 3}, "unk_token": "a"},
    "added_tokens": [],
    "pre_tokenizer": {"type": "Whitespace"},
}
_TALK = [{"role": "user", "content": "hi"}]
_EVIL = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model", "AutoTokenizer": ["evil.Words", None]}


def _tensors() -> dict[str, Item]:
    found = {"model.embed_tokens.weight": item([4, 8]), "model.norm.weight": item([8])}
    for layer in range(2):
        start = f"model.layers.{layer}."
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            found[f"{start}self_attn.{name}.weight"] = item([8, 8])
        for name in ("gate_proj", "up_proj", "down_proj"):
            found[f"{start}mlp.{name}.weight"] = item([8, 8])
        for name in ("input_layernorm", "post_attention_layernorm"):
            found[f"{start}{name}.weight"] = item([8])
    return found


def base(folder: Path, *, tied: bool = True) -> Path:
    """A sound model of two layers."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(_CONFIG | {"tie_word_embeddings": tied}))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 1}))
    (folder / "tokenizer.json").write_text(json.dumps(_TOKENIZER))
    words = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": "{{ messages[0].content }}"}
    (folder / "tokenizer_config.json").write_text(json.dumps(words))
    head = {} if tied else {"lm_head.weight": item([4, 8])}
    (folder / "model.safetensors").write_bytes(encode(_tensors() | head))
    return folder


def use(folder: Path, cache: Path) -> str:
    """Do with a folder what every command does that loads a base."""
    resolve(folder, cache=cache).files_digest()
    load_model(folder, "auto")
    return chat_text(load_tokenizer(folder), _TALK)


def _swapped_before_norms(where: Path) -> None:
    found = resolve(base(where / "base"), cache=where / "cache")
    larger = {name: item(shape, 1000.0) for name, (_, shape, _) in _tensors().items()}
    (where / "base" / "model.safetensors").write_bytes(encode(larger))
    found.weight_squares()


def _base(
    name: str, tries: str, reason: str, spoil: Callable[[Path], object], error: type[SoupmixError] = BaseModelError
) -> Attack:
    def run(where: Path) -> None:
        spoil(base(where / "base"))
        (where / "base" / "evil.py").write_text(f"import pathlib; pathlib.Path({str(where / 'mark')!r}).touch()")
        try:
            use(where / "base", where / "cache")
        finally:
            if (where / "mark").exists():
                raise RuntimeError("its code has run")

    return Attack(name, tries, run, error, reason)


def _changed(file: str, **fields: Any) -> Callable[[Path], object]:
    def spoil(folder: Path) -> None:
        path = folder / file
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    return spoil


def _written(file: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / file).write_bytes(content)


def _fifo(file: str) -> Callable[[Path], object]:
    def spoil(folder: Path) -> None:
        (folder / file).unlink()
        os.mkfifo(folder / file)

    return spoil


def _sparse(file: str) -> Callable[[Path], object]:
    return lambda folder: os.truncate(folder / file, 1 << 40)


def _only_pickles(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _shard_elsewhere(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder.parent / "weights.safetensors")
    index = {"weight_map": dict.fromkeys(_tensors(), "../weights.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _other_weights(folder: Path) -> None:
    (folder / "other.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    _changed("config.json", transformers_weights="other.safetensors")(folder)


def _quantised(**settings: Any) -> Callable[[Path], object]:
    return _changed("config.json", quantization_config=settings)


def _four_bits(folder: Path) -> None:
    """A weight of 64 values that says of itself that it has 16 million."""
    weight = "model.layers.0.self_attn.q_proj.weight"
    state = json.dumps({"quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": [4096, 4096]}).encode()
    packed: dict[str, Item] = {
        weight: ("U8", [32, 1], bytes(32)),
        f"{weight}.absmax": item([1]),
        f"{weight}.quant_map": item([16]),
        f"{weight}.quant_state.bitsandbytes__nf4": ("U8", [len(state)], state),
    }
    (folder / "model.safetensors").write_bytes(encode(_tensors() | packed))
    _quantised(quant_method="bitsandbytes", load_in_4bit=True, bnb_4bit_quant_type="nf4")(folder)


def _template(
    name: str, tries: str, text: str, reason: str = "template-limit", error: type[SoupmixError] = BaseModelError
) -> Attack:
    return _base(name, tries, reason, _changed("tokenizer_config.json", chat_template=text), error)


_MANY = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"

ATTACKS = (
    _base(
        "config-code",
        "run code beside the weights",
        "cannot-load",
        _changed("config.json", model_type="evil", auto_map=_EVIL),
    ),
    _base(
        "tokenizer-code",
        "run code beside the weights",
        "cannot-load",
        _changed("tokenizer_config.json", tokenizer_class="Words", auto_map=_EVIL),
    ),
    _base(
        "attention-from-the-hub",
        "run a kernel that is fetched",
        "remote-code",
        _changed("config.json", attn_implementation="kernels-community/evil"),
    ),
    _base(
        "attention-from-the-hub-inside",
        "hide it in a config inside",
        "remote-code",
        _changed("config.json", text_config={"_attn_implementation": "me/evil"}),
    ),
    _base(
        "layers-by-the-billion",
        "build modules for days",
        "bad-config",
        _changed("config.json", num_hidden_layers=10**9),
    ),
    _base("head-of-a-billion", "allocate by the config", "bad-config", _changed("config.json", head_dim=10**9)),
    _base(
        "vision-of-a-billion-layers",
        "build for ever",
        "bad-config",
        _changed("config.json", vision_config={"depth": 10**9}),
    ),
    _base(
        "a-list-repeated-a-billion-times",
        "allocate by the config",
        "bad-config",
        _changed("config.json", model_type="gpt_neo", attention_types=[[["global"], 10**9]]),
    ),
    _base("width-of-a-billion", "allocate by the config", "bad-config", _changed("config.json", hidden_size=10**9)),
    _base(
        "layers-without-weights",
        "made-up weights outside of the digest",
        "incomplete",
        _changed("config.json", num_hidden_layers=3),
    ),
    _base("width-of-others", "weights that do not fit", "cannot-load", _changed("config.json", intermediate_size=16)),
    _base(
        "quantised-by-nobody",
        "packed numbers taken for weights",
        "unknown-quantisation",
        _quantised(quant_method="mine"),
    ),
    _base(
        "quantised-pattern",
        "match for ever",
        "bad-config",
        _quantised(quant_method="fp8", modules_to_not_convert=["(a+)+$"]),
    ),
    _base(
        "quantised-object",
        "call what is no setting",
        "bad-config",
        _quantised(quant_method="torchao", quant_type={"default": {"_type": "quantize_", "_data": {}}}),
    ),
    _base("quantised-beyond", "make compiled code read beyond its memory", "bad-quantisation", _four_bits),
    _base("other-weights", "load weights outside of the digest", "cannot-load", _other_weights),
    _base("base-config-deep", "overflow the stack", "bad-config", _written("config.json", b"[" * 500_000)),
    _base(
        "base-config-nested",
        "overflow the stack later",
        "bad-config",
        _written("config.json", b'{"a":' * 300 + b"1" + b"}" * 300),
    ),
    _base("base-config-as-list", "an attribute of a list", "bad-config", _written("config.json", b"[]")),
    _base(
        "base-config-twice-a-key", "one file, two models", "bad-config", _written("config.json", b'{"a": 1, "a": 2}')
    ),
    _base("base-config-sparse", "fill the memory from a sparse file", "too-large", _sparse("config.json")),
    _base("base-tokenizer-sparse", "fill the memory from a sparse file", "too-large", _sparse("tokenizer.json")),
    _base("base-tokenizer-fifo", "wait for a writer for ever", "special-file", _fifo("tokenizer.json")),
    _base("base-generation-fifo", "wait for a writer for ever", "special-file", _fifo("generation_config.json")),
    _base("base-tokenizer-empty", "an error nobody thought of", "cannot-load", _written("tokenizer.json", b"")),
    _base("base-tokenizer-deep", "overflow the stack", "cannot-load", _written("tokenizer.json", b"[" * 500_000)),
    _base("only-pickles", "run code on reading", "pickle", _only_pickles),
    _base("shard-elsewhere", "read files elsewhere", "bad-index", _shard_elsewhere),
    Attack(
        "weights-swapped-before-norms",
        "norms of larger weights, which loosen a bound, remembered for an honest base",
        _swapped_before_norms,
        BaseModelError,
        "changed",
    ),
    _template("template-loops", "never come back", _MANY),
    _template("template-power", "one endless operation", "{{ 9 ** (9 ** (9 ** 9)) }}"),
    _template(
        "template-doubling",
        "all the memory",
        "{% set n = namespace(x='x' * 999) %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}",
        "bad-conversation",
        RecipeError,
    ),
    _template("template-padding", "all the memory", "{{ 'x'.ljust(999999999999) }}", "bad-conversation", RecipeError),
    _template(
        "template-escape",
        "Python's insides",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "bad-conversation",
        RecipeError,
    ),
    _template(
        "template-globals",
        "import a module",
        "{{ raise_exception.__globals__['json'] }}",
        "bad-conversation",
        RecipeError,
    ),
    _template("template-file", "read a file", "{% include '/etc/passwd' %}", "bad-conversation", RecipeError),
    _template("template-broken", "an error nobody thought of", "{% for %}", reason="bad-template"),
)

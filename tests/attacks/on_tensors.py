"""Attacks by what the tensors of a well-formed file are called, and what they hold."""

import struct
from collections.abc import Callable, Mapping
from pathlib import Path

from soupmix.errors import AdapterError
from soupmix.store import read_adapter
from tests.attacks.attack import Attack
from tests.support.adapter_folder import A0, B0, MODULES, SHAPES, Item, adapter, encode, item, sound

__all__ = ["ATTACKS"]


def _attack(name: str, tries: str, reason: str, make: Callable[[], Mapping[str, Item]]) -> Attack:
    def run(where: Path) -> None:
        read_adapter(adapter(where / "adapter", tensors=encode(make())), SHAPES)

    return Attack(name, tries, run, AdapterError, reason)


def _more(*names: str) -> Callable[[], dict[str, Item]]:
    """The sound tensors, and more under these names."""
    return lambda: sound() | {name: item([2, 32]) for name in names}


def _renamed(old: str, new: str) -> Callable[[], dict[str, Item]]:
    """Both factors of the first layer under another name."""
    return lambda: {
        (name.replace(old, new) if "layers.0" in name else name): tensor for name, tensor in sound().items()
    }


def _copied(old: str, new: str) -> Callable[[], dict[str, Item]]:
    """The sound tensors, and the first layer's once more under another name."""
    return lambda: sound() | _renamed(old, new)()


def _changed(**factors: Item) -> Callable[[], dict[str, Item]]:
    keys = {"A": A0, "B": B0}
    return lambda: sound() | {keys[side]: tensor for side, tensor in factors.items()}


def _without(*keys: str) -> Callable[[], dict[str, Item]]:
    return lambda: {name: tensor for name, tensor in sound().items() if name not in keys}


def _typed(dtype: str, size: int) -> Callable[[], dict[str, Item]]:
    return _changed(A=(dtype, [2, 32], bytes(64 * size)))


def _last(dtype: str, value: bytes) -> Callable[[], dict[str, Item]]:
    """B ends with these bytes and is zero elsewhere."""
    return _changed(B=(dtype, [32, 2], bytes(63 * len(value)) + value))


def _alpha(value: float, shape: list[int] | None = None, name: str | None = None) -> Callable[[], dict[str, Item]]:
    """The sound tensors, and an alpha beside them."""
    key = A0.replace("lora_A.weight", "alpha") if name is None else name
    return lambda: sound() | {key: item([] if shape is None else shape, value)}


_FLAT = MODULES[0].replace(".", "_")
_F32 = [struct.pack("<f", value) for value in (float("nan"), float("inf"), float("-inf"))]

ATTACKS = (
    _attack("path-as-name", "leave the folder", "bad-key", _more("../../etc/passwd")),
    _attack("absolute-path-as-name", "leave the folder", "bad-key", _more("/etc/passwd")),
    _attack("nul-in-name", "end a C string early", "bad-key", _more(A0 + "\0.txt")),
    _attack("newline-in-name", "forge a line of a log", "bad-key", _more(A0 + "\nsoupmix: all is well")),
    _attack("escape-in-name", "write to the terminal", "bad-key", _more("\x1b[2J" + A0)),
    _attack("right-to-left-name", "show another name than it is", "bad-key", _more("\u202e" + A0)),
    _attack("composed-accent", "one name in two spellings", "bad-key", _more(A0.replace("q_proj", "q_pr\u00f4j"))),
    _attack("combining-accent", "one name in two spellings", "bad-key", _more(A0.replace("q_proj", "q_pro\u0302j"))),
    _attack("cyrillic-twin", "look like a name it is not", "bad-key", _more(A0.replace("layers", "l\u0430yers"))),
    _attack("full-width-digit", "a digit that int() takes", "bad-key", _more(A0.replace("layers.0", "layers.\uff10"))),
    _attack("lone-surrogate", "an encoder's error", "bad-key", _more("\ud800" + A0)),
    _attack("case-twin", "a second q_proj", "wrong-base", _copied("q_proj", "Q_proj")),
    _attack("name-of-300", "a name longer than any module's", "bad-key", _more("x" * 300)),
    _attack("name-of-three-megabytes", "three megabytes in an error message", "bad-key", _more("x" * 3_000_000)),
    _attack("dots-for-a-name", "empty parts of a path", "bad-key", _more(A0.replace(".self_attn", "..self_attn"))),
    _attack("attribute-of-a-class", "walk into Python's insides", "wrong-base", _renamed("q_proj", "__class__")),
    _attack("plain-weight", "replace a weight of the base", "bad-key", _more("base_model.model.lm.q_proj.weight")),
    _attack(
        "bias-beside", "shift outputs without a factor", "bad-key", _more(A0.replace("lora_A.weight", "lora_B.bias"))
    ),
    _attack("third-factor", "a factor that nothing checks", "bad-key", _more(A0.replace("lora_A", "lora_C"))),
    _attack("named-adapter", "a second adapter in one file", "bad-key", _more(A0.replace("lora_A", "lora_A.other"))),
    _attack(
        "dora-magnitude", "rescale the base's rows", "dora", _more(A0.replace("lora_A.weight", "lora_magnitude_vector"))
    ),
    _attack("embedding", "change single tokens", "embedding", _more("base_model.model.model.embed_tokens.weight")),
    _attack("embedding-factor", "change tokens", "embedding", _more("base_model.model.model.wte.lora_embedding_A")),
    _attack("output-head", "favour single tokens", "embedding", _more("base_model.model.lm_head.weight")),
    _attack("two-spellings", "one factor, two values", "bad-key", _more(A0.removeprefix("base_model.model."))),
    _attack("kohya-twin", "one factor, two values", "bad-key", _more("lora_te_" + _FLAT + ".lora_down.weight")),
    _attack("mlx-twin", "one factor, two values", "bad-key", _more(A0.replace("lora_A.weight", "lora_a"))),
    _attack("alpha-of-nan", "spoil every row of a batch", "not-finite", _alpha(float("nan"))),
    _attack("alpha-of-infinity", "spoil every row of a batch", "not-finite", _alpha(float("inf"))),
    _attack("alpha-beside-below-zero", "turn the adapter round", "bad-config", _alpha(-4.0)),
    _attack("alpha-beside-of-zero", "an adapter that only seems to act", "bad-config", _alpha(0.0)),
    _attack("alpha-beside-of-another", "two scalings, of which readers take one", "bad-config", _alpha(64.0)),
    _attack("alpha-as-matrix", "a scaling for every column", "shape", _alpha(4.0, [2, 32])),
    _attack("alpha-of-nothing", "a scaling without a layer", "missing-factor", _alpha(4.0, [], "model.x.alpha")),
    _attack("doubles-beyond-floats", "infinity by rounding", "not-finite", _last("F64", struct.pack("<d", 1e300))),
    _attack("double-nan", "spoil every row of a batch", "not-finite", _last("F64", struct.pack("<d", float("nan")))),
    _attack("integers", "bytes as weights", "dtype", _typed("I8", 1)),
    _attack("unsigned-integers", "bytes as weights", "dtype", _typed("U16", 2)),
    _attack("booleans", "bytes that are no booleans", "dtype", _typed("BOOL", 1)),
    _attack("eight-bit-floats", "a type with its own NaN", "dtype", _typed("F8_E4M3", 1)),
    _attack("nan", "spoil every row of a batch", "not-finite", _last("F32", _F32[0])),
    _attack("infinity", "spoil every row of a batch", "not-finite", _last("F32", _F32[1])),
    _attack("minus-infinity", "spoil every row of a batch", "not-finite", _last("F32", _F32[2])),
    _attack("signalling-nan", "a NaN with another pattern", "not-finite", _last("F32", b"\x01\x00\xa0\xff")),
    _attack("half-nan", "a NaN of 16 bits", "not-finite", _last("F16", b"\x01\x7c")),
    _attack("half-infinity", "an infinity of 16 bits", "not-finite", _last("F16", b"\x00\xfc")),
    _attack("bfloat-nan", "a NaN of 16 bits", "not-finite", _last("BF16", b"\xc0\x7f")),
    _attack("no-a", "half an update", "missing-factor", _without(A0)),
    _attack("no-b", "half an update", "missing-factor", _without(B0)),
    _attack("no-tensor-at-all", "an adapter of nothing", "empty", dict),
    _attack("ranks-that-differ", "a product that does not exist", "shape", _changed(B=item([32, 3]))),
    _attack("scalar-factor", "a factor without sides", "shape", _changed(A=item([]))),
    _attack("flat-factor", "a factor of one side", "shape", _changed(A=item([64]))),
    _attack("cube-factor", "a factor of three sides", "shape", _changed(A=item([2, 32, 1]))),
    _attack("rank-zero", "divide by the rank", "shape", _changed(A=item([0, 32]), B=item([32, 0]))),
    _attack("no-inputs", "an empty product", "shape", _changed(A=item([2, 0]))),
    _attack("rank-not-of-config", "another scaling than it says", "rank", _changed(A=item([3, 32]), B=item([32, 3]))),
    _attack("inputs-of-another-base", "read beside the input", "wrong-base", _changed(A=item([2, 33]))),
    _attack("outputs-of-another-base", "write beside the output", "wrong-base", _changed(B=item([33, 2]))),
    _attack("layer-of-another-base", "a layer that is not there", "wrong-base", _copied("layers.0", "layers.7")),
)

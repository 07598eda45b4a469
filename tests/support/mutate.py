"""Mutations of adapter folders: the same seed gives the same two files, for ever."""

import json
import random
from collections.abc import Callable
from typing import Any

__all__ = ["ORIGINALS", "SHAPES", "mutant"]

_MODULES = [f"model.layers.{layer}.{name}" for layer in range(2) for name in ("self_attn.q_proj", "mlp.up_proj")]
SHAPES = {module: ((48, 32) if "up_proj" in module else (32, 32)) for module in _MODULES}
_SIZES = {"F32": 4, "F16": 2, "BF16": 2}
_NASTY: list[Any] = [
    None, True, False, 0, 1, -1, 2, 8, 2**31, 2**63, 2**64, 10**400, 0.5, -0.0, 1e300, float("nan"), float("inf"), "",
    "x", "F64", "F32", "I8", "../x", "a\0b", "\ud800", "\u0430", "q_proj", "(a+)+", ".*", [], [0], [[]], [2, 32], [0, 4],
    {}, {"a": 1}, "LORA", "all", "pissa", ["q_proj"], ["v_proj"], 10**9, "9" * 400, [1] * 40,
]  # fmt: skip
_BYTES = [b"", b"\0", b"\xff", b"{", b"}", b"[", b"]", b'"', b",", b":", b"NaN", b"1e999", b"\xef\xbb\xbf", b"\\ud800"]


def _original(dtype: str, **config: Any) -> tuple[bytes, bytes]:
    """config, tensors of a sound adapter with values of its own."""
    draw = random.Random(dtype)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for module, (out, into) in SHAPES.items():
        for side, shape in (("A", [2, into]), ("B", [out, 2])):
            size = shape[0] * shape[1] * _SIZES[dtype]
            header[f"base_model.model.{module}.lora_{side}.weight"] = {
                "dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + size],
            }  # fmt: skip
            # bytes below 0x40 in the place of the exponent keep every value finite
            data += bytes(draw.randrange(0x40) for _ in range(size))
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "up_proj"], "bias": "none"}
    return json.dumps(settings | config).encode(), _encoded(header, data)


def _encoded(header: Any, data: bytes) -> bytes:
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    return len(text).to_bytes(8, "little") + text + data


ORIGINALS = (
    _original("F32"),
    _original("BF16", use_rslora=True),
    _original("F16", target_modules=r".*(q|up)_proj", alpha_pattern={"layers.1.mlp.up_proj": 3, "q_proj": 5.5}),
)


def mutant(seed: int) -> tuple[bytes, bytes]:
    """config, tensors: a sound adapter with one to four mutations."""
    draw = random.Random(seed)
    config, tensors = draw.choice(ORIGINALS)
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        if draw.random() < 0.35:
            config = draw.choice((_flipped, _spliced, _cut, _json_changed, _json_changed, _json_changed))(draw, config)
        else:
            tensors = draw.choice(_TENSOR_MUTATIONS)(draw, tensors)
    return config, tensors


def _flipped(draw: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 8))):
        if changed:
            changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _spliced(draw: random.Random, data: bytes) -> bytes:
    at, until = sorted((draw.randrange(len(data) + 1), draw.randrange(len(data) + 1)))
    until = draw.choice((at, at + 1, until))
    piece = draw.choice((*_BYTES, data[at:until] * draw.choice((1, 2, 100)), draw.randbytes(draw.choice((1, 8, 64)))))
    return data[:at] + piece + data[until:]


def _cut(draw: random.Random, data: bytes) -> bytes:
    return data[: draw.choice((0, 7, 8, 9, draw.randrange(len(data) + 1), max(0, len(data) - 1)))]


def _json_changed(draw: random.Random, text: bytes) -> bytes:
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError):
        return _flipped(draw, text)
    return json.dumps(_changed(draw, tree)).encode("utf-8", "surrogatepass")


def _changed(draw: random.Random, tree: Any) -> Any:
    """One place of a JSON tree becomes something else."""
    if isinstance(tree, dict) and tree and draw.random() < 0.85:
        key = draw.choice(sorted(tree))
        kind = draw.random()
        if kind < 0.12:
            return {name: value for name, value in tree.items() if name != key}
        if kind < 0.3:
            new = draw.choice(
                (key + "x", key.upper(), key.replace("lora_A", "lora_B"), key.replace("0", "1"), "", "é" + key)
            )
            return {new if name == key else name: value for name, value in tree.items()}
        return tree | {key: _changed(draw, tree[key])}
    if isinstance(tree, list) and tree and draw.random() < 0.7:
        at = draw.randrange(len(tree))
        return [*tree[:at], _changed(draw, tree[at]), *tree[at + 1 :]]
    if isinstance(tree, int) and not isinstance(tree, bool) and draw.random() < 0.5:
        return tree + draw.choice((-4, -1, 1, 2, 4, 2**32))
    return draw.choice(_NASTY)


def _header_changed(draw: random.Random, tensors: bytes) -> bytes:
    length = int.from_bytes(tensors[:8], "little")
    header = _json_changed(draw, tensors[8 : 8 + length]) if length < len(tensors) else b"{}"
    return len(header).to_bytes(8, "little") + header + tensors[8 + length :] if length < len(tensors) else header


def _length_changed(draw: random.Random, tensors: bytes) -> bytes:
    length = int.from_bytes(tensors[:8], "little") + draw.choice((-8, -1, 1, 8, 2**20, 2**40))
    return draw.choice((length % 2**64, draw.getrandbits(64), 0)).to_bytes(8, "little") + tensors[8:]


def _header_flipped(draw: random.Random, tensors: bytes) -> bytes:
    length = min(int.from_bytes(tensors[:8], "little"), len(tensors))
    return tensors[:8] + _flipped(draw, tensors[8 : 8 + length]) + tensors[8 + length :]


def _values_changed(draw: random.Random, tensors: bytes) -> bytes:
    """Any bytes as numbers: NaN, infinity, subnormal, huge."""
    if len(tensors) < 64:
        return tensors
    at = draw.randrange(len(tensors) // 2, len(tensors) - 8)
    pattern = draw.choice(
        (b"\x00\x00\xc0\x7f", b"\x00\x00\x80\xff", b"\xff\xff\x7f\x7f", b"\x01\x00\x00\x00", draw.randbytes(4))
    )
    return tensors[:at] + pattern + tensors[at + 4 :]


_TENSOR_MUTATIONS: tuple[Callable[[random.Random, bytes], bytes], ...] = (
    _flipped, _spliced, _cut, _length_changed, _values_changed,
    _header_flipped, _header_flipped, _header_changed, _header_changed, _header_changed, _header_changed,
)  # fmt: skip

"""Attacks on the header of the safetensors file, before any tensor is looked at."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from soupmix.errors import AdapterError
from soupmix.store import read_adapter
from tests.attacks.attack import Attack
from tests.support.adapter_folder import A0, B0, SHAPES, TENSORS, adapter, encode, raw, sound

__all__ = ["ATTACKS"]


def _attack(name: str, tries: str, reason: str, content: bytes | Iterable[bytes]) -> Attack:
    def run(where: Path) -> None:
        folder = adapter(where / "adapter")
        with (folder / TENSORS).open("wb") as file:
            file.writelines([content] if isinstance(content, bytes) else content)
        read_adapter(folder, SHAPES)

    return Attack(name, tries, run, AdapterError, reason)


def _one(changes: dict[str, Any] | None = None, data: int = 4, **drop: bool) -> bytes:
    """A file whose only tensor is described with these changes."""
    slot = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} | (changes or {})
    return raw(json.dumps({A0: {key: value for key, value in slot.items() if key not in drop}}).encode(), bytes(data))


def _two(first: list[int], second: list[int], data: int) -> bytes:
    slots = {key: {"dtype": "F32", "shape": [1], "data_offsets": at} for key, at in ((A0, first), (B0, second))}
    return raw(json.dumps(slots).encode(), bytes(data))


def _twice() -> bytes:
    slot = '{"dtype":"F32","shape":[%s],"data_offsets":[0,256]}'
    return raw(f'{{"{A0}":{slot % "2,32"},"{A0}":{slot % "32,2"}}}'.encode(), bytes(256))


def _keys(count: int) -> Iterable[bytes]:
    """A header of so many keys, written in pieces."""
    slot = b':{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    yield (count * (len(slot) + 10) + 1).to_bytes(8, "little")
    yield from (b'%s"%07d"%s' % (b"," if number else b"{", number, slot) for number in range(count))
    yield b"}"


def _spaces(count: int) -> Iterable[bytes]:
    yield (count + 2).to_bytes(8, "little") + b"{}"
    yield from (b" " * 1_000_000 for _ in range(count // 1_000_000))
    yield b" " * (count % 1_000_000)


def _filled(start: bytes, unit: bytes, end: bytes, size: int = (16 << 20) - 100) -> bytes:
    return raw(start + unit * ((size - len(start) - len(end)) // len(unit)) + end)


_DIGITS = b'{"x":{"dtype":"F32","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,4]}}'

ATTACKS = (
    _attack("empty-file", "index behind the end", "truncated", b""),
    _attack("three-bytes", "index behind the end", "truncated", b"\x01\x02\x03"),
    _attack("header-of-exabytes", "allocate what a length says", "header-too-large", raw(b"{}", length=2**63)),
    _attack("header-past-the-end", "read behind the end", "truncated", raw(b"{}", length=1000)),
    _attack("header-of-99-megabytes", "parse 99 MB of spaces", "header-too-large", _spaces(99_000_000)),
    _attack("header-of-16-megabytes", "16 MB of spaces, just allowed", "empty", _spaces((16 << 20) - 2)),
    _attack("a-million-keys", "ten seconds and a gigabyte", "header-too-large", _keys(1_000_000)),
    _attack("a-hundred-thousand-and-one-keys", "many keys in an allowed length", "too-many-tensors", _keys(100_001)),
    _attack(
        "five-million-lists",
        "16 MB that become 400",
        "too-many-tensors",
        _filled(b'{"__metadata__":[[]', b",[]", b"]}"),
    ),
    _attack(
        "five-million-objects",
        "16 MB that become 400",
        "too-many-tensors",
        _filled(b'{"__metadata__":[{}', b",{}", b"]}"),
    ),
    _attack(
        "two-million-texts",
        "16 MB that become 200",
        "too-many-tensors",
        _filled(b'{"__metadata__":[""', b',"\xc3\xa9"', b"]}"),
    ),
    _attack(
        "a-million-numbers",
        "just as many commas as are allowed",
        "bad-header",
        _filled(b'{"x":[0', b",1e9", b"]}", 3 << 20),
    ),
    _attack("deep-lists", "overflow the stack", "bad-header", _filled(b'{"x":', b"[", b"", 299_000)),
    _attack("deep-objects", "overflow the stack", "bad-header", _filled(b"", b'{"x":', b"", 990_000)),
    _attack("leading-space", "a header that some parsers skip into", "bad-header", raw(b" {}")),
    _attack("list-for-a-header", "an attribute of a list", "bad-header", raw(b"[]")),
    _attack("text-for-a-header", "an attribute of a text", "bad-header", raw(b'"{}"')),
    _attack("header-not-utf-8", "a decoder's error", "bad-header", raw(b'{"\xff":{}}')),
    _attack("header-with-mark", "a byte order mark that others drop", "bad-header", raw(b"\xef\xbb\xbf{}")),
    _attack("header-in-utf-16", "another reading than the library's", "bad-header", raw("{}".encode("utf-16-le"))),
    _attack("header-in-utf-32", "another reading than the library's", "bad-header", raw("{}".encode("utf-32-le"))),
    _attack("garbage-behind-header", "two documents in one", "bad-header", raw(b"{}{}")),
    _attack("duplicate-keys", "one file, two shapes", "bad-header", _twice()),
    _attack("duplicate-metadata", "one file, two formats", "bad-header", raw(b'{"__metadata__":{},"__metadata__":{}}')),
    _attack("metadata-of-numbers", "a number where text is expected", "bad-header", raw(b'{"__metadata__":{"a":1}}')),
    _attack("metadata-as-list", "a list where an object is expected", "bad-header", raw(b'{"__metadata__":["a"]}')),
    _attack("slot-as-number", "a number where an object is expected", "bad-header", raw(b'{"x":1}')),
    _attack("slot-with-more", "a field that another parser obeys", "bad-header", _one({"stride": [1]})),
    _attack("slot-without-offsets", "read from nowhere", "bad-header", _one(data_offsets=True)),
    _attack("unknown-dtype", "an unknown size of an item", "bad-header", _one({"dtype": "F31"})),
    _attack("lower-case-dtype", "past a list of refused types", "bad-header", _one({"dtype": "f32"})),
    _attack("dtype-as-list", "an unhashable key", "bad-header", _one({"dtype": ["F32"]})),
    _attack("shape-of-booleans", "true is 1", "bad-header", _one({"shape": [True]})),
    _attack("shape-below-zero", "a negative size", "bad-header", _one({"shape": [-1]})),
    _attack("shape-of-fractions", "a size of 1.0", "bad-header", _one({"shape": [1.0]})),
    _attack(
        "shape-of-nan", "NaN as a size", "bad-header", raw(b'{"x":{"dtype":"F32","shape":[NaN],"data_offsets":[0,4]}}')
    ),
    _attack("shape-beyond-64-bits", "wrap around", "bad-header", _one({"shape": [2**64 + 1]})),
    _attack("shape-that-wraps", "2^32 x 2^32 items are 0 in 64 bits", "bad-offsets", _one({"shape": [2**32, 2**32]})),
    _attack("shape-of-5000-digits", "convert a huge number", "bad-header", raw(_DIGITS, bytes(4))),
    _attack(
        "shape-of-a-hundred-thousand", "a product that takes minutes", "bad-header", _one({"shape": [2**62] * 190_000})
    ),
    _attack("offsets-reversed", "a negative length", "bad-offsets", _one({"data_offsets": [4, 0]})),
    _attack("offsets-beyond-64-bits", "wrap around", "bad-header", _one({"data_offsets": [2**64, 2**64 + 4]})),
    _attack("three-offsets", "an ambiguous range", "bad-header", _one({"data_offsets": [0, 4, 8]})),
    _attack("range-larger-than-shape", "carry bytes nobody reads", "bad-offsets", _one({"data_offsets": [0, 8]}, 8)),
    _attack("range-smaller-than-shape", "read the next tensor's bytes", "bad-offsets", _one({"shape": [2]})),
    _attack("overlapping-tensors", "one byte, two meanings", "bad-offsets", _two([0, 4], [2, 6], 6)),
    _attack("same-bytes-twice", "one byte, two meanings", "bad-offsets", _two([0, 4], [0, 4], 4)),
    _attack("gap-between-tensors", "hide bytes in a hole", "bad-offsets", _two([0, 4], [8, 12], 12)),
    _attack("bytes-before-the-first", "hide bytes in front", "bad-offsets", _two([4, 8], [8, 12], 12)),
    _attack(
        "bytes-behind-the-last", "a file that is also a zip", "bad-offsets", encode(sound()) + b"PK\x05\x06" + bytes(18)
    ),
    _attack("truncated-by-a-byte", "read behind the end", "truncated", encode(sound())[:-1]),
    _attack("truncated-in-the-header", "read behind the end", "truncated", encode(sound())[:100]),
)

"""safetensors files without the library and without torch: a header parsed strictly, what a folder holds, the digest of it."""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

from soupmix.dtypes import BITS
from soupmix.errors import BaseModelError
from soupmix.files import digest_parts, strict_json
from soupmix.public import public

__all__ = [
    "INDEX",
    "HeaderError",
    "StoredTensor",
    "TensorInfo",
    "digest_of",
    "parse_header",
    "read_tensors",
    "tensors_digest",
    "weight_files",
]

_SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_MAX_HEADER = 100 << 20
_BLOCK = 4 << 20  # bytes; a multiple of the size of every number
_MAX_TENSORS = 1_000_000
_MAX_DIMENSIONS = 8  # the product of a hundred thousand numbers takes minutes
_SIGNS = {b"{": 2, b"[": 3, b",": 8}  # most of them for each tensor; names and metadata may hold some
_PICKLES = {".bin", ".pt", ".pth", ".pkl", ".ckpt"}


class HeaderError(ValueError):
    """A header that soupmix does not accept. Internal: callers turn it into the error of their room."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor of a file: its dtype ("F32", "BF16", ...), shape, and byte range [start, end) in the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def parse_header(file: BinaryIO, size: int, *, max_header: int, max_tensors: int) -> Mapping[str, StoredTensor]:
    """Read and check the header of an open safetensors file.

    Stricter than the format: the header must start with `{`, and neither duplicate keys nor unknown fields pass.

    Args:
        file: the file, positioned at its start. size: its length in bytes.
        max_header: most bytes of header that are read. max_tensors: most tensors that are accepted.

    Raises:
        HeaderError: reason "truncated", "header-too-large", "bad-header", "too-many-tensors" or "bad-offsets".
    """
    prefix = file.read(8)
    length = int.from_bytes(prefix, "little")
    if len(prefix) < 8:
        raise HeaderError("is too short to be a safetensors file", "truncated")
    if length > max_header:
        raise HeaderError(f"has a header of {length} bytes, at most {max_header} are allowed", "header-too-large")
    if 8 + length > size:
        raise HeaderError("ends inside its header", "truncated")
    raw = file.read(length)
    _check_work(raw, max_tensors)
    found = _table(raw)
    if len(found) > max_tensors:
        raise HeaderError(f"lists {len(found)} tensors, at most {max_tensors} are allowed", "too-many-tensors")
    tensors = {name: _tensor(name, item, 8 + length) for name, item in found.items()}
    _check_ranges(tensors, 8 + length, size)
    return tensors


def _check_work(raw: bytes, max_tensors: int) -> None:
    """Refuse a header that would become far more objects than so many tensors do, before it is parsed.

    A tensor is one object of three fields with two lists; an empty list takes twenty times the bytes that it is written in.
    """
    if any(raw.count(sign) > most * max_tensors for sign, most in _SIGNS.items()):
        raise HeaderError(f"lists more than the {max_tensors} tensors that are allowed", "too-many-tensors")


def _table(raw: bytes) -> dict[str, Any]:
    if not raw.startswith(b"{"):
        raise HeaderError("has a header that does not start with '{'", "bad-header")
    try:
        table = strict_json(raw)
    except (ValueError, RecursionError) as error:
        raise HeaderError(f"has a header that is not strict JSON ({error})", "bad-header") from None
    metadata = table.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise HeaderError("has metadata that is not text", "bad-header")
    return dict(table)


def _tensor(name: str, item: object, data: int) -> StoredTensor:
    if not isinstance(item, dict) or set(item) != {"dtype", "shape", "data_offsets"}:
        raise HeaderError(
            f"describes tensor {name[:80]!a} with other fields than dtype, shape, data_offsets", "bad-header"
        )
    dtype, shape, offsets = item["dtype"], item["shape"], item["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        raise HeaderError(f"gives tensor {name[:80]!a} the unknown dtype {str(dtype)[:20]!a}", "bad-header")
    if not _naturals(shape, _MAX_DIMENSIONS) or not _naturals(offsets, 2) or len(offsets) != 2:
        raise HeaderError(
            f"gives tensor {name[:80]!a} a shape or offsets that are not a few natural numbers", "bad-header"
        )
    if offsets[1] - offsets[0] != math.prod(shape) * BITS[dtype] // 8:
        raise HeaderError(f"gives tensor {name[:80]!a} a byte range that does not fit its shape", "bad-offsets")
    return StoredTensor(dtype, tuple(shape), data + offsets[0], data + offsets[1])


def _naturals(value: object, most: int) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= most
        and all(type(item) is int and 0 <= item < 2**63 for item in value)
    )


def _check_ranges(tensors: Mapping[str, StoredTensor], start: int, size: int) -> None:
    at = start
    for tensor in sorted(tensors.values(), key=lambda tensor: (tensor.start, tensor.end)):
        if tensor.start != at:
            raise HeaderError("has tensors that overlap or leave a gap", "bad-offsets")
        at = tensor.end
    if at != size:
        missing = "is truncated" if at > size else "has bytes behind its last tensor"
        raise HeaderError(missing, "truncated" if at > size else "bad-offsets")


@public
@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor of a base model: shape, dtype as safetensors spells it ("BF16"), the file and the bytes it is in."""

    shape: tuple[int, ...]
    dtype: str
    file: Path
    start: int
    end: int


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The safetensors files of a Hugging Face folder: the single file, or the shards its index names.

    Raises:
        BaseModelError: none are there ("no-weights"; "pickle" if only pickles are), a shard is missing
            ("incomplete"), or the index is damaged ("bad-index").
    """
    single, index = folder / _SINGLE, folder / INDEX
    if single.is_file():
        return (single,)
    if index.is_file():
        return _shards(folder, index)
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLES)
    if pickles:
        raise BaseModelError(
            f"base model {folder} holds only pickled weights ({pickles[0]}), which can run code when read: "
            "convert it to safetensors first",
            reason="pickle",
        )
    raise BaseModelError(f"base model {folder} holds no {_SINGLE} and no {INDEX}", reason="no-weights")


def _shards(folder: Path, index: Path) -> tuple[Path, ...]:
    try:
        names = sorted(set(strict_json(index.read_bytes())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BaseModelError(f"base model index {index} is damaged ({error})", reason="bad-index") from None
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise BaseModelError(
                f"base model index {index} names a file outside its folder: {name!r}", reason="bad-index"
            )
        if not (folder / name).is_file():
            raise BaseModelError(f"base model {folder} is incomplete: {name} is missing", reason="incomplete")
    return tuple(folder / name for name in names)


def read_tensors(folder: Path) -> Mapping[str, TensorInfo]:
    """Every tensor of a Hugging Face safetensors folder, sorted by name, read from the headers only.

    Raises:
        BaseModelError: a file is missing or damaged, or one tensor is in two files ("duplicate-tensor").
    """
    found: dict[str, TensorInfo] = {}
    for path in weight_files(folder):
        for name, tensor in _tensors(path).items():
            if name in found:
                raise BaseModelError(f"base model {folder} holds tensor {name!r} twice", reason="duplicate-tensor")
            found[name] = TensorInfo(tensor.shape, tensor.dtype, path, tensor.start, tensor.end)
    return dict(sorted(found.items()))


def _tensors(path: Path) -> Mapping[str, StoredTensor]:
    try:
        with path.open("rb") as file:
            return parse_header(file, path.stat().st_size, max_header=_MAX_HEADER, max_tensors=_MAX_TENSORS)
    except HeaderError as error:
        raise BaseModelError(f"base model file {path} {error}", reason=error.reason) from None
    except OSError as error:
        raise BaseModelError(f"base model file {path} cannot be read: {error.strerror}", reason="unreadable") from None


Beside = Callable[[str, TensorInfo, memoryview], Callable[[], None]]
"""Begins something with a block of a tensor while it is hashed; what it returns waits for the end of it."""


def digest_of(tensors: Mapping[str, TensorInfo], hashes: Mapping[str, str]) -> str:
    """What `tensors_digest` gives, from the hex SHA-256 of every tensor's bytes."""
    shapes = {name: "x".join(map(str, info.shape)) for name, info in tensors.items()}
    parts = {name: f"{info.dtype} {shapes[name]} {hashes[name]}" for name, info in tensors.items()}
    return f"sha256:{digest_parts('soupmix.base.v1', parts)}"


def tensors_digest(folder: Path, beside: Beside | None = None) -> str:
    """Identity of a base model: "sha256:<hex>" over every tensor's name, dtype, shape and bytes.

    Independent of sharding, of the order inside the files and of config.json (whose defaults change with the
    version of transformers that wrote it).

    Args:
        folder: of Hugging Face's form.
        beside: what else is done with the very bytes that are hashed, block by block.
    """
    tensors, hashes = read_tensors(folder), dict[str, str]()
    by_file: dict[Path, list[tuple[str, TensorInfo]]] = {}
    for name, info in tensors.items():
        by_file.setdefault(info.file, []).append((name, info))
    buffer = bytearray(_BLOCK)
    for path, items in by_file.items():
        with path.open("rb", buffering=0) as file:
            for name, info in items:
                digest = hashlib.sha256()
                for block in _blocks(file, info, buffer):
                    finish = None if beside is None else beside(name, info, block)
                    digest.update(block)
                    if finish is not None:
                        finish()
                hashes[name] = digest.hexdigest()
    return digest_of(tensors, hashes)


def _blocks(file: FileIO, info: TensorInfo, buffer: bytearray) -> Iterator[memoryview]:
    """The bytes of a tensor in blocks as long as the buffer, which holds one at a time."""
    file.seek(info.start)
    left = info.end - info.start
    while left:
        block = memoryview(buffer)[: min(left, len(buffer))]
        filled = 0
        while filled < len(block):
            count = file.readinto(block[filled:])
            if not count:
                raise BaseModelError(f"base model file {info.file} was cut short while it was read", reason="truncated")
            filled += count
        yield block
        left -= len(block)

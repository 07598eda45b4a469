"""What a folder of safetensors files holds, and the digest of it: read from headers and bytes, without torch."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from soupmix.base.header import HeaderError, Slot, parse_header
from soupmix.errors import BaseModelError
from soupmix.files import digest_parts, strict_json
from soupmix.public import public

__all__ = ["INDEX", "TensorInfo", "linear_shapes", "read_tensors", "tensors_digest", "weight_files"]

_SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_MAX_HEADER = 100 << 20
_MAX_TENSORS = 1_000_000
_EMBEDDINGS = {"embed_tokens", "wte", "wpe", "word_embeddings", "embed_in", "embed_positions", "tok_embeddings"}
_PICKLES = {".bin", ".pt", ".pth", ".pkl", ".ckpt"}


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
        for name, slot in _slots(path).items():
            if name in found:
                raise BaseModelError(f"base model {folder} holds tensor {name!r} twice", reason="duplicate-tensor")
            found[name] = TensorInfo(slot.shape, slot.dtype, path, slot.start, slot.end)
    return dict(sorted(found.items()))


def _slots(path: Path) -> Mapping[str, Slot]:
    try:
        with path.open("rb") as file:
            return parse_header(file, path.stat().st_size, max_header=_MAX_HEADER, max_tensors=_MAX_TENSORS)
    except HeaderError as error:
        raise BaseModelError(f"base model file {path} {error}", reason=error.reason) from None
    except OSError as error:
        raise BaseModelError(f"base model file {path} cannot be read: {error.strerror}", reason="unreadable") from None


def linear_shapes(tensors: Mapping[str, TensorInfo]) -> Mapping[str, tuple[int, int]]:
    """Module path -> (out, in) for every two-dimensional weight that is not an embedding table."""
    shapes: dict[str, tuple[int, int]] = {}
    for name, info in tensors.items():
        module, _, kind = name.rpartition(".")
        if kind == "weight" and len(info.shape) == 2 and module.rpartition(".")[2] not in _EMBEDDINGS:
            shapes[module] = (info.shape[0], info.shape[1])
    return shapes


def tensors_digest(folder: Path) -> str:
    """Identity of a base model: "sha256:<hex>" over every tensor's name, dtype, shape and bytes.

    Independent of sharding, of the order inside the files and of config.json (whose defaults change with the
    version of transformers that wrote it).
    """
    parts: dict[str, str] = {}
    by_file: dict[Path, list[tuple[str, TensorInfo]]] = {}
    for name, info in read_tensors(folder).items():
        by_file.setdefault(info.file, []).append((name, info))
    for path, items in by_file.items():
        with path.open("rb") as file:
            for name, info in items:
                shape = "x".join(map(str, info.shape))
                parts[name] = f"{info.dtype} {shape} {_range_sha256(file, info.start, info.end, path)}"
    return f"sha256:{digest_parts('soupmix.base.v1', parts)}"


def _range_sha256(file: BinaryIO, start: int, end: int, path: Path) -> str:
    digest = hashlib.sha256()
    file.seek(start)
    left = end - start
    while left:
        block = file.read(min(left, 1 << 20))
        if not block:
            raise BaseModelError(f"base model file {path} was cut short while it was read", reason="truncated")
        digest.update(block)
        left -= len(block)
    return digest.hexdigest()

"""The header of a safetensors file, parsed strictly and without the library: what is inside, and where."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from soupmix.dtypes import BITS
from soupmix.files import strict_json

__all__ = ["HeaderError", "Slot", "parse_header"]

_MAX_DIMENSIONS = 8  # the product of a hundred thousand numbers takes minutes


class HeaderError(ValueError):
    """A header that soupmix does not accept. Internal: callers turn it into the error of their room."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Slot:
    """One tensor of a file: its dtype ("F32", "BF16", ...), shape, and byte range [start, end) in the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def parse_header(file: BinaryIO, size: int, *, max_header: int, max_tensors: int) -> Mapping[str, Slot]:
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
    found = _table(file.read(length))
    if len(found) > max_tensors:
        raise HeaderError(f"lists {len(found)} tensors, at most {max_tensors} are allowed", "too-many-tensors")
    slots = {name: _slot(name, item, 8 + length) for name, item in found.items()}
    _check_ranges(slots, 8 + length, size)
    return slots


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


def _slot(name: str, item: object, data: int) -> Slot:
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
    return Slot(dtype, tuple(shape), data + offsets[0], data + offsets[1])


def _naturals(value: object, most: int) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= most
        and all(type(item) is int and 0 <= item < 2**63 for item in value)
    )


def _check_ranges(slots: Mapping[str, Slot], start: int, size: int) -> None:
    at = start
    for slot in sorted(slots.values(), key=lambda slot: (slot.start, slot.end)):
        if slot.start != at:
            raise HeaderError("has tensors that overlap or leave a gap", "bad-offsets")
        at = slot.end
    if at != size:
        missing = "is truncated" if at > size else "has bytes behind its last tensor"
        raise HeaderError(missing, "truncated" if at > size else "bad-offsets")

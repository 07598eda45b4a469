"""What every op asks of its arguments before a backend sees them: shapes, dtypes, devices, memory, and no gradients.

A kernel trusts what it is given: it would read beyond a factor that is too short, and where the tensor that is written lies
over itself or over what is read, the result would depend on who comes first.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.autograd import forward_ad

__all__ = [
    "FLOATS",
    "check_coefficients",
    "check_device",
    "check_merge",
    "check_no_gradient",
    "check_pool",
    "check_pool_dtype",
    "check_rows",
    "check_soup",
    "check_update",
]

FLOATS: Mapping[str, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
"""What weights, factors and activations may be: a kernel multiplies, and a factor that is rounded to integers is none."""
_COEFFICIENTS = "coefficients needs weights [people, K], lo [K], hi [K], columns [columns] and scale [columns]"
_MERGE = "merge needs W [out, in], A [R, in], B [out, R], c [people, R] and, where one is given, out [people, out, in]"
_SOUP = (
    "soup_linear needs y [rows, out], x [rows, in], A [slices R, in], B [out, R], c [people, slices R], "
    "rows [rows], one to three widths that sum to out and a rank of at most R"
)


def check_coefficients(weights: Tensor, lo: Tensor, hi: Tensor, columns: Tensor, scale: Tensor) -> None:
    """Raise ValueError or TypeError where arguments of `coefficients` do not fit each other."""
    given = {"weights": weights, "lo": lo, "hi": hi, "columns": columns, "scale": scale}
    adapters = weights.shape[1:]
    if not (
        weights.dim() == 2 and lo.shape == hi.shape == adapters and columns.dim() == 1 and scale.shape == columns.shape
    ):
        raise ValueError(f"{_COEFFICIENTS}; got {_shapes(given)}")
    if not (weights.dtype == lo.dtype == hi.dtype == scale.dtype == torch.float32 and columns.dtype == torch.int32):
        raise TypeError(f"coefficients needs columns in int32 and all else in float32; got {_dtypes(given)}")
    check_device(given)


def check_update(A: Tensor, B: Tensor, c: Tensor) -> None:
    """Raise ValueError, TypeError or RuntimeError where the factors and coefficients of one person do not fit each other."""
    given = {"A": A, "B": B, "c": c}
    if not (A.dim() == B.dim() == c.dim() == 2 and A.shape[0] == B.shape[1] == c.shape[1] and c.shape[0] == 1):
        raise ValueError(f"an update needs A [R, in], B [out, R] and c [1, R], of one person; got {_shapes(given)}")
    if not (A.dtype == B.dtype and A.dtype in FLOATS.values() and c.dtype == torch.float32):
        raise TypeError(
            f"an update needs A and B of one dtype, fp32, fp16 or bf16, and c in float32; got {_dtypes(given)}"
        )
    check_device(given)
    check_no_gradient("an update", given)


def check_merge(out: Tensor | None, W: Tensor, A: Tensor, B: Tensor, c: Tensor) -> None:
    """Raise ValueError or TypeError where arguments of the merge ops do not fit each other; `out` None: it is made to fit."""
    given = {"W": W, "A": A, "B": B, "c": c} | ({} if out is None else {"out": out})
    right = (
        W.dim() == A.dim() == B.dim() == c.dim() == 2
        and A.shape[1] == W.shape[1]
        and B.shape[0] == W.shape[0]
        and A.shape[0] == B.shape[1] == c.shape[1]
        and (out is None or out.shape == (c.shape[0], *W.shape))
    )
    if not right:
        raise ValueError(f"{_MERGE}; got {_shapes(given)}")
    if not (
        W.dtype in FLOATS.values()
        and c.dtype == torch.float32
        and all(given[n].dtype == W.dtype for n in given if n != "c")
    ):
        raise TypeError(
            f"merge needs W, A, B and out of one dtype, fp32, fp16 or bf16, and c in float32; got {_dtypes(given)}"
        )
    check_device(given)
    if out is not None:
        beside = {"A": A, "B": B, "c": c}
        if _one_place(out, W):
            _check_written("W", out, beside)
        else:
            _check_written("out", out, beside | {"W": W})


def check_soup(
    y: Tensor, x: Tensor, A: Tensor, B: Tensor, c: Tensor, rows: Tensor, widths: Sequence[int], rank: int
) -> None:
    """Raise ValueError or TypeError where arguments of the soup ops do not fit each other."""
    given = {"y": y, "x": x, "A": A, "B": B, "c": c, "rows": rows}
    slices = len(widths)
    right = (
        x.dim() == y.dim() == A.dim() == B.dim() == c.dim() == 2
        and 1 <= slices <= 3
        and min(widths) >= 0
        and x.shape[1] == A.shape[1]
        and y.shape == (x.shape[0], B.shape[0])
        and B.shape[0] == sum(widths)
        and A.shape[0] == c.shape[1] == slices * B.shape[1]
        and rows.shape == x.shape[:1]
        and 0 <= rank <= max(B.shape[1], 1)
    )
    if not right:
        raise ValueError(f"{_SOUP}; got {_shapes(given)}, widths {list(widths)}, rank {rank}")
    floats = y.dtype in FLOATS.values() and x.dtype == A.dtype == B.dtype == y.dtype
    if not (floats and c.dtype == torch.float32 and rows.dtype == torch.int32):
        raise TypeError(
            "soup_linear needs y, x, A and B of one dtype, fp32, fp16 or bf16, c in float32 and rows in int32; "
            f"got {_dtypes(given)}"
        )
    check_device(given)
    _check_written("y", y, {"x": x, "A": A, "B": B, "c": c, "rows": rows})


def check_pool(A: Tensor, B: Tensor, columns: Sequence[Tensor], widths: Sequence[int], rank: int) -> None:
    """Raise ValueError or TypeError where tensors of a pool do not fit each other; `columns`: those with one number a column."""
    count, R = A.shape[0], B.shape[-1]
    shapes = A.dim() == B.dim() == 2 and 1 <= len(widths) <= 3 and min(widths) >= 0 and B.shape[0] == sum(widths)
    if not (shapes and count == len(widths) * R and all(each.shape == (count,) for each in columns) and 0 <= rank <= R):
        raise ValueError(
            "a pool needs A [slices R, in], B [sum of widths, R], one to three widths and a number for every column; "
            f"got A {list(A.shape)}, B {list(B.shape)}, widths {list(widths)}, "
            f"columns {[list(each.shape) for each in columns]}"
        )
    for factor in (A, B):
        check_pool_dtype(factor.dtype)
    check_device({"A": A, "B": B} | {f"columns {number}": each for number, each in enumerate(columns)})


def check_pool_dtype(dtype: torch.dtype) -> None:
    """Raise TypeError for a dtype that kernels do not multiply in."""
    if dtype not in FLOATS.values():
        raise TypeError(f"a pool is held in fp32, fp16 or bf16, not in {dtype}")


def check_rows(
    y: Tensor, x: Tensor, A: Tensor, B: Tensor, c: Tensor, rows: Tensor, widths: Sequence[int], rank: int
) -> None:
    """`check_soup` for every layer of every step: cheap, as pool and row coefficients were checked when they were made."""
    count = len(rows)
    fits = x.shape == (count, A.shape[1]) and y.shape == (count, B.shape[0]) and c.shape[1] == A.shape[0]
    if not (fits and x.dtype == y.dtype == A.dtype and x.device == y.device == c.device == A.device):
        check_soup(y, x, A, B, c, rows, widths, rank)
    elif not (y.is_contiguous() and x.is_contiguous() and _after(y, x)):
        _check_written("y", y, {"x": x})
    if torch.is_grad_enabled():
        check_no_gradient("soup_linear_", {"y": y, "x": x, "A": A, "B": B, "c": c})


def check_no_gradient(op: str, given: Mapping[str, Tensor]) -> None:
    """Raise RuntimeError where a gradient, backward or forward, would have to pass through an op, which computes none."""
    back = torch.is_grad_enabled()
    wanting = [
        name
        for name, tensor in given.items()
        if (back and tensor.requires_grad) or forward_ad.unpack_dual(tensor).tangent is not None
    ]
    if wanting:
        raise RuntimeError(
            f"{op} computes no gradients, and {', '.join(wanting)} would need them; call it under torch.no_grad() or "
            "torch.inference_mode(), detach, or train with an implementation that has gradients, such as peft"
        )


def check_device(given: Mapping[str, Tensor]) -> None:
    """Raise ValueError where tensors lie on several devices; torch itself would ask one of them, whichever."""
    devices = {tensor.device for tensor in given.values()}
    if len(devices) > 1:
        found = ", ".join(f"{name} {tensor.device}" for name, tensor in given.items())
        raise ValueError(f"all tensors of an op lie on one device; got {found}")


def _check_written(name: str, written: Tensor, given: Mapping[str, Tensor]) -> None:
    """Raise ValueError where a tensor that is written lies over itself, or over one of `given`, which are read."""
    if not written.is_contiguous() and _lies_over_itself(written):
        raise ValueError(
            f"{name} is written, so its elements must lie apart; got shape {list(written.shape)} with strides "
            f"{list(written.stride())}: make it contiguous"
        )
    for other, tensor in given.items():
        if not (_after(written, tensor) or _side_by_side(written, tensor)):
            raise ValueError(
                f"{name} is written while {other} is read, so they must not share memory; clone one of them"
            )


def _lies_over_itself(tensor: Tensor) -> bool:
    """Whether two elements may share memory: no axis steps over all that the axes of smaller steps reach."""
    reach = 0
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1:
            if stride <= reach:
                return tensor.numel() > 0
            reach += stride * (size - 1)
    return False


def _after(one: Tensor, other: Tensor) -> bool:
    """Whether one tensor ends before the other begins, or one of them is empty."""
    start, begin, long, wide = one.data_ptr(), other.data_ptr(), _span(one), _span(other)
    return start + long <= begin or begin + wide <= start or not (long and wide)


def _span(tensor: Tensor) -> int:
    """Bytes from the first element to the end of the last."""
    if tensor.is_contiguous():
        return tensor.nbytes
    last = sum(stride * (size - 1) for stride, size in zip(tensor.stride(), tensor.shape, strict=True))
    return (last + 1) * tensor.element_size() if tensor.numel() else 0


def _side_by_side(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are windows of whole columns in one wider matrix, with no column in common."""
    if not (one.dim() == other.dim() == 2 and one.stride(1) == other.stride(1) == 1):
        return False
    line = one.stride(0) * one.element_size()
    wide, broad = one.shape[1] * one.element_size(), other.shape[1] * other.element_size()
    if line != other.stride(0) * other.element_size() or line == 0:
        return False
    begin = (other.data_ptr() - one.data_ptr()) % line
    return wide <= begin and begin + broad <= line


def _one_place(out: Tensor, W: Tensor) -> bool:
    """Whether `out` is W itself, for one person: every element is read before it is written."""
    return len(out) == 1 and out.data_ptr() == W.data_ptr() and out[0].stride() == W.stride()


def _shapes(given: Mapping[str, Tensor]) -> str:
    return ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in given.items())


def _dtypes(given: Mapping[str, Tensor]) -> str:
    return ", ".join(f"{name} {tensor.dtype}" for name, tensor in given.items())

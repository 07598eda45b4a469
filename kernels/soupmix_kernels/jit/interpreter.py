"""Makes Triton's interpreter right for bf16 and for scalars, so that the very source that is compiled can be executed.

The interpreter holds bf16 as 16-bit integers and multiplies the bit patterns (triton-lang/triton #11584); it truncates where it
should round. Here casts round to nearest even and a dot of bf16 goes through fp32, as it does on matrix units; any other
arithmetic on bf16, which no kernel of ours does, raises. Triton 3.6 makes a Python number of an array of one element, which
numpy refuses since 2.4; here it takes the element. Works on triton 3.6 to 3.9.
"""

from typing import Any

import numpy as np
import triton.language as tl
from numpy.typing import NDArray
from triton.runtime import interpreter
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

__all__ = ["teach_bf16"]

_BF16, _FP32 = tl.bfloat16, tl.float32


def teach_bf16() -> None:
    """Patch the interpreter of this process, once."""
    builder = InterpreterBuilder
    if getattr(builder, "knows_bf16", False):
        return
    cast, dot, fp_to_fp, binary = builder.cast_impl, builder.create_dot, builder.create_fp_to_fp, builder.binary_op

    def cast_impl(self: Any, source: Any, target: Any) -> Any:
        pair = (source.dtype.scalar, target.scalar)
        if pair == (_BF16, _FP32):
            return TensorHandle(_widen(source.data), _FP32)
        if pair == (_FP32, _BF16):
            return TensorHandle(_round(source.data), _BF16)
        if _BF16 in pair and pair[0] != pair[1]:
            raise NotImplementedError(f"cast from {pair[0]} to {pair[1]} in the interpreter; go through fp32")
        return cast(self, source, target)

    def create_fp_to_fp(self: Any, source: Any, target: Any, mode: Any) -> Any:
        if {source.dtype.scalar, target.scalar} == {_BF16, _FP32}:
            return cast_impl(self, source, target)
        return fp_to_fp(self, source, target, mode)

    def create_dot(self: Any, a: Any, b: Any, acc: Any, *rest: Any) -> Any:
        if a.dtype.scalar != _BF16:
            return dot(self, a, b, acc, *rest)
        product = np.matmul(_widen(a.data), _widen(b.data), dtype=np.float32)
        return TensorHandle(product + acc.data, acc.dtype.scalar)

    def binary_op(self: Any, left: Any, right: Any, op: Any) -> Any:
        if left.dtype.scalar == _BF16:
            raise NotImplementedError("arithmetic on bf16 in the interpreter; cast to fp32 first")
        return binary(self, left, right, op)

    builder.cast_impl, builder.create_fp_to_fp = cast_impl, create_fp_to_fp
    builder.create_dot, builder.binary_op = create_dot, binary_op
    builder.knows_bf16 = True
    _teach_scalars()


def _teach_scalars() -> None:
    """Patch what the interpreter puts in place of `tl.tensor` while a kernel runs: range() and the like ask for an index."""
    patch = interpreter._patch_lang_tensor

    def patch_lang_tensor(tensor: Any, scope: Any) -> None:
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = patch_lang_tensor


def _widen(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _round(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """fp32 -> bf16 bits, to nearest, ties to even; NaN stays NaN."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded).astype(np.uint16)

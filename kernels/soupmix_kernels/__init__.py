"""Fused low-rank soups: one formula for load time and request time.

    y_b = x_b W^T + ((x_b A_cat^T) * c_b) B_cat^T

`A_cat` [R, in] and `B_cat` [out, R] stack the factors of K adapters, R is the sum of their ranks, and `c_b` [R] holds one
coefficient per rank column: the clamped weight of the column's adapter for the person of row b, times the adapter's scaling.

A `Pool` holds the factors of all adapters for layers with the same input. It clamps weights [people, K] to `Coefficients`, which
are made in no other way. `RowCoefficients` say whose coefficients every row of a step has, and `soup_linear_` adds the soups of
all rows to the base projection; `merge` folds coefficients into a base weight instead, `merge_rows_` an `Update` into some of its
rows. Where products on this processor would mix rows, their inner dimension is filled up with zeros (`rows_apart`).
"""

from soupmix_kernels.ops import BACKENDS, backend_for
from soupmix_kernels.packed import pack, packed_linear, wide_linear, wide_weight
from soupmix_kernels.pool import Coefficients, Part, Pool, coefficients
from soupmix_kernels.soup import RowCoefficients, Update, merge, merge_, merge_rows_, soup_linear_, soup_linear_factor_

__all__ = [
    "BACKENDS",
    "Coefficients",
    "Part",
    "Pool",
    "RowCoefficients",
    "Update",
    "backend_for",
    "coefficients",
    "merge",
    "merge_",
    "merge_rows_",
    "pack",
    "packed_linear",
    "soup_linear_",
    "soup_linear_factor_",
    "wide_linear",
    "wide_weight",
]

"""Fused low-rank soups: one formula for load time and request time.

    y_b = x_b W^T + ((x_b A_cat^T) * c_b) B_cat^T

`A_cat` [R, in] and `B_cat` [out, R] stack the factors of K adapters, R is the sum of their ranks, and `c_b` [R] holds one
coefficient per rank column: the weight of the column's adapter for the person of row b, times the adapter's scaling.
"""

from soupmix_kernels.reference import (
    merge,
    soup_linear,
    soup_linear_factor,
)

__all__ = ["merge", "soup_linear", "soup_linear_factor"]

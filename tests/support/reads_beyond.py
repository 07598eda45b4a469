"""A processor that reads beyond rows, as tile units do: products come out NaN where what lies behind a row is not finite.

Worse than the real one: it does so for any number of rows, and for every inner dimension that is no multiple of 32.
"""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from soupmix_kernels import rows_apart

_AT = {
    "mm": 0,
    "addmm": 1,
    "addmm_": 1,
    "linear": 0,
    "matmul": 0,
    "_linear_pointwise": 0,
}  # where the rows stand among the arguments


class ReadsBeyond(TorchDispatchMode):
    """While it lasts, half precision behaves as on tile units; what was found out about the processor before is forgotten."""

    def __enter__(self) -> Any:
        rows_apart._step.cache_clear()
        return super().__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        rows_apart._step.cache_clear()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name not in _AT:
            return func(*args, **(kwargs or {}))
        x = args[_AT[name]]
        spoilt = _spoilt(x)
        made = func(*args, **(kwargs or {}))
        made.view(-1, made.shape[-1])[spoilt] = torch.nan
        return made


class TileUnits(ReadsBeyond):
    """The same, on a processor that says so, to every thread."""

    def __enter__(self) -> Any:
        self._said = torch.cpu._is_amx_tile_supported, torch.cpu._is_amx_fp16_supported
        torch.cpu._is_amx_tile_supported = torch.cpu._is_amx_fp16_supported = lambda: True
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        torch.cpu._is_amx_tile_supported, torch.cpu._is_amx_fp16_supported = self._said
        super().__exit__(*error)


def _spoilt(x: Tensor) -> Tensor:
    """Rows [rows] behind which, up to the next multiple of 32, something is not finite."""
    rows = x.view(-1, x.shape[-1])
    count, inner = rows.shape
    if not count or x.element_size() != 2 or rows.stride(1) != 1:
        return torch.zeros(count, dtype=torch.bool)
    flat = x.as_strided((x.untyped_storage().nbytes() // 2,), (1,), 0)
    ends = torch.arange(count).mul(rows.stride(0)).add(x.storage_offset() + inner)
    read = ends[:, None] + torch.arange(-inner % rows_apart.WIDE)
    return ((read < len(flat)) & ~flat[read.clamp(max=len(flat) - 1)].isfinite()).any(1)

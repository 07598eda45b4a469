"""Who sits in which row: people's coefficients and the rows of one step, made once for all layers that share columns."""

from dataclasses import InitVar, dataclass, field

import torch
from torch import Tensor

from soupmix_kernels import cpu
from soupmix_kernels.backends import backend_for
from soupmix_kernels.pool import Coefficients

__all__ = ["Seats"]


@dataclass(frozen=True, slots=True, eq=False)
class Seats:
    """Coefficients [people, columns] and the person of every row [rows] int32.

    Rows outside of 0..people-1, -1 by convention, are nobody's: the bare base, bit for bit. On the CPU the coefficients of
    the rows are gathered here, once: a later change of the tensors is not seen. On a GPU nothing is read before the kernels.

    Raises:
        TypeError: `coefficients` is no `Coefficients`, or the rows are not int32.
        ValueError: the rows are not one-dimensional.
    """

    coefficients: InitVar[Coefficients]
    rows: Tensor
    values: Tensor = field(init=False)
    own: cpu.Own | None = field(init=False)

    def __post_init__(self, coefficients: Coefficients) -> None:
        if not isinstance(coefficients, Coefficients):
            raise TypeError(
                f"seats take Coefficients, not {type(coefficients).__name__}: weights become coefficients by clamping"
            )
        if self.rows.dtype != torch.int32:
            raise TypeError(f"seats need rows in int32; got rows {self.rows.dtype}")
        if self.rows.dim() != 1:
            raise ValueError(f"seats need the person of every row [rows]; got rows {list(self.rows.shape)}")
        values = coefficients.values
        object.__setattr__(self, "values", values)
        here = values.device.type == "cpu" and not torch.compiler.is_compiling()
        gathered = cpu.own(values, self.rows) if here and backend_for(values.device) == "torch" else None
        object.__setattr__(self, "own", gathered)

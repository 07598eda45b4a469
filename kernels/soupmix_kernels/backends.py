"""Which implementation runs: Triton on CUDA and HIP devices, torch on the CPU, or the one that SOUPMIX_KERNELS names."""

import functools
import importlib.util
import os
import warnings

import torch

__all__ = ["BACKENDS", "backend_for"]

BACKENDS = ("auto", "reference", "torch", "triton")


def backend_for(device: torch.device) -> str:
    """ "reference", "torch" or "triton" for tensors on this device.

    SOUPMIX_KERNELS=auto (the default) takes Triton on CUDA and HIP devices where it is installed, torch elsewhere.
    `triton` on the CPU needs TRITON_INTERPRET=1, set before Python starts.

    Raises:
        ValueError: SOUPMIX_KERNELS names no backend.
        RuntimeError: `triton` was asked for and cannot run here.
    """
    asked = os.environ.get("SOUPMIX_KERNELS", "auto") or "auto"
    if asked not in BACKENDS:
        raise ValueError(f"SOUPMIX_KERNELS={asked} names no backend; choose one of {', '.join(BACKENDS)}")
    if asked == "auto":
        return "triton" if device.type == "cuda" and _installed() else "torch"
    if asked == "triton":
        _check_triton(device)
    return asked


@functools.cache
def _installed() -> bool:
    found = importlib.util.find_spec("triton") is not None
    if not found:
        warnings.warn(
            "triton is not installed, so the torch implementation runs on this GPU; pip install triton", stacklevel=4
        )
    return found


def _check_triton(device: torch.device) -> None:
    if importlib.util.find_spec("triton") is None:
        raise RuntimeError("SOUPMIX_KERNELS=triton was asked for, but triton is not installed; pip install triton")
    if device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        raise RuntimeError(
            f"SOUPMIX_KERNELS=triton was asked for with tensors on {device.type}, where Triton only runs in its "
            "interpreter; set TRITON_INTERPRET=1 before Python starts, or SOUPMIX_KERNELS=torch"
        )

"""A pickled adapter at work, in a process that can only compute; run as `python -m soupmix.store.unpickling PIPE`.

It reads the pickle from stdin and writes to stdout a safetensors file, or with exit code 1 why there is none; with 3, that no
process can be shut in here. torch is told to load weights only; should a pickle get round that, it finds itself where nothing can
be opened, written, started, removed or signalled, and where time and memory are little. PIPE is a descriptor at whose end nobody
waits any longer.
"""

import io
import os
import resource
import signal
import sys
from typing import Any

from soupmix.children import end_with
from soupmix.store.syscalls import compute_only

__all__ = ["CPU_SECONDS", "OPEN", "REFUSED", "room"]

CPU_SECONDS = 120
REFUSED, OPEN = 1, 3
"""Exit codes: the pickle is none of an adapter; the process could not be shut in."""


def room(size: int) -> int:
    """Bytes of address space for a pickle of that size: torch itself, the pickle, its tensors, and the file made of them."""
    return (6 << 30) + 4 * size


def _main() -> int:
    import torch

    torch.set_num_threads(1)
    rehearsal = io.BytesIO()
    torch.save({"rehearsal": torch.zeros(1)}, rehearsal)
    _safe(rehearsal.getvalue())  # so that all that is imported late is imported before the door is shut
    pickled = sys.stdin.buffer.read()
    if not _shut(len(pickled)):
        return OPEN
    try:
        content, code = _safe(pickled), 0
    except Exception as error:  # noqa: BLE001  # a pickle can make torch raise anything
        content, code = f"{type(error).__name__}: {error}"[:300].splitlines()[0].encode(), REFUSED
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()
    return code


def _safe(pickled: bytes) -> bytes:
    import torch
    from safetensors.torch import save

    found: Any = torch.load(io.BytesIO(pickled), map_location="cpu", weights_only=True)
    if not isinstance(found, dict) or not all(
        isinstance(key, str) and isinstance(each, torch.Tensor) for key, each in found.items()
    ):
        raise TypeError("it holds something else than tensors by name")
    tensors = {key: value.detach().clone(memory_format=torch.contiguous_format) for key, value in found.items()}
    return bytes(save(tensors, metadata={"format": "pt"}))


def _shut(size: int) -> bool:
    """Whether this process can only compute from now on."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    limits = {
        resource.RLIMIT_AS: room(size),
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_CPU: CPU_SECONDS,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_NOFILE: 0,  # what is open stays open; nothing more can be opened, so no program started either
    }
    for kind, most in limits.items():
        resource.setrlimit(kind, (most, most))
    return compute_only()


if __name__ == "__main__":
    end_with(int(sys.argv[1]))
    os._exit(_main())

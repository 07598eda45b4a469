"""A pickled adapter at work, in a process that can open no file and no socket; run as `python -m soupmix.store.unpickling PIPE`.

It reads the pickle from stdin and writes to stdout a safetensors file, or with exit code 1 why there is none. torch is told to
load weights only; should a pickle get round that, it finds itself where no file, socket or pipe can be opened, no file written,
no program started, and where time and memory are little. PIPE is a descriptor at whose end nobody waits any longer.
"""

import io
import resource
import signal
import sys
from typing import Any

from soupmix.children import end_with

__all__ = ["CPU_SECONDS", "room"]

CPU_SECONDS = 120


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
    _shut(len(pickled))
    try:
        content, code = _safe(pickled), 0
    except Exception as error:  # noqa: BLE001  # a pickle can make torch raise anything
        content, code = f"{type(error).__name__}: {error}"[:300].splitlines()[0].encode(), 1
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()
    return code


def _safe(pickled: bytes) -> bytes:
    import torch
    from safetensors.torch import save

    found: Any = torch.load(io.BytesIO(pickled), map_location="cpu", weights_only=True)
    if not isinstance(found, dict) or not all(isinstance(each, torch.Tensor) for each in found.values()):
        raise TypeError("it holds something else than tensors by name")
    tensors = {str(key): value.detach().clone(memory_format=torch.contiguous_format) for key, value in found.items()}
    return bytes(save(tensors, metadata={"format": "pt"}))


def _shut(size: int) -> None:
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


if __name__ == "__main__":
    end_with(int(sys.argv[1]))
    sys.exit(_main())

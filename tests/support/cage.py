"""Let hostile work run in a forked child with little memory and time, and hear how it ended."""

import json
import os
import resource
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["MEMORY", "caged"]

MEMORY = 256 << 20
"""Bytes of address space beyond what the process had before."""
_SECONDS = 30


def caged(work: Callable[[], object]) -> dict[str, Any]:
    """Run `work` in a child; {"error", "reason", "message", "seconds", "grown"}, or {"crash"} if it died."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        said = _confined(work)
        with os.fdopen(write, "wb") as pipe:
            pipe.write(json.dumps(said).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        heard = pipe.read()
    _, status = os.waitpid(child, 0)
    return dict(json.loads(heard)) if heard and status == 0 else {"crash": f"wait status {status}"}


def _confined(work: Callable[[], object]) -> dict[str, Any]:
    page = resource.getpagesize()
    size, resident = (int(word) * page for word in Path("/proc/self/statm").read_text().split()[:2])
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))
    started = time.process_time()
    said: dict[str, Any]
    try:
        work()
        said = {"error": None, "reason": "", "message": ""}
    except BaseException as error:  # noqa: BLE001  # whatever it is, it is what the parent wants to hear of
        said = {"error": type(error).__name__, "reason": getattr(error, "reason", None), "message": str(error)}
        said["trace"] = traceback.format_exc()[-2000:]
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - resident
    return said | {"seconds": time.process_time() - started, "grown": grown}

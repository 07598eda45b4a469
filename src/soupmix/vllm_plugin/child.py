"""`python -m soupmix.vllm_plugin.child HANDLE ARGUMENT...`: vLLM's server as a process that ends with the one that started it.

All of its processes are one group, and the group ends when the pipe that HANDLE reads is closed at its other end. A process
of its own waits for that, in no group and below no parent that could be ended first: Ray kills the children of a worker that is
gone, and those alone.
"""

import os
import runpy
import signal
import sys
from contextlib import suppress

__all__ = ["main"]

SERVER = "vllm.entrypoints.openai.api_server"


def main() -> None:
    """Run the server; does not return."""
    handle, sys.argv[1:] = int(sys.argv[1]), sys.argv[2:]
    _watch(handle, os.getpgrp())
    os.close(handle)
    runpy.run_module(SERVER, run_name="__main__", alter_sys=True)


def _watch(handle: int, group: int) -> None:
    """Leave a process that kills the group once nobody holds the other end of the pipe; this one has no thread yet."""
    between = os.fork()
    if between:
        os.waitpid(between, 0)
        return
    os.setsid()
    if os.fork() == 0:
        os.read(handle, 1)
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
    os._exit(0)


if __name__ == "__main__":
    main()

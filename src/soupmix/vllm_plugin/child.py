"""`python -m soupmix.vllm_plugin.child HANDLE ARGUMENT...`: vLLM's server as a process that ends with the one that started it.

All of its processes are one group, and the group ends when the pipe that HANDLE reads is closed at its other end.
"""

import os
import runpy
import signal
import sys
import threading

__all__ = ["main"]

SERVER = "vllm.entrypoints.openai.api_server"


def main() -> None:
    """Run the server; does not return."""
    handle, sys.argv[1:] = int(sys.argv[1]), sys.argv[2:]
    threading.Thread(target=_wait, args=(handle,), name="end with the parent", daemon=True).start()
    runpy.run_module(SERVER, run_name="__main__", alter_sys=True)


def _wait(handle: int) -> None:
    os.read(handle, 1)
    os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    main()

"""Processes that work for this one and never outlive it: not when it is done, nor when it fails, nor when it is killed.

Each holds the reading end of a pipe whose writing end only this process holds, and which nobody writes to. The kernel
closes that end however this process ends, so a thread that waits on it hears of it within moments.
"""

import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

__all__ = ["end_with", "workers"]


@contextmanager
def workers(jobs: int, begin: Callable[[], None]) -> Iterator[ProcessPoolExecutor]:
    """A pool of fresh processes that is waited for at the end, or ended at once if the body raises anything.

    Args:
        begin: called in each process before its first work; a function of a module.
    """
    context = multiprocessing.get_context("spawn")
    watched, held = context.Pipe(duplex=False)
    # What `begin` needs may take seconds to import, so it is unpacked only when the watch is on.
    arguments = (watched, pickle.dumps(begin))
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin, initargs=arguments)
    try:
        yield pool
    except BaseException:
        held.close()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        held.close()
        watched.close()


def end_with(handle: int) -> None:
    """End this process, whatever it is at, when the pipe that `handle` reads is closed at its other end."""
    threading.Thread(target=_wait, args=(handle,), name="end with the parent", daemon=True).start()


def _wait(handle: int) -> None:
    os.read(handle, 1)
    os._exit(1)


def _begin(watched: "multiprocessing.connection.Connection", begin: bytes) -> None:
    end_with(os.dup(watched.fileno()))
    # A terminal sends Ctrl-C to all processes; what it means is for the first of them to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pickle.loads(begin)()

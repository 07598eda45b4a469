"""Worker processes of one thread each: the result does not depend on how many there are, and two train faster than one
process with two threads. What a worker loads it keeps."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from functools import lru_cache
from pathlib import Path
from typing import Any

from soupmix import children
from soupmix.base import Base
from soupmix.engine import Engine
from soupmix.errors import SoupmixError, TrainingError
from soupmix.store import Store

__all__ = ["Progress", "as_finished", "loaded_engine", "workers"]

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total) whenever a piece of work is finished."""


def workers(jobs: int) -> AbstractContextManager[ProcessPoolExecutor]:
    """A pool of fresh one-thread processes, see `soupmix.children`."""
    return children.workers(jobs, _one_thread)


def as_finished(
    pool: ProcessPoolExecutor,
    work: Callable[..., Any],
    calls: Sequence[tuple[Any, ...]],
    *,
    error: type[SoupmixError] = TrainingError,
) -> Iterator[tuple[int, Any]]:
    """Results of `work(*call)` as (number of the call, result), as they come; a failure cancels what has not begun.

    Raises:
        TrainingError (or `error`): a process was ended from outside (reason "worker-lost").
    """
    waiting = {pool.submit(work, *call): number for number, call in enumerate(calls)}
    try:
        for future in as_completed(waiting):
            yield waiting[future], future.result()
    except BrokenProcessPool as lost:
        raise error(
            "a worker process was ended from outside, perhaps for want of memory: run again with fewer --jobs; what is "
            "finished is kept",
            reason="worker-lost",
        ) from lost
    finally:
        for future in waiting:
            future.cancel()


@lru_cache(maxsize=1)
def loaded_engine(base: Base, store: Path | None) -> Engine:
    """The engine of this process over a base and the adapters of a store folder, loaded once; by compiled steps, if it can."""
    return Engine.load(base, Store(store) if store else None, compiled=True)


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore", FutureWarning)  # trl 1.x passes options that transformers 5.23 has renamed

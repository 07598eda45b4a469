"""Worker processes of one thread each: the result does not depend on how many there are, and two train faster than one
process with two threads. What a worker loads it keeps."""

import multiprocessing
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import lru_cache
from pathlib import Path
from typing import Any

from soupmix.base import Base

__all__ = ["each", "loaded_engine", "workers"]


def workers(jobs: int) -> ProcessPoolExecutor:
    """A pool of fresh one-thread processes."""
    return ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn"), initializer=_one_thread)


def each(
    pool: ProcessPoolExecutor, work: Callable[..., Any], calls: Sequence[tuple[Any, ...]]
) -> Iterator[tuple[int, Any]]:
    """Results of `work(*call)` as (number of the call, result), as they come; a failure cancels what has not begun."""
    waiting = {pool.submit(work, *call): number for number, call in enumerate(calls)}
    try:
        for future in as_completed(waiting):
            yield waiting[future], future.result()
    finally:
        for future in waiting:
            future.cancel()


@lru_cache(maxsize=1)
def loaded_engine(base: Base, store: Path | None) -> Any:
    """The engine of this process."""
    from soupmix.engine import Engine
    from soupmix.store import Store

    return Engine.load(base, Store(store) if store else None)


def _one_thread() -> None:
    os.environ["GOMP_SPINCOUNT"] = "0"
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore", FutureWarning)  # trl 1.x passes options that transformers 5.23 has renamed

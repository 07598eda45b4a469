"""Progress of long work on stderr: bars for people, a line per piece of work for logs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

__all__ = ["stages"]


@contextmanager
def stages() -> Iterator[Callable[[str, int, int], None]]:
    """Give a function (stage, done, total) that shows how far each stage is."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda stage, done, total: console.print(f"{stage} {done}/{total}")
        return
    columns = (TextColumn("{task.description:<10}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as bars:
        known: dict[str, TaskID] = {}

        def advance(stage: str, done: int, total: int) -> None:
            if stage not in known:
                known[stage] = bars.add_task(stage, total=total)
            bars.update(known[stage], completed=done)

        yield advance

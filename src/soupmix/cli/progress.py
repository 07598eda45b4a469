"""Progress of long work on stderr: bars for people, a line per piece of work for logs."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

__all__ = ["paced", "rates", "stages", "volume"]

_LINE_EVERY = 30.0  # seconds, where there is no terminal


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


@contextmanager
def rates(total: int, done: int) -> Iterator[Callable[[int, int], None]]:
    """Give a function (done, tokens since the start) that shows how far answers are, how fast, and how long it will take.

    It shows nothing where there is no terminal.
    """
    console, begin, before = Console(stderr=True), time.monotonic(), done
    if not console.is_terminal:
        yield lambda done, tokens: None
        return
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, TextColumn("ETA"), TimeRemainingColumn(), console=console) as bars:
        task = bars.add_task("", total=total, completed=done)

        def advance(done: int, tokens: int) -> None:
            seconds = max(time.monotonic() - begin, 1e-3)
            speed = f"{(done - before) / seconds:.3g} answers/s, {tokens / seconds:.3g} tokens/s"
            bars.update(task, completed=done, description=speed)

        yield advance


@contextmanager
def paced(what: str, total: int, done: int) -> Iterator[Callable[[int, int], None]]:
    """As `rates`; where there is no terminal, a line every half minute."""
    if Console(stderr=True).is_terminal:
        with rates(total, done) as advance:
            yield advance
        return
    begin, before, told = time.monotonic(), done, [time.monotonic()]

    def say(done: int, tokens: int) -> None:
        now = time.monotonic()
        if done < total and now - told[0] < _LINE_EVERY:
            return
        told[0] = now
        speed = max(done - before, 1) / max(now - begin, 1e-3)
        left = timedelta(seconds=round((total - done) / speed))
        rate = f"{speed:.3g} {what}/s, {tokens / max(now - begin, 1e-3):.3g} tokens/s"
        click.echo(f"{done} of {total} {what}, {rate}, {left} left", err=True)

    yield say


@contextmanager
def volume() -> Iterator[Callable[[int, int], None]]:
    """Give a function (bytes done, of how many) that shows how far a file is, how fast, and how long it will take.

    Where there is no terminal it says so in a line every half minute, and nothing of what is done in less.
    """
    console = Console(stderr=True)
    if console.is_terminal:
        columns = BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeElapsedColumn(), TextColumn("ETA")
        with Progress(*columns, TimeRemainingColumn(), console=console) as bars:
            task = bars.add_task("", total=None)
            yield lambda done, total: bars.update(task, completed=done, total=total)
        return
    first: list[tuple[float, int]] = []
    told = [time.monotonic()]

    def say(done: int, total: int) -> None:
        now = time.monotonic()
        if not first:
            first.append((now, done))
        begin, before = first[0]
        if now - told[0] < _LINE_EVERY or now == begin:
            return
        told[0] = now
        speed = max(done - before, 1) / (now - begin)
        left = timedelta(seconds=round((total - done) / speed))
        click.echo(f"{done / 1e9:.1f} of {total / 1e9:.1f} GB, {speed / 1e9:.2f} GB/s, {left} left", err=True)

    yield say

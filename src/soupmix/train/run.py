"""The whole of `soupmix train`: sample, choose, fit. Every finished piece of work is a file: a stopped run goes on."""

import json
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from soupmix.errors import OutputError, TrainingError
from soupmix.evaluate.workers import Progress, as_finished, loaded_engine, workers
from soupmix.files import canonical_json, new_folder, write_file
from soupmix.locks import lock
from soupmix.policy import Policy
from soupmix.scratch import sweep
from soupmix.train.examples import Example
from soupmix.train.finished import RECORD, file_digests, is_finished, is_trained
from soupmix.train.fit import fit
from soupmix.train.plan import WORK, TrainingPlan, fit_identity
from soupmix.train.sample import Chunk, read_samples, sample_chunk
from soupmix.train.soups import alone_folder, fit_mixtures, soup_works
from soupmix.train.texts import write_texts

__all__ = ["run", "swept"]

_LOOK_EVERY = 2.0  # seconds


def run(plan: TrainingPlan, *, progress: Progress) -> dict[str, Path]:
    """Train every pole of the plan; return pole -> folder of its adapter.

    What an earlier run with the same settings has finished is taken as it is; what is damaged is made anew.

    Args:
        progress: called with ("sampling", "training" or "mixtures", done, total).

    Raises:
        TrainingError: a pole has too few usable pairs (reason "few-pairs"), or a worker process was ended from outside
            ("worker-lost"); there is a store beside, and no mixtures ("method").
        OutputError: a folder cannot be written, or holds something else than an earlier adapter; another process trains into
            it ("in-use").
    """
    if plan.beside is not None and plan.soup is None:
        raise TrainingError("a store beside has a part in mixtures only: say how they are trained", reason="method")
    with _held(plan):
        return _run(plan, progress)


@contextmanager
def _held(plan: TrainingPlan) -> Iterator[None]:
    """The folder of a run, for this process alone: two would write one another's samples and adapters."""
    for folder in (plan.folder, plan.samples):
        folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(plan.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if not lock(handle, wait=False):
            raise OutputError(
                f"another `soupmix train` is at work in {plan.folder}; wait until it has ended, or give another folder",
                reason="in-use",
            )
        yield
    finally:
        os.close(handle)


def _run(plan: TrainingPlan, progress: Progress) -> dict[str, Path]:
    alone = [pole for pole in plan.poles if pole not in plan.started]
    todo = plan.chunks(alone) if plan.soup is None else plan.mixture_chunks()
    left = [chunk for chunk in todo if read_samples(plan.samples, chunk) is None]
    progress("sampling", len(todo) - len(left), len(todo))
    with swept(plan), workers(plan.jobs) as pool:
        done = len(todo) - len(left)
        for _ in as_finished(pool, _sample, [(chunk, plan.samples) for chunk in left]):
            progress("sampling", done := done + 1, len(todo))
        progress("training", 0, len(alone))
        for count, _ in enumerate(as_finished(pool, _fit, [(plan, pole) for pole in alone]), start=1):
            progress("training", count, len(alone))
        for old in _notes(plan):
            old.unlink()
        with _told(plan, progress):
            list(as_finished(pool, _fit_mixtures, [(plan, *work) for work in enumerate(soup_works(plan))]))
    return {pole: plan.folder / pole for pole in plan.poles}


@contextmanager
def swept(plan: TrainingPlan) -> Iterator[None]:
    """Workers that are ended leave temporaries behind."""
    work = plan.folder / WORK
    try:
        yield
    finally:
        for folder in (plan.folder, plan.samples, *(plan.folder / pole for pole in plan.poles), *work.glob("*")):
            sweep(folder)


def _sample(chunk: Chunk, folder: Path) -> None:
    sample_chunk(loaded_engine(chunk.source.base, None), Policy.open(()).clamp({}), chunk, folder)


def _fit(plan: TrainingPlan, pole: str) -> None:
    examples = plan.examples(pole)
    wanted, target = fit_identity(plan, pole, examples), alone_folder(plan, pole)
    sweep(target.parent, pole)
    if not is_finished(target, wanted):
        _fit_anew(plan, pole, examples, target, wanted)
    write_texts(plan, pole, examples, target)


def _fit_anew(plan: TrainingPlan, pole: str, examples: Sequence[Example], target: Path, wanted: str) -> None:
    loaded_engine.cache_clear()  # what sampled and judged makes room for what is trained
    with new_folder(target, force=True, own=is_trained) as folder:
        given = plan.given.get(pole)
        more = {"left_out": plan.held_back(pole)} if given else {}
        summary = fit(plan.base, examples, plan.recipe, folder, **more)
        facts: dict[str, Any] = {"base": plan.base.digest, "identity": wanted, "pole": pole, **file_digests(folder)}
        if given:
            facts["given"] = {"name": given.name, "sha256": given.sha256}
        write_file(folder / RECORD, canonical_json({**summary, **facts}))


def _fit_mixtures(plan: TrainingPlan, number: int, trained: tuple[str, ...]) -> None:
    note = plan.folder / WORK / "at" / f"{number}.json"
    note.parent.mkdir(parents=True, exist_ok=True)
    loaded_engine.cache_clear()
    fit_mixtures(plan, trained, lambda step, steps: write_file(note, canonical_json([step, steps])))


def _notes(plan: TrainingPlan) -> list[Path]:
    """Which step each worker is at."""
    return sorted((plan.folder / WORK / "at").glob("*.json"))


@contextmanager
def _told(plan: TrainingPlan, progress: Progress) -> Iterator[None]:
    """Tell from time to time how many steps the workers have made: they leave a note of it."""
    over = threading.Event()

    def look() -> None:
        before = (0, 0)
        while not over.wait(_LOOK_EVERY):
            notes = [json.loads(path.read_bytes()) for path in _notes(plan)]
            now = (sum(step for step, _ in notes), sum(steps for _, steps in notes))
            if now != before:
                progress("mixtures", *now)
                before = now

    thread = threading.Thread(target=look, name="steps of workers", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()

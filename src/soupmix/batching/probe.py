"""Which loop serves a model: tried before anybody is served, not looked up in a list of models.

Two short prompts, each for nobody and with two soups, go through the loop over slots as requests would: in parts, beside each
other, then token by token. One of the soups is far too loud, so that it shows if anybody else gets a part of it. The logits of
the others must be those that transformers computes of every row alone and at once, up to the rounding that
`soupmix.engine.likeness` allows. Where they are not, or a layer asks for what slots cannot do, the padded loop serves.
"""

import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from soupmix.backends.protocol import Limits
from soupmix.batching.answer import WeightedJob
from soupmix.batching.schedule import Scheduler
from soupmix.batching.slotted import SlottedLoop
from soupmix.engine import Engine
from soupmix.engine.likeness import allowed
from soupmix.engine.rows import TrialWeights, strangers
from soupmix.engine.together import STEPS, prompts, unlike_whole
from soupmix.errors import BaseModelError, SoupmixError

__all__ = ["ChosenLoop", "LoopName", "choose_loop"]

LoopName = Literal["running", "padded"]
_CHUNK = 16  # prompt tokens a step: a longer prompt comes in parts
_found: "weakref.WeakKeyDictionary[Engine, ChosenLoop]" = weakref.WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class ChosenLoop:
    """A loop.

    Attributes:
        name: "running", over slots, or "padded", in rounds. why: and how long it took to find out.
    """

    name: LoopName
    why: str


def choose_loop(engine: Engine, method: str, asked: LoopName | None = None) -> ChosenLoop:
    """The loop that is asked for, or the best that is right for this engine's model.

    Raises:
        BaseModelError: the running loop is asked for and not right (reason "unsupported-attention"), or no loop is
            ("cannot-generate"; see `soupmix.engine.together`).
    """
    noise = engine.noise
    if asked == "padded":
        return ChosenLoop("padded", "it is asked for")
    found = _found.get(engine)
    if found is None:
        found = _found[engine] = _tried(engine, method, noise)
    if asked == "running" and found.name != asked:
        raise BaseModelError(
            f"the running batch cannot serve this model: {found.why}; leave the choice of the loop to soupmix",
            reason="unsupported-attention",
        )
    return found


def _tried(engine: Engine, method: str, noise: float) -> ChosenLoop:
    kept = f"loop {method}"
    if engine.trials.recall(kept) is not None:
        return ChosenLoop(
            "running", f"tried on this machine before, it computes what transformers computes; {engine.step.why}"
        )
    started = time.perf_counter()
    why = _objection(engine, method, noise)
    if why is None:
        engine.trials.keep(kept, {})
    if why is not None and engine.step.library is not None:
        engine.step.check(why)
        why = _objection(engine, method, noise)
    seconds = time.perf_counter() - started
    if why is None:
        found = f"tried for {seconds:.2g} s, it computes what transformers computes; {engine.step.why}"
        return ChosenLoop("running", found)
    return ChosenLoop("padded", f"the running batch was tried for {seconds:.2g} s, and {why}")


@torch.inference_mode()
def _objection(engine: Engine, method: str, noise: float) -> str | None:
    """Why the loop over slots is not right for this model; None if it is."""
    people = strangers(engine.batch.adapters, engine.model.device)[0 if engine.batch.adapters else 2 :]
    rows = [(ids, weights) for ids in prompts(engine.model, engine.prompts.size)[:2] for weights in people]
    try:
        found = _over_slots(engine, method, rows)
    except SoupmixError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001  # whatever the code of a model makes of masks that are none
        return f"attention over slots fails in it with {type(error).__name__}: {error}"[:300]
    tried = [(*row, logits) for row, logits in zip(rows, found, strict=True)]
    return unlike_whole(engine.model, engine.batch, tried, allowed(noise, engine.model.dtype), method=method)


def _over_slots(engine: Engine, method: str, rows: Sequence[tuple[Tensor, Tensor]]) -> list[Tensor]:
    """Logits of every row [STEPS, vocabulary], from a running batch of its own."""
    limits = Limits(len(rows), max(len(ids) for ids, _ in rows), len(rows), _CHUNK)
    loop, scheduler = SlottedLoop(engine, limits, method, TrialWeights), Scheduler[WeightedJob](limits)
    jobs, ends = list[WeightedJob](), list[tuple[int, ...]]()
    for number, (ids, weights) in enumerate(rows):
        tokens = tuple(ids.tolist())
        job = WeightedJob(person=str(number), merge=str(number), prompt=tokens[: 1 - STEPS], weights=weights)
        jobs.append(job)
        ends.append(tokens[1 - STEPS :])
        scheduler.add(job)
    found: list[list[Tensor]] = [[] for _ in rows]
    while not scheduler.idle:
        plan = scheduler.plan()
        logits = iter(loop.logits(plan))
        scheduler.computed(plan)
        for feed in plan.feeds:
            if feed.complete:
                number = jobs.index(feed.job)
                found[number].append(next(logits))
                if len(found[number]) == STEPS:
                    scheduler.leave(feed.job, keep=False)
                else:
                    feed.job.answer.append(ends[number][len(found[number]) - 1])
    return [torch.stack(each) for each in found]

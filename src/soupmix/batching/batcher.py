"""The running batch as a thread: requests come from any thread, join between steps, and hear of their answers."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Self

from soupmix.backends.protocol import Delta, Limits, Request, State
from soupmix.batching.answer import Answer, Chosen, Writer
from soupmix.batching.padded import PaddedLoop, Rounds
from soupmix.batching.probe import LoopName, choose_loop
from soupmix.batching.runner import Loop, Runner
from soupmix.batching.schedule import Plan, Scheduler
from soupmix.batching.slotted import SlottedLoop
from soupmix.engine import Engine
from soupmix.engine.detokenizer import Continuation
from soupmix.engine.positions import check_fits
from soupmix.engine.sampling import stream
from soupmix.errors import Overloaded, RecipeError, SoupmixError
from soupmix.methods import DEFAULT
from soupmix.modes import FULL

__all__ = ["Batcher", "Submission"]

_log = logging.getLogger(__name__)


class Submission:
    """A request that was accepted; made by `Batcher.submit`."""

    def __init__(self, batcher: "Batcher", answer: Answer) -> None:
        self._batcher, self._answer = batcher, answer

    def __repr__(self) -> str:
        """Such as "<Submission: 12 tokens of prompt, 3 of answer, running>"."""
        held = self._answer
        state = "cancelled" if held.cancelled else "running" if held.slot >= 0 else "waiting or ended"
        return f"<Submission: {len(held.prompt)} tokens of prompt, {len(held.answer)} of answer, {state}>"

    def cancel(self) -> None:
        """End the answer before the next step, from any thread.

        Its last delta has the finish "cancelled", unless the answer ends in the step that is computed now.
        """
        self._batcher._cancel(self._answer)


class Batcher:
    """Continuous batching over an engine, in a thread of its own. A context manager, which closes at the end.

    Args:
        engine: a loaded engine. `Engine.complete` may be called meanwhile: steps and calls take turns.
        limits: how much runs and waits at once; `length` is lowered to the model's positions.
        method: how adapters are merged, one of `soupmix.methods.served`.
        loop: "running", over slots, or "padded", in rounds; None: the running one if a trial finds it right for this model.

    Attributes:
        limits: as they hold.
        loop: how answers are computed, and why so; see `soupmix.batching.probe`.

    Raises:
        BaseModelError: the running loop is asked for and not right for this model (reason "unsupported-attention"), or no
            loop is ("cannot-generate").
        RecipeError: an unknown method, or one that needs adapters of one rank, where ranks differ.
    """

    def __init__(
        self,
        engine: Engine,
        limits: Limits = Limits(),  # noqa: B008  # frozen
        *,
        method: str = DEFAULT,
        loop: LoopName | None = None,
    ) -> None:
        engine.check_method(method)
        limits = replace(limits, length=min(limits.length, engine.positions or limits.length))
        self.limits, self.engine, self.method = limits, engine, method
        self.loop = choose_loop(engine, method, loop)
        running = self.loop.name == "running"
        computes: Loop = SlottedLoop(engine, limits, method) if running else PaddedLoop(engine, method)
        self._runner = Runner(engine, computes)
        self._scheduler: Scheduler[Answer] = Scheduler(limits) if running else Rounds(limits)
        self._shared, self._anonymous = tuple[tuple[int, ...], ...](), count()
        self._changed = threading.Condition()
        self._deadline: float | None = None  # set once nothing new is taken
        self._state = State(loop=self.loop.name, why=self.loop.why)
        self._thread = threading.Thread(target=self._run, name="soupmix-batcher", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        """Such as "<Batcher of 64 rows x 2048 tokens, method M: 3 running, 0 waiting>"."""
        now, limits = self.state(), self.limits
        how = f"method {self.method}: {now.running} running, {now.waiting} waiting" if self.alive else "closed"
        return f"<{type(self).__name__} of {limits.rows} rows x {limits.length} tokens, {how}>"

    @property
    def alive(self) -> bool:
        """Whether the thread runs, so that requests can be answered."""
        return self._thread.is_alive()

    def share(self, prefix: tuple[int, ...]) -> None:
        """Declare a beginning of prompts, as token ids, that is nobody's secret, such as the operator's own system prompt.

        From then on its keys and values are computed once for all persons of one tenant with one merge, and once for all persons
        of one tenant whose prompts the bare base computes (mode "answer").
        """
        with self._changed:
            self._shared = (*self._shared, prefix)

    def submit(self, request: Request, sink: Callable[[Delta], None]) -> Submission:
        """Queue a request, from any thread.

        Args:
            sink: called with every `Delta` from the batcher's thread. It must return at once and must not raise.

        Raises:
            RecipeError: the prompt is empty (reason "empty-prompt"), prompt and answer do not fit ("too-long"), the method is
                another than this batch's ("method"), the mode is none of the engine's ("mode", "mixes-rows"), or the schema
                none that answers can be held to ("schema", "no-json-extra").
            PolicyRefusal, PolicyError, AdapterError, TypeError: the grant is not taken; see `Engine.weights`.
            Overloaded: the queue is full ("queue-full"), or the batcher is closed ("draining").
        """
        answer = self._answer(request, sink)
        with self._changed:
            self._check_room()
            self._scheduler.add(answer)
            self._changed.notify()
        return Submission(self, answer)

    def check_room(self) -> None:
        """Raise `Overloaded` if `submit` would do so now; for callers to whom preparing a request costs something."""
        with self._changed:
            self._check_room()

    def state(self) -> State:
        """Gauges and counters now, from any thread."""
        with self._changed:
            running = self._scheduler.running
            used = sum(job.computed for job in running) / (self.limits.rows * self.limits.length)
            waiting = len(self._scheduler.waiting)
            return replace(self._state, alive=self.alive, running=len(running), waiting=waiting, kv_used=used)

    def close(self, *, drain: float = 0.0) -> None:
        """Accept no more requests, and return when all answers have ended; after `drain` seconds they are cancelled."""
        with self._changed:
            self._deadline = time.monotonic() + drain
            self._changed.notify()
        self._thread.join()

    def _answer(self, request: Request, sink: Callable[[Delta], None]) -> Answer:
        (weights,) = self.engine.weights([request.grant], self.method)
        if not request.prompt:
            raise RecipeError("the prompt is empty; say something", reason="empty-prompt")
        check_fits(len(request.prompt), request.sampling.max_new_tokens, self.limits.length)
        if request.method not in {None, self.method}:
            raise RecipeError(
                f"method '{request.method}' is asked for, and this batch merges by '{self.method}'", reason="method"
            )
        self.engine.check_mode(request.mode)
        bare = self.engine.bare(request.prompt, request.mode)
        most = len(request.prompt) - 1 if request.mode == FULL else bare
        return Answer(
            person=f"request {next(self._anonymous)}" if request.person is None else f"person {request.person}",
            merge=self.engine.identity(request.grant, self.method, request.tenant, request.mode),
            base=self.engine.base_identity(request.tenant),
            bare=bare,
            common=self._common(request.prompt, most),
            prompt=request.prompt,
            request=request,
            weights=weights,
            uniform=stream(request.sampling),
            writer=Writer(Continuation(self.engine.detokenizer, request.prompt), request.stop),
            sink=sink,
            grammar=self.engine.grammars.of(request.schema),
        )

    def _common(self, prompt: tuple[int, ...], most: int) -> int:
        """Length of the longest shared beginning that this prompt has, of those with at most so many tokens."""
        return max((len(each) for each in self._shared if len(each) <= most and prompt[: len(each)] == each), default=0)

    def _check_room(self) -> None:
        if self._deadline is not None or not self.alive:
            raise Overloaded("the server is closing; ask again in a moment", reason="draining", retry_after=5.0)
        if len(self._scheduler.waiting) >= self.limits.waiting:
            raise Overloaded(
                f"{len(self._scheduler.waiting)} requests are waiting already; ask again later",
                reason="queue-full",
                retry_after=self._expected_wait(),
            )

    def _expected_wait(self) -> float:
        """A rough guess, in seconds, of when the queue is empty: 64 steps an answer, at the average time of a step so far."""
        per_step = self._state.seconds / self._state.steps if self._state.steps else 0.1
        rounds = len(self._scheduler.waiting) / self.limits.rows
        return max(1.0, min(60.0, rounds * per_step * 64))

    def _cancel(self, answer: Answer) -> None:
        with self._changed:
            answer.cancelled = True
            self._changed.notify()

    def _run(self) -> None:
        try:
            while (plan := self._next()) is not None:
                self._step(plan)
        finally:  # whatever happened, no client waits for ever
            with self._changed:
                left = [*self._scheduler.running, *self._scheduler.waiting]
            self._fail(left, SoupmixError("the engine has stopped; start it again", reason="stopped"))

    def _next(self) -> Plan[Answer] | None:
        """Wait for something to do, and plan the next step; None once the batcher is closed and all answers have ended."""
        with self._changed:
            while True:
                self._leave_cancelled()
                if self._scheduler.idle and self._deadline is not None:
                    return None
                if not self._scheduler.idle:
                    return self._scheduler.plan()
                self._changed.wait()

    def _leave_cancelled(self) -> None:
        over = self._deadline is not None and time.monotonic() >= self._deadline
        for job in [*self._scheduler.running, *self._scheduler.waiting]:
            if job.cancelled or over:
                self._scheduler.leave(job)
                job.end("cancelled")

    def _step(self, plan: Plan[Answer]) -> None:
        started = time.perf_counter()
        try:
            made = self._runner.step(plan)
        except Exception as error:  # noqa: BLE001  # whatever the code of a model raises
            _log.exception("a step failed")
            self._fail(
                [feed.job for feed in plan.feeds], SoupmixError(f"the step failed: {error}", reason="step-failed")
            )
            return
        with self._changed:
            self._scheduler.computed(plan)
            self._count(plan, made, time.perf_counter() - started)
        for answer, chosen in made:
            self._accept(answer, chosen)

    def _accept(self, answer: Answer, chosen: Chosen | None) -> None:
        if chosen is None:
            problem = "the model's output for this soup is not finite; choose smaller weights"
            self._fail([answer], SoupmixError(problem, reason="not-finite"))
            return
        try:
            delta = answer.accept(chosen)
        except SoupmixError as error:
            self._fail([answer], error)
            return
        if delta.finish:  # it leaves before its client hears that it has ended
            with self._changed:
                self._scheduler.leave(answer)
        if delta.text or delta.tokens or delta.finish:
            answer.sink(delta)

    def _fail(self, jobs: list[Answer], error: SoupmixError) -> None:
        for job in jobs:
            if job.slot >= 0:
                self._runner.forget(job.slot)
            with self._changed:
                self._scheduler.leave(job, keep=False)
            job.end("error", error)

    def _count(self, plan: Plan[Answer], made: list[tuple[Answer, Chosen | None]], seconds: float) -> None:
        before = self._state
        read = [feed.job for feed in plan.feeds if feed.complete and not feed.job.answer]
        self._state = replace(
            before,
            steps=before.steps + 1,
            prompt_tokens=before.prompt_tokens + sum(len(feed.tokens) for feed in plan.feeds if not feed.job.answer),
            generated_tokens=before.generated_tokens + len(made),
            cached_tokens=before.cached_tokens + sum(job.cached for job in read),
            cached_prompts=before.cached_prompts + sum(job.cached > 0 for job in read),
            seconds=before.seconds + seconds,
        )

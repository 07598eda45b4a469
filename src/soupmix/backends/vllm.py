"""A backend that asks vLLM servers with the plug-in of `soupmix.vllm_plugin`: prompts go there as tokens, tokens come back.

All that soupmix is known for stays on this side: the policy, conversations and their markers, stop texts and the text of tokens.
vLLM gets token ids, a sealed row of weights and a cache salt, so its replicas are alike and any router may stand before them.
"""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from itertools import count
from secrets import token_hex
from typing import Any, Self

import httpx
import torch

from soupmix.backends.knocking import look, refusal
from soupmix.backends.protocol import Delta, Limits, Request, State, Token
from soupmix.backends.reading import ReadsHere
from soupmix.base import Base, load_tokenizer
from soupmix.base.loading import empty_model
from soupmix.batching.answer import Answer, Chosen, Writer
from soupmix.dtypes import dtype_or
from soupmix.engine.detokenizer import Continuation, Detokenizer
from soupmix.engine.positions import check_fits, positions
from soupmix.engine.prompts import Prompts, known_tokens
from soupmix.engine.rows import LoadedAdapters
from soupmix.errors import Overloaded, RecipeError, SoupmixError
from soupmix.files import digest_parts
from soupmix.merge.identity import base_identity
from soupmix.methods import DEFAULT
from soupmix.modes import FULL, Mode, check_mode
from soupmix.policy import Policy
from soupmix.policy.grant import check_grant
from soupmix.store.manifest import ManifestEntry
from soupmix.vllm_plugin.row import FIELD, SoupRow
from soupmix.weights import MILLION

__all__ = ["VllmBackend"]

_CONNECT = 10.0  # seconds
_TRIES = 5  # further ones to connect, which takes eight seconds where nobody listens; nothing was sent before
_BETWEEN_LOOKS = 2.0
_MOST_LIKELIEST = 20


class VllmBackend(ReadsHere):
    """A `soupmix.backends.Backend` over a vLLM server, or over several of them behind a router. A context manager.

    Args:
        url: of the server, "http://host:port". key: shared with its plug-in, see `soupmix.vllm_plugin.row.read_key`.
        base: the base model that it serves. adapters: those that it holds. dtype: what it computes in, "fp32", "bf16" or "fp16";
            None: the base's.
        policy: the one policy whose grants are taken; None: those of any policy.
        limits: how much runs and waits at once; `length` is lowered to the server's.

    Raises:
        BaseModelError: the server does not answer (reason "unreachable"), serves no soups ("no-soups"), knows another key
            ("other-key"), or holds other adapters ("other-adapters"); or the base cannot be read.
    """

    _maker = "vLLM"
    methods = (DEFAULT,)
    modes: tuple[Mode, ...] = (FULL,)

    def __init__(
        self,
        url: str,
        key: bytes,
        base: Base,
        adapters: Sequence[ManifestEntry],
        *,
        dtype: str | None = None,
        policy: Policy | None = None,
        limits: Limits = Limits(),  # noqa: B008  # frozen
    ) -> None:
        self._url, self._key, self._base = url.rstrip("/"), key, base
        self._held = tuple((each.name, each.digest) for each in adapters)
        self.adapters = _loaded(self._held, policy)
        model, tokenizer = empty_model(base.folder), load_tokenizer(base.folder, base.chat_template)
        self._dtype = dtype_or(dtype, model.config.dtype)
        self._prompts, self._detokenizer = Prompts(tokenizer, known_tokens(model, tokenizer)), Detokenizer(tokenizer)
        self._ends = self._prompts.ends(_generation(base, model))
        self._model, most = look(self._url, self._key, self._held)
        lengths = (limits.length, most, positions(model.config))
        self.limits = replace(limits, length=min(each for each in lengths if each is not None))
        self.unserved: Mapping[str, RecipeError] = {}
        self._anonymous, self._salt = count(), token_hex(8)
        self._state, self._lock = State(loop="vllm", why=f"answers are made by {self._url}"), threading.Lock()
        self._jobs: dict[_Asked, Future[None]] = {}
        self._running, self._closed = 0, False
        self._loop = asyncio.new_event_loop()
        self._turns = asyncio.Semaphore(self.limits.rows)
        self._thread = threading.Thread(target=self._loop.run_forever, name="soupmix-vllm", daemon=True)
        self._thread.start()
        # the time to the first token is the server's to say; that it is there at all is looked at besides
        timeout = httpx.Timeout(None, connect=_CONNECT)
        many = httpx.Limits(max_connections=None)
        transport = httpx.AsyncHTTPTransport(limits=many, trust_env=False, retries=_TRIES)
        self._client = httpx.AsyncClient(timeout=timeout, transport=transport, trust_env=False)
        self._watch = asyncio.run_coroutine_threadsafe(self._watching(), self._loop)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        """Such as "<VllmBackend at http://127.0.0.1:8000: 3 running, 0 waiting>"."""
        now = self.state()
        return f"<VllmBackend at {self._url}: {now.running} running, {now.waiting} waiting>"

    def check_schema(self) -> None:
        """See `Backend.check_schema`."""
        raise RecipeError(
            "answers of vLLM are not held to JSON schemas yet; ask without `response_format`", reason="schema"
        )

    def share(self, prefix: tuple[int, ...]) -> None:
        """See `Backend.share`. A salt keeps a whole prompt to its person in vLLM, so nothing is shared."""

    def check_room(self) -> None:
        """See `Backend.check_room`."""
        if self._closed:
            raise Overloaded("the server is closing; ask again in a moment", reason="draining", retry_after=5.0)
        with self._lock:
            waiting = len(self._jobs) - self._running
        if waiting >= self.limits.waiting:
            raise Overloaded(
                f"{waiting} requests are waiting already; ask again later", reason="queue-full", retry_after=5.0
            )

    def submit(self, request: Request, sink: Callable[[Delta], None]) -> "_Asked":
        """See `Backend.submit`."""
        check_grant(request.grant, "vLLM")
        weights = self.adapters.weights(request.grant)
        if not request.prompt:
            raise RecipeError("the prompt is empty; say something", reason="empty-prompt")
        check_fits(len(request.prompt), request.sampling.max_new_tokens, self.limits.length)
        if request.method not in {None, *self.methods}:
            raise RecipeError(
                f"method '{request.method}' is asked for, and vLLM merges by '{DEFAULT}'", reason="method"
            )
        check_mode(request.mode, self.modes)
        if request.schema is not None:
            self.check_schema()
        self.check_room()
        asked = _Asked(self, self._answer(request, sink, weights), self._body(request))
        with self._lock:
            self._jobs[asked] = asyncio.run_coroutine_threadsafe(self._ask(asked), self._loop)
        return asked

    def state(self) -> State:
        """See `Backend.state`."""
        with self._lock:
            running, waiting = self._running, len(self._jobs) - self._running
            alive = self._state.alive and not self._closed
            return replace(self._state, running=running, waiting=waiting, alive=alive)

    def close(self, *, drain: float = 0.0) -> None:
        """See `Backend.close`."""
        if self._closed:
            return
        self._closed = True
        until = time.monotonic() + drain
        for job in self._open_jobs():
            _wait(job, max(0.0, until - time.monotonic()))
        for asked in list(self._jobs):
            asked.cancel()
        for job in self._open_jobs():
            _wait(job, _CONNECT)
        self._watch.cancel()
        asyncio.run_coroutine_threadsafe(self._client.aclose(), self._loop).result(_CONNECT)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _open_jobs(self) -> list[Future[None]]:
        with self._lock:
            return list(self._jobs.values())

    def _answer(self, request: Request, sink: Callable[[Delta], None], weights: Sequence[float]) -> Answer:
        none = torch.empty(0)  # the random numbers are vLLM's
        return Answer(
            person=f"request {next(self._anonymous)} {self._salt}"
            if request.person is None
            else f"person {request.person}",
            merge=self.identity(request.grant, DEFAULT, request.tenant, request.mode),
            base=base_identity(base_digest=self._base.digest, dtype=self._dtype, tenant_salt=request.tenant),
            prompt=request.prompt,
            request=request,
            weights=torch.tensor(weights),
            uniform=none,
            writer=Writer(Continuation(self._detokenizer, request.prompt), request.stop),
            sink=sink,
        )

    def _body(self, request: Request) -> dict[str, Any]:
        """What is posted to `/v1/completions`, but for the row and the salt."""
        how = request.sampling
        return {
            "model": self._model,
            "prompt": list(request.prompt),
            "stream": True,
            "stream_options": {"include_usage": True},
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,
            "max_tokens": how.max_new_tokens,
            "temperature": how.temperature,
            "top_k": how.top_k,
            "top_p": how.top_p,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "frequency_penalty": how.frequency_penalty,
            "presence_penalty": how.presence_penalty,
            "seed": how.seed,
            "logprobs": None if request.logprobs is None else min(request.logprobs, _MOST_LIKELIEST),
            "ignore_eos": True,  # what ends an answer is known here, and told by number
            "stop_token_ids": sorted(self._ends),
        }

    async def _ask(self, asked: "_Asked") -> None:
        answer = asked.answer
        try:
            async with self._turns:
                with self._lock:
                    self._running += 1
                try:
                    await self._stream(answer, self._sealed(answer, asked.body))
                finally:
                    with self._lock:
                        self._running -= 1
            end: tuple[str, SoupmixError | None] | None = None
        except asyncio.CancelledError:
            end = "cancelled", None
        except SoupmixError as error:
            end = "error", error
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            end = "error", self._unreachable(error)
        except Exception as error:  # noqa: BLE001  # whatever a server sends, who asked is told that it ends
            end = "error", SoupmixError(f"the vLLM server at {self._url} failed: {error!r}", reason="step-failed")
        with self._lock:
            self._jobs.pop(asked, None)
        if end is not None:
            answer.end(*end)

    def _unreachable(self, error: httpx.TransportError) -> Overloaded:
        return Overloaded(
            f"the vLLM server at {self._url} took no connection in {_TRIES + 1} tries of {_CONNECT:g} seconds at most "
            f"({type(error).__name__}), so it is gone or far too busy; ask again in a moment",
            reason="unreachable",
            retry_after=5.0,
        )

    def _sealed(self, answer: Answer, body: dict[str, Any]) -> dict[str, Any]:
        salt = digest_parts("soupmix.salt.v1", {"merge": answer.merge, "person": answer.person})
        if not any(answer.request.grant.granted.values()):
            return body | {"cache_salt": salt}
        row = SoupRow.of(answer.request.grant, self._held, salt).seal(self._key, answer.prompt)
        return body | {"cache_salt": salt, "vllm_xargs": {FIELD: row}}

    async def _stream(self, answer: Answer, body: dict[str, Any]) -> None:
        """Tell the sink every token as it comes; returns once the last delta was told."""
        last: Delta | None = None
        async with self._client.stream("POST", f"{self._url}/v1/completions", json=body) as response:
            if response.status_code != 200:
                raise refusal(self._url, response.status_code, await response.aread())
            async for line in response.aiter_lines():
                if not line.startswith("data: ") or line == "data: [DONE]":
                    continue
                part = json.loads(line.removeprefix("data: "))
                if "error" in part:
                    raise SoupmixError(f"the vLLM server failed: {part['error'].get('message')}", reason="step-failed")
                for choice in part["choices"]:
                    last = self._accept(answer, choice) or last
                    if last is not None and answer.writer.stopped:
                        break
                if last is not None and answer.writer.stopped:
                    break
        if last is None:
            raise SoupmixError("the vLLM server ended an answer before it was over", reason="step-failed")
        answer.sink(last)

    def _accept(self, answer: Answer, choice: Mapping[str, Any]) -> Delta | None:
        """Tell the tokens of one part; the last delta is kept until the connection is closed, and returned."""
        for number, token in enumerate(choice.get("token_ids") or ()):
            told = self._told(choice.get("logprobs"), number, token, answer.request.logprobs)
            delta = answer.accept(Chosen(token, token in self._ends, told))
            with self._lock:
                made = self._state.generated_tokens + 1
                self._state = replace(self._state, generated_tokens=made, steps=self._state.steps + 1)
            if delta.finish:
                return delta
            if delta.text or delta.tokens:
                answer.sink(delta)
        return None

    def _told(self, logprobs: Mapping[str, Any] | None, number: int, token: int, likeliest: int | None) -> Token | None:
        if likeliest is None or logprobs is None:
            return None
        top = logprobs["top_logprobs"][number] if likeliest and logprobs.get("top_logprobs") else {}
        ranked = sorted(((value, int(name.rpartition(":")[2])) for name, value in (top or {}).items()), reverse=True)
        beside = tuple((each, *self._name(each), value) for value, each in ranked[:likeliest])
        return Token(token, *self._name(token), float(logprobs["token_logprobs"][number]), beside)

    def _name(self, token: int) -> tuple[str, bytes]:
        return self._detokenizer.name(token), self._detokenizer.data(token)

    async def _watching(self) -> None:
        """Look now and then whether the server is there."""
        while True:
            try:
                alive = (await self._client.get(f"{self._url}/health", timeout=_CONNECT)).status_code == 200
            except httpx.HTTPError:
                alive = False
            with self._lock:
                self._state = replace(self._state, alive=alive)
            await asyncio.sleep(_BETWEEN_LOOKS)


class _Asked:
    """A request that was accepted; see `soupmix.backends.Ticket`."""

    def __init__(self, backend: VllmBackend, answer: Answer, body: dict[str, Any]) -> None:
        self._backend, self.answer, self.body = backend, answer, body

    def cancel(self) -> None:
        """See `Ticket.cancel`."""
        with self._backend._lock:
            job = self._backend._jobs.get(self)
        if job is not None:
            job.cancel()


def _loaded(held: Sequence[tuple[str, str]], policy: Policy | None) -> LoadedAdapters:
    names, digests = tuple(name for name, _ in held), tuple(digest for _, digest in held)
    return LoadedAdapters(names, digests, (MILLION,) * len(held), policy.digest if policy else None)


def _generation(base: Base, model: Any) -> Any:
    """The generation config of a base, which knows of tokens that end answers."""
    from transformers import GenerationConfig

    if not (base.folder / "generation_config.json").exists():
        return model.generation_config
    return GenerationConfig.from_pretrained(base.folder, local_files_only=True)


def _wait(job: "Future[None]", seconds: float) -> None:
    try:
        job.result(seconds)
    except (TimeoutError, asyncio.CancelledError):
        return

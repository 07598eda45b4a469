"""A backend over a Ray cluster: each worker is an actor with an engine of its own, embedded or vLLM, on whatever node has room.

The one that asks stays in charge: it reads lines, asks the policy, keeps the log and writes results in order. A worker gets token
ids and a sealed row of weights (`soupmix.vllm_plugin.row`), asks its own copy of the policy once more, and gives the answer back
whole. Documents, signed sets and adapters go to the workers as bytes, and are held there to digests and signatures; the base is
found there by its name, and held to its digest. A worker that dies is started anew, and its answers are made again: greedy ones,
and those of a seed, alike.
"""

import json
import queue
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from secrets import token_bytes
from typing import TYPE_CHECKING, Any, Literal, Self

from soupmix.backends.local import LocalBackend
from soupmix.backends.protocol import Backend, Delta, Limits, Request, Sampling, State
from soupmix.backends.reading import ReadsHere
from soupmix.backends.vllm_server import ServedPolicy
from soupmix.base import Base, load_tokenizer, resolve
from soupmix.base.loading import empty_model
from soupmix.dtypes import dtype_or
from soupmix.engine.positions import check_fits, positions
from soupmix.engine.prompts import Prompts, known_tokens
from soupmix.engine.rows import LoadedAdapters
from soupmix.errors import BaseModelError, Overloaded, RecipeError, SoupmixError
from soupmix.methods import DEFAULT
from soupmix.modes import FULL, Mode, check_mode
from soupmix.policy import Policy
from soupmix.policy.grant import check_grant
from soupmix.store import Store
from soupmix.store.manifest import MANIFEST
from soupmix.unreported import unreported
from soupmix.vllm_plugin.checking import Checker
from soupmix.vllm_plugin.row import LEAST_KEY, SoupRow
from soupmix.vllm_plugin.setup import Setup, read_setup
from soupmix.weights import MILLION

if TYPE_CHECKING:
    from soupmix.trust import SignedSource

__all__ = ["Inside", "RayBackend", "Shipment", "worker_answers"]

_SALT = "ray"  # an answer of a batch takes over nobody's prefix


@dataclass(frozen=True, slots=True)
class Inside:
    """Who answers in a worker.

    Attributes:
        kind: "local", the embedded engine; or "vllm", a server that the worker starts, by the Python that it runs under.
        arguments: further ones for vLLM.
    """

    kind: Literal["local", "vllm"] = "local"
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Shipment:
    """What a worker needs that is not on its node: bytes by path, under one folder.

    Attributes:
        files: path -> content of the setup, the key, the documents, the signed sets and the store.
        base, base_digest: name by which a node finds the base, and what must be there.
        dtype: "fp32", "bf16" or "fp16"; None: the base's. rows, length: of a worker's running batch. inside: who answers there.
    """

    files: Mapping[str, bytes]
    base: str
    base_digest: str
    dtype: str | None
    rows: int
    length: int
    inside: Inside = Inside()

    @classmethod
    def pack(
        cls,
        base: Base,
        store: Store,
        documents: Sequence[Path],
        key: bytes,
        *,
        dtype: str | None,
        limits: Limits,
        trust: "Mapping[str, SignedSource] | None" = None,
        inside: Inside = Inside(),
    ) -> Self:
        """What workers of this base, these adapters, these documents and signed sets need.

        Sets go as they lie, and every worker checks their signatures, expiry and floor from the same root. One that is
        published between the asker's reading and this gives workers another policy, and they refuse the asker's rows.
        """
        files = {"key": key, f"store/{MANIFEST}": (store.folder / MANIFEST).read_bytes()}
        for entry in store:
            blob = store.path(entry.name)
            files |= {f"store/blobs/{blob.name}/{each.name}": each.read_bytes() for each in blob.iterdir()}
        files |= {f"policy/{number:03d}.yaml": each.read_bytes() for number, each in enumerate(documents)}
        said: dict[str, Any] = {"key": "key", "store": "store", "trust": {}}
        said["policy"] = sorted(each for each in files if each.startswith("policy/"))
        for tier, source in (trust or {}).items():
            files |= {f"trust/{tier}/{name}": data for name, data in _set_files(source.folder).items()}
            files[f"trust/{tier}.root"] = source.root
            said["trust"][tier] = {"folder": f"trust/{tier}", "root": f"trust/{tier}.root", "floor": source.floor}
        files["setup.json"] = json.dumps({**said, "open": not (documents or trust)}).encode()
        return cls(files, base.name, base.digest, dtype, limits.rows, limits.length, inside)

    def unpack(self, folder: Path) -> Path:
        """Write the files, and return that of the setup."""
        for name, data in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return folder / "setup.json"


def _set_files(folder: Path) -> dict[str, bytes]:
    """All files of a signed set that readers look at, by their place in it."""
    from soupmix.trust.layout import METADATA, TARGETS

    found = [each for part in (METADATA, TARGETS) for each in (folder / part).iterdir() if each.is_file()]
    return {f"{each.parent.name}/{each.name}": each.read_bytes() for each in found}


class _Worker:
    """An actor: an engine on a node, with its own copy of the policy. It is opened when it is first asked, so that it can say why
    it cannot be."""

    def __init__(self, shipment: Shipment) -> None:
        self._shipment, self._lock = shipment, threading.Lock()
        self._folder = tempfile.TemporaryDirectory(prefix="soupmix-ray-")
        self._held = ExitStack()  # what is in it ends with the process, also where that is killed
        self._made: tuple[Backend, Checker] | None = None

    def ready(self) -> None:
        """Open the engine. Raises `SoupmixError` if it cannot be."""
        self._opened()

    def answer(self, prompt: tuple[int, ...], row: str, rest: Mapping[str, Any]) -> list[Delta]:
        """All deltas of one answer."""
        return worker_answers(*self._opened(), prompt, row, rest)

    def _opened(self) -> tuple[Backend, Checker]:
        with self._lock:
            if self._made is None:
                checker = Checker(read_setup(self._shipment.unpack(Path(self._folder.name))))
                self._made = self._held.enter_context(_opened(self._shipment, checker.setup)), checker
            return self._made


def _opened(shipment: Shipment, setup: Setup) -> AbstractContextManager[Backend]:
    base = resolve(shipment.base)
    if base.digest != shipment.base_digest:
        raise BaseModelError(
            f"a node of the cluster finds {base.digest} as {shipment.base}, not {shipment.base_digest}; give all nodes the same "
            "base",
            reason="wrong-base",
        )
    limits = Limits(rows=shipment.rows, length=shipment.length, waiting=1 << 16)
    if shipment.inside.kind == "local":
        return LocalBackend.open(base, setup.store, dtype=shipment.dtype, limits=limits)
    from soupmix.backends.vllm_started import started_vllm

    served = ServedPolicy(setup.documents, setup.trust, setup.metric)
    arguments = shipment.inside.arguments
    return started_vllm(base, setup.store, served, dtype=shipment.dtype, limits=limits, arguments=arguments)


def worker_answers(
    backend: Backend, checker: Checker, prompt: tuple[int, ...], row: str, rest: Mapping[str, Any]
) -> list[Delta]:
    """Answer a prompt under a sealed row.

    Args:
        rest: further fields of `Request`, sampling as a mapping.

    Raises:
        PolicyRefusal, RecipeError: as `Checker.check`. SoupmixError: as `Backend.submit`, and what ended the answer.
    """
    said = checker.check(row, prompt, _SALT)
    weights = {name: micro / MILLION for (name, _), micro in zip(checker.adapters, said.weights, strict=True) if micro}
    grant = checker.policy._grant(weights, said.attributes, said.sources)
    more = {**rest, "sampling": Sampling(**rest["sampling"]), "stop": tuple(rest["stop"])}
    heard: queue.Queue[Delta] = queue.Queue()
    backend.submit(Request(prompt, grant, **more), heard.put)
    found = [heard.get()]
    while found[-1].finish is None:
        found.append(heard.get())
    return found


class RayBackend(ReadsHere):
    """A `soupmix.backends.Backend` over workers of a Ray cluster; answers come whole. A context manager.

    Joins the cluster that RAY_ADDRESS names, else starts one on this machine.

    Args:
        base, store: what is served. documents: policy files, outer tier first. trust: signed sets by tier. Neither: no policy.
        policy: made of these documents and sets here; its grants are taken and no others.
        workers: how many actors; each has `limits.rows` / `workers` rows. cpus: processors that Ray reserves for each.
        inside: who answers in each of them.

    Raises:
        SoupmixError: the first worker that is ready, or fails, fails: no such base on its node, another one, no vLLM there.
    """

    _maker = "Ray"
    methods = (DEFAULT,)
    modes: tuple[Mode, ...] = (FULL,)

    def __init__(
        self,
        base: Base,
        store: Store,
        policy: Policy,
        documents: Sequence[Path] = (),
        *,
        trust: "Mapping[str, SignedSource] | None" = None,
        workers: int = 2,
        inside: Inside = Inside(),
        cpus: float = 1.0,
        dtype: str | None = None,
        limits: Limits = Limits(),  # noqa: B008  # frozen
    ) -> None:
        self._key, self._base = token_bytes(LEAST_KEY), base
        self._held = tuple((each.name, each.digest) for each in store)
        names, digests = tuple(name for name, _ in self._held), tuple(digest for _, digest in self._held)
        self.adapters = LoadedAdapters(names, digests, (MILLION,) * len(names), policy.digest)
        model, tokenizer = empty_model(base.folder), load_tokenizer(base.folder, base.chat_template)
        self._prompts = Prompts(tokenizer, known_tokens(model, tokenizer))
        self._dtype = dtype_or(dtype, model.config.dtype)
        self.limits = replace(limits, length=min(limits.length, positions(model.config) or limits.length))
        self.unserved: Mapping[str, RecipeError] = {}
        share = replace(self.limits, rows=max(1, self.limits.rows // workers))
        shipment = Shipment.pack(
            base, store, documents, self._key, dtype=dtype, limits=share, trust=trust, inside=inside
        )
        import ray

        self._is_ours = not ray.is_initialized()
        with unreported():
            ray.init(ignore_reinit_error=True, log_to_driver=False, configure_logging=False)
        kind = ray.remote(num_cpus=cpus, max_restarts=-1, max_task_retries=-1, max_concurrency=2 * share.rows)(_Worker)
        self._shipped = ray.put(shipment)  # held: a worker that is started anew reads it again
        self._workers = [kind.remote(self._shipped) for _ in range(workers)]
        self._loads = [0] * workers
        self._lock, self._state, self._closed = threading.Lock(), State(loop="ray", why=f"{workers} workers"), False
        try:
            self._wait()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _wait(self) -> None:
        """Until one worker is ready; others may wait for a node. What keeps one from it is raised."""
        import ray

        done, _ = ray.wait([each.ready.remote() for each in self._workers], num_returns=1)
        try:
            ray.get(done)
        except ray.exceptions.RayError as error:
            raise _failure(error) from error

    def check_schema(self) -> None:
        """See `Backend.check_schema`."""
        raise RecipeError(
            "answers over Ray are not held to JSON schemas; ask without `response_format`", reason="schema"
        )

    def share(self, prefix: tuple[int, ...]) -> None:
        """See `Backend.share`. An answer is made by whichever worker is free, so nothing is shared."""

    def check_room(self) -> None:
        """See `Backend.check_room`."""
        if self._closed:
            raise Overloaded("the cluster is closing; ask again in a moment", reason="draining", retry_after=5.0)
        with self._lock:
            running = sum(self._loads)
        if running >= self.limits.rows + self.limits.waiting:
            raise Overloaded(f"{running} requests run and wait already", reason="queue-full", retry_after=5.0)

    def submit(self, request: Request, sink: Callable[[Delta], None]) -> "_Ticket":
        """See `Backend.submit`."""
        check_grant(request.grant, "Ray")
        self.adapters.weights(request.grant)
        if not request.prompt:
            raise RecipeError("the prompt is empty; say something", reason="empty-prompt")
        check_fits(len(request.prompt), request.sampling.max_new_tokens, self.limits.length)
        if request.method not in {None, *self.methods}:
            raise RecipeError(f"method '{request.method}' is asked for, and Ray merges by '{DEFAULT}'", reason="method")
        check_mode(request.mode, self.modes)
        if request.schema is not None:
            self.check_schema()
        self.check_room()
        return self._sent(request, sink)

    def _sent(self, request: Request, sink: Callable[[Delta], None]) -> "_Ticket":
        row = SoupRow.of(request.grant, self._held, _SALT).seal(self._key, request.prompt)
        how = request.sampling
        rest: dict[str, Any] = {"stop": request.stop, "logprobs": request.logprobs, "tenant": request.tenant}
        rest["sampling"] = {name: getattr(how, name) for name in how.__dataclass_fields__}
        with self._lock:
            worker = min(range(len(self._loads)), key=self._loads.__getitem__)
            self._loads[worker] += 1
        sent = self._workers[worker].answer.remote(request.prompt, row, rest)
        ticket = _Ticket(sent, len(request.prompt), sink)
        sent.future().add_done_callback(lambda future: self._done(worker, ticket, future))
        return ticket

    def _done(self, worker: int, ticket: "_Ticket", future: Any) -> None:
        with self._lock:
            self._loads[worker] -= 1
        error = future.exception()
        if error is not None:
            ticket.end(error)
            return
        deltas = future.result()
        with self._lock:
            made = self._state.generated_tokens + deltas[-1].completion_tokens
            self._state = replace(self._state, generated_tokens=made)
        ticket.tell(deltas)

    def state(self) -> State:
        """See `Backend.state`."""
        with self._lock:
            load = sum(self._loads)
            running = min(load, self.limits.rows)
            return replace(self._state, alive=not self._closed, running=running, waiting=load - running)

    def close(self, *, drain: float = 0.0) -> None:
        """See `Backend.close`."""
        if self._closed:
            return
        import ray

        self._closed = True
        for worker in self._workers:
            ray.kill(worker)
        if self._is_ours:
            ray.shutdown()


class _Ticket:
    """A request that was accepted; see `soupmix.backends.Ticket`. Its answer comes whole, or ends."""

    def __init__(self, sent: Any, prompt: int, sink: Callable[[Delta], None]) -> None:
        self._sent, self._prompt, self._sink = sent, prompt, sink
        self._lock, self._over = threading.Lock(), False

    def cancel(self) -> None:
        """See `Ticket.cancel`."""
        import ray

        if self._ends():
            ray.cancel(self._sent, force=False)
            self._sink(Delta("", (), "cancelled", self._prompt, 0, 0))

    def tell(self, deltas: Sequence[Delta]) -> None:
        """The answer."""
        if self._ends():
            for each in deltas:
                self._sink(each)

    def end(self, error: BaseException) -> None:
        """It cannot be made."""
        if self._ends():
            self._sink(Delta("", (), "error", self._prompt, 0, 0, _failure(error)))

    def _ends(self) -> bool:
        with self._lock:
            was, self._over = self._over, True
        return not was


def _failure(error: BaseException) -> SoupmixError:
    """What a worker said was wrong, or that it is gone."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, SoupmixError) else SoupmixError(f"a worker failed: {error}", reason="step-failed")

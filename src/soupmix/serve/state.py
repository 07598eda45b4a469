"""What a server is made from, and what it holds while it runs: what is wrong is refused at the start in one sentence."""

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Final

from soupmix.audit import AuditLog, Signer
from soupmix.backends import Backend
from soupmix.errors import RecipeError
from soupmix.methods import DEFAULT
from soupmix.openai.requests import shared_prefix
from soupmix.policy import Metric, Policy
from soupmix.policy.clock import Reading
from soupmix.serve.evidence import EvidenceStore
from soupmix.serve.keys import ApiKeys
from soupmix.serve.learners import Learners, Measurer
from soupmix.serve.metrics import Metrics
from soupmix.serve.policies import InForce, Policies
from soupmix.serve.profiles import Profiles
from soupmix.serve.refusals import Refusals
from soupmix.serve.shares import Bodies, Shares
from soupmix.serve.tables import open_database
from soupmix.store.manifest import ManifestEntry
from soupmix.surface import Surface

if TYPE_CHECKING:
    from soupmix.trust import SignedSource

__all__ = ["OPEN_PATHS", "ServerConfig", "ServerState", "Settings", "open_server"]

OPEN_PATHS: Final = ("/health", "/ready")
"""Answered to everybody, and while the server ends."""

_MOST_PREFIX = 1 << 20  # bytes of a system prompt
_MOST_ASKING = 4


@dataclass(frozen=True, slots=True)
class Settings:
    """Limits of a server, and how it behaves.

    Attributes:
        model: name under which the base model is asked for. method: how adapters are merged, one of `soupmix.methods.served`.
        no_auth: nobody needs a key; only for a server that listens on this machine alone.
        body: most bytes of a request. bodies: of all that are being read, half of them for one tenant.
        answers: most answers of one request (n times prompts).
        share: most answers of one tenant at once, waiting or running; None is no limit.
        adapters: most weights of one request. tokens: of an answer whose length is not said.
        refusals: of one key that are recorded one by one in a minute; beyond, they are counted on record.
        profiles: most of them per tenant. evidence: most pieces of it per profile, half of them from one source.
        deltas: of an answer that a reader may be behind.
        patience: seconds that a client may take to send its request, or to take the next part of an answer.
        drain: seconds that running answers have when the server ends.
        origins: web origins that browsers may call from; none by default.
        values: attribute -> values that requests and keys may have beside those that the policy names, "*" for any; None: all
            attributes may have any.
    """

    model: str
    method: str = DEFAULT
    no_auth: bool = False
    body: int = 1 << 20
    bodies: int = 64 << 20
    answers: int = 8
    share: int | None = None
    adapters: int = 64
    tokens: int = 256
    refusals: int = 60
    profiles: int = 100_000
    evidence: int = 2000
    deltas: int = 256
    patience: float = 30.0
    drain: float = 30.0
    origins: tuple[str, ...] = ()
    values: Mapping[str, tuple[str, ...]] | None = None


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """What a server is made from.

    Attributes:
        backend: opens whoever answers, once everything else is known to be right.
        adapters: those that the backend holds; a store, or its entries; read at every reload. database: a file, or a URL.
        policies: says at every load which documents there are; of the user's tier if there are signed sets.
        trust: signed sets by tier.
        metric: see `Policy.load`.
        audit: folder of the audit log, or None. signer: of its checkpoints, or None.
        shared: files with system prompts that are nobody's secret: each is computed once for a merge, whoever asks.
        surface: what soups of these adapters are expected to do, or None. measurer: of the texts of answers, or None.
    """

    settings: Settings
    backend: Callable[[], AbstractContextManager[Backend]]
    adapters: Collection[ManifestEntry]
    database: str
    policies: Callable[[], Sequence[Path]] = tuple
    trust: "Mapping[str, SignedSource]" = field(default_factory=dict)
    metric: Metric = "weights"
    audit: Path | None = None
    signer: Signer | None = None
    shared: tuple[Path, ...] = ()
    surface: Surface | None = None
    measurer: Measurer | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.adapters, Collection):
            raise TypeError("`adapters` are gone through at every reload: a Collection, not an iterator")


@dataclass(frozen=True, slots=True)
class ServerState:
    """A server without its HTTP.

    Attributes:
        adapters: entries of the store that the backend holds. audit, refusals: None if no log is kept.
        started: seconds since 1970. closing: set once nothing new is taken.
        surface: what soups are expected to do, or None. searching: held by whoever searches it for weights. asking: held by that
            one and by the few that wait for it; each keeps a thread from other requests.
        evidence: what profiles learn. learners: make weights of it.
    """

    settings: Settings
    backend: Backend
    adapters: tuple[ManifestEntry, ...]
    policies: Policies
    profiles: Profiles
    keys: ApiKeys
    metrics: Metrics
    audit: AuditLog | None
    refusals: Refusals | None
    started: int
    shares: Shares
    bodies: Bodies
    evidence: EvidenceStore
    learners: Learners
    surface: Surface | None = None
    searching: threading.Lock = field(default_factory=threading.Lock)
    asking: threading.Semaphore = field(default_factory=lambda: threading.BoundedSemaphore(_MOST_ASKING))
    closing: threading.Event = field(default_factory=threading.Event)


@contextmanager
def open_server(config: ServerConfig) -> Iterator[ServerState]:
    """Everything that a server needs, cheapest first; closed at the end.

    Raises:
        SoupmixError: as everything that is opened raises; RecipeError (reason "no-keys"): keys are needed and none exists.
    """
    with ExitStack() as stack:
        database = open_database(config.database)
        stack.callback(database.dispose)
        keys = ApiKeys(database)
        if not config.settings.no_auth and not keys.any():
            raise RecipeError(
                "there is no API key that anybody could call with; make one with `soupmix serve keys create --tenant NAME`, "
                "or pass --no-auth to answer everybody on this machine",
                reason="no-keys",
            )
        policies = Policies(_loader(config), audited=config.audit is not None, method=config.settings.method)
        audit = stack.enter_context(AuditLog.open(config.audit, signer=config.signer)) if config.audit else None
        refusals = Refusals(audit.append, config.settings.refusals) if audit else None
        if refusals:
            stack.callback(refusals.flush, everything=True)
        backend = stack.enter_context(config.backend())
        _check_method(config.settings.method, backend)
        for path in config.shared:
            backend.share(_prefix(backend, path))
        metrics = Metrics()
        metrics.watch(backend, policies)
        yield ServerState(
            settings=config.settings,
            backend=backend,
            adapters=tuple(config.adapters),
            policies=policies,
            profiles=Profiles(database, config.settings.profiles),
            keys=keys,
            metrics=metrics,
            audit=audit,
            refusals=refusals,
            started=int(time()),
            shares=Shares(config.settings.share),
            bodies=Bodies(config.settings.bodies),
            evidence=EvidenceStore(database),
            learners=Learners(
                config.surface, config.measurer, tuple(config.adapters), getattr(backend, "engine", None)
            ),
            surface=config.surface,
        )


def _check_method(method: str, backend: Backend) -> None:
    if method not in backend.methods:
        raise RecipeError(
            f"method '{method}' is not one of this backend's: {', '.join(backend.methods)}", reason="method"
        )


def _prefix(backend: Backend, path: Path) -> tuple[int, ...]:
    """The tokens of a system prompt in a file; the line break at its end is not part of it."""
    try:
        with path.open("rb") as file:
            text = file.read(_MOST_PREFIX).decode()
    except OSError as error:
        why = error.strerror or str(error)
        raise RecipeError(f"the shared system prompt {path} cannot be read: {why}", reason="unreadable") from error
    except UnicodeError as error:
        raise RecipeError(f"the shared system prompt {path} is not UTF-8 text", reason="bad-prefix") from error
    found, length = shared_prefix(backend, text.removesuffix("\n")), backend.limits.length
    if len(found) >= length:
        raise RecipeError(
            f"the shared system prompt {path} has {len(found)} tokens, and {length} fit with the answer; shorten it, "
            "or give --length",
            reason="too-long",
        )
    return found


def _loader(config: ServerConfig) -> Callable[[], InForce]:
    """How the policy is read, every time."""

    def load() -> InForce:
        reading, expires, documents = Reading.of(None), None, config.policies()
        if config.trust:
            from soupmix.trust import load_signed

            made = load_signed(
                law=config.trust.get("law"),
                organisation=config.trust.get("organisation"),
                user=documents,
                adapters=config.adapters,
                metric=config.metric,
                now=reading,
            )
            policy, expires = made.policy, made.expires
        elif documents:
            policy = Policy.load(*documents, adapters=config.adapters, metric=config.metric, now=reading)
        else:
            policy = Policy.open(config.adapters, metric=config.metric)
        return InForce(policy, bool(config.trust), reading.at, expires)

    return load

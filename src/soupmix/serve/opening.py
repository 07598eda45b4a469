"""From options to a running house: what is refused at the start is refused in one sentence."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Literal

from soupmix.audit import AuditLog, Signer
from soupmix.backends import Backend
from soupmix.errors import RecipeError
from soupmix.openai.requests import shared_prefix
from soupmix.policy import Policy
from soupmix.policy.clock import Reading
from soupmix.serve.bodies import Bodies
from soupmix.serve.house import House
from soupmix.serve.metrics import Metrics
from soupmix.serve.policies import InForce, Policies
from soupmix.serve.profiles import Profiles
from soupmix.serve.refusals import Refusals
from soupmix.serve.settings import Settings
from soupmix.serve.shares import Shares
from soupmix.serve.tables import open_database
from soupmix.serve.tenants import Keys
from soupmix.store.manifest import Entry

if TYPE_CHECKING:
    from soupmix.trust import Source

__all__ = ["Plan", "open_house"]

_MOST_PREFIX = 1 << 20  # bytes of a system prompt


@dataclass(frozen=True, slots=True)
class Plan:
    """What a server is made from.

    Attributes:
        backend: opens whoever answers, once everything else is known to be right.
        adapters: those that the backend holds; a store, or its entries. database: a file, or a URL.
        policies: says at every load which documents there are; of the user's tier if there are signed sets.
        trust: signed sets by tier.
        metric: see `Policy.load`.
        audit: folder of the audit log, or None. signer: of its checkpoints, or None.
        shared: files with system prompts that are nobody's secret: each is computed once for a merge, whoever asks.
    """

    settings: Settings
    backend: Callable[[], AbstractContextManager[Backend]]
    adapters: Iterable[Entry]
    database: str
    policies: Callable[[], Sequence[Path]] = tuple
    trust: "Mapping[str, Source]" = field(default_factory=dict)
    metric: Literal["weights", "delta"] = "weights"
    audit: Path | None = None
    signer: Signer | None = None
    shared: tuple[Path, ...] = ()


@contextmanager
def open_house(plan: Plan) -> Iterator[House]:
    """Everything that a server needs, cheapest first; closed at the end.

    Raises:
        SoupmixError: as everything that is opened raises; RecipeError (reason "no-keys"): keys are needed and none exists.
    """
    with ExitStack() as stack:
        database = open_database(plan.database)
        stack.callback(database.dispose)
        keys = Keys(database)
        if not plan.settings.no_auth and not keys.any():
            raise RecipeError(
                "there is no API key that anybody could call with; make one with `soupmix serve keys create --tenant NAME`, "
                "or pass --no-auth to answer everybody on this machine",
                reason="no-keys",
            )
        policies = Policies(_loader(plan), audited=plan.audit is not None, method=plan.settings.method)
        audit = stack.enter_context(AuditLog.open(plan.audit, signer=plan.signer)) if plan.audit else None
        refusals = Refusals(audit.append, plan.settings.refusals) if audit else None
        if refusals:
            stack.callback(refusals.flush, everything=True)
        backend = stack.enter_context(plan.backend())
        if plan.settings.method not in backend.methods:
            raise RecipeError(
                f"method '{plan.settings.method}' is not one of this backend's: {', '.join(backend.methods)}",
                reason="method",
            )
        for path in plan.shared:
            backend.share(_prefix(backend, path))
        metrics = Metrics()
        metrics.watch(backend, policies)
        yield House(
            settings=plan.settings,
            backend=backend,
            adapters=tuple(plan.adapters),
            policies=policies,
            profiles=Profiles(database, plan.settings.profiles),
            keys=keys,
            metrics=metrics,
            audit=audit,
            refusals=refusals,
            started=int(time()),
            shares=Shares(plan.settings.share),
            bodies=Bodies(plan.settings.bodies),
        )


def _prefix(backend: Backend, path: Path) -> tuple[int, ...]:
    """The tokens of a system prompt in a file; the line break at its end is not part of it."""
    try:
        with path.open("rb") as file:
            text = file.read(_MOST_PREFIX).decode()
    except (OSError, UnicodeError) as error:
        raise RecipeError(f"the shared system prompt {path} cannot be read: {error}", reason="bad-prefix") from error
    found, length = shared_prefix(backend, text.removesuffix("\n")), backend.limits.length
    if len(found) >= length:
        raise RecipeError(
            f"the shared system prompt {path} has {len(found)} tokens, and {length} fit with the answer; shorten it, "
            "or give --length",
            reason="too-long",
        )
    return found


def _loader(plan: Plan) -> Callable[[], InForce]:
    """How the policy is read, every time."""

    def load() -> InForce:
        reading, expires, documents = Reading.of(None), None, plan.policies()
        if plan.trust:
            from soupmix.trust import load_signed

            made = load_signed(
                law=plan.trust.get("law"),
                organisation=plan.trust.get("organisation"),
                user=documents,
                adapters=plan.adapters,
                metric=plan.metric,
                now=reading,
            )
            policy, expires = made.policy, made.expires
        elif documents:
            policy = Policy.load(*documents, adapters=plan.adapters, metric=plan.metric, now=reading)
        else:
            policy = Policy.open(plan.adapters, metric=plan.metric)
        return InForce(policy, bool(plan.trust), reading.at, expires)

    return load

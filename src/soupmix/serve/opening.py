"""From options to a running house: what is refused at the start is refused in one sentence."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Literal

from soupmix.audit import AuditLog, Signer
from soupmix.base import Base, resolve
from soupmix.batching import Batcher, Limits
from soupmix.engine import Engine
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
from soupmix.store import Store

if TYPE_CHECKING:
    from soupmix.trust import Source

__all__ = ["Plan", "open_house"]

_MOST_PREFIX = 1 << 20  # bytes of a system prompt


@dataclass(frozen=True, slots=True)
class Plan:
    """What a server is made from.

    Attributes:
        base: the base model. store: its adapters. database: a file, or a URL.
        policies: says at every load which documents there are; of the user's tier if there are signed sets.
        trust: signed sets by tier.
        metric: see `Policy.load`. dtype: see `Engine.load`. limits: of the running batch.
        audit: folder of the audit log, or None. signer: of its checkpoints, or None.
        shared: files with system prompts that are nobody's secret: each is computed once for a merge, whoever asks.
    """

    settings: Settings
    base: str | Base
    store: Store
    database: str
    policies: Callable[[], Sequence[Path]] = tuple
    trust: "Mapping[str, Source]" = field(default_factory=dict)
    metric: Literal["weights", "delta"] = "weights"
    dtype: str | None = None
    limits: Limits = Limits()  # noqa: RUF009  # frozen
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
        # under today's policy the engine would refuse the grants of the next one: a grant is the only bound there
        base = resolve(plan.base) if isinstance(plan.base, str) else plan.base
        engine = Engine.load(base, plan.store, dtype=plan.dtype)
        shared = [_prefix(engine, path, plan.limits) for path in plan.shared]
        batcher = stack.enter_context(Batcher(engine, plan.limits, method=plan.settings.method, shared=shared))
        metrics = Metrics()
        metrics.watch(batcher, policies)
        yield House(
            settings=plan.settings,
            batcher=batcher,
            adapters=tuple(plan.store),
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


def _prefix(engine: Engine, path: Path, limits: Limits) -> tuple[int, ...]:
    """The tokens of a system prompt in a file; the line break at its end is not part of it."""
    try:
        with path.open("rb") as file:
            text = file.read(_MOST_PREFIX).decode()
    except (OSError, UnicodeError) as error:
        raise RecipeError(f"the shared system prompt {path} cannot be read: {error}", reason="bad-prefix") from error
    found = shared_prefix(engine, text.removesuffix("\n"))
    if len(found) >= limits.length:
        raise RecipeError(
            f"the shared system prompt {path} has {len(found)} tokens, and {limits.length} fit with the answer; shorten it, "
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
                adapters=plan.store,
                metric=plan.metric,
                now=reading,
            )
            policy, expires = made.policy, made.expires
        elif documents:
            policy = Policy.load(*documents, adapters=plan.store, metric=plan.metric, now=reading)
        else:
            policy = Policy.open(plan.store, metric=plan.metric)
        return InForce(policy, bool(plan.trust), reading.at, expires)

    return load

"""A grant: what the policy let through, and why. The only thing that merging and generating accept.

Every grant carries a tag over all that it says, made with a key that this process drew when it began. Whoever takes a grant
makes the tag again: what was read from a record, unpickled, put together by hand or changed afterwards has no such tag, or
another. No public name makes one but `Policy.clamp`. Code that runs in this process can reach private names, the key, and
the kernels' memory too, so this is no wall against it; it catches mistakes, and data that passes for a grant.
"""

import marshal
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from hmac import compare_digest
from json import JSONEncoder
from typing import TYPE_CHECKING, Any, Final, cast, final

from soupmix.errors import PolicyError, PolicyRefusal
from soupmix.policy.adapters import KnownAdapter
from soupmix.policy.documents import RuleRef
from soupmix.policy.recorded import Binding, DocumentRef, RecordedGrant
from soupmix.projection import Projected, Pull
from soupmix.public import public
from soupmix.sealing import sealed
from soupmix.weights import Weights, decimal_text

__all__ = ["ClampResult", "Grant", "check_grant"]

_KEY: Final = secrets.token_bytes(32)
_encode = JSONEncoder(
    check_circular=False, separators=(",", ":")
).encode  # says what a text holds, whatever its class shows


@public
@sealed(
    "a Grant comes from Policy.clamp, and has no subclasses; without a policy, use Policy.open(adapters).clamp(weights)",
    "a grant does not leave its process: send the request, and let Policy.clamp grant it there; to keep it, use to_dict",
)
@final
@dataclass(frozen=True, slots=True, init=False, repr=False)
class Grant(RecordedGrant):
    """Weights that a policy let through. Made by `Policy.clamp` only.

    It cannot be changed, copied into another one or pickled: across processes a request travels, and is granted anew.
    """

    _tag: bytes = field(init=False, repr=False, compare=False)

    if TYPE_CHECKING:  # `sealed` replaces the constructor of a record, which type checkers and docs/api.md do not see

        def __init__(self, *_: object, **__: object) -> None: ...


@dataclass(frozen=True, slots=True)
class ClampResult:
    """What a `Grant` says of a clamp, ready for every grant of the same request: what is let through, what bound, how far
    it moved.

    Attributes:
        granted, adapter_digests, binding, distance: see `RecordedGrant`.
        refused: the first binding of a rule that refuses instead of clamping, or None.
    """

    granted: Weights
    adapter_digests: tuple[tuple[str, str], ...]
    binding: tuple[Binding, ...]
    distance: str
    refused: Binding | None
    _seal: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_seal", _seal_of(self))

    @classmethod
    def of(cls, found: Projected, known: Sequence[KnownAdapter]) -> "ClampResult":
        """A projection over these adapters, in words."""
        used = {adapter.name: micro for adapter, micro in zip(known, found.weights, strict=True) if micro}
        digests = tuple(sorted([(adapter.name, adapter.digest) for adapter in known if adapter.name in used]))
        binding = tuple([_binding(pull, known) for pull in found.pulls])
        refused = next((b for b, pull in zip(binding, found.pulls, strict=True) if _ref(pull).refuses), None)
        return cls(Weights.unchecked(used), digests, binding, decimal_text(found.distance), refused)

    def check(self) -> None:
        """Raise PolicyRefusal (reason "refused-by-rule") if a rule that refuses would have changed the request."""
        if self.refused is not None:
            names = ", ".join(self.refused.adapters)
            raise PolicyRefusal(
                f"refused, not clamped ({names}): {self.refused}", reason="refused-by-rule", rules=self.binding
            )


def check_grant(grant: object, taker: str) -> None:
    """Raise unless this is a grant as a policy of this process gave it. `taker` begins the message.

    Raises:
        TypeError: it is no grant at all. PolicyError: it is the record of one, or was forged or changed ("not-granted").
    """
    if type(grant) is RecordedGrant:
        raise PolicyError(
            f"{taker} takes a grant, and this is the record of one, which lets nothing through: ask Policy.clamp again for "
            "the weights that it says were requested",
            reason="not-granted",
        )
    if type(grant) is not Grant:
        raise TypeError(
            f"{taker} takes a Grant, not {type(grant).__name__}: ask Policy.clamp for one; Policy.open(store) is the policy "
            "without rules"
        )
    if not _is_whole(grant):
        raise PolicyError(
            f"{taker} takes a grant as the policy gave it, and this one was made or changed by something else; ask "
            "Policy.clamp for another",
            reason="not-granted",
        )


def _ref(pull: Pull) -> RuleRef:
    """The rule that a constraint is labelled with: geometry keeps the label, and a policy gives no other."""
    return cast(RuleRef, pull.rule)


def _binding(pull: Pull, known: Sequence[KnownAdapter]) -> Binding:
    rule = _ref(pull)
    return Binding(
        tuple(sorted({known[index].name for index in pull.coordinates})),
        rule.id,
        rule.issuer,
        rule.tier,
        rule.document,
        pull.text,
        rule.public_reason,
        decimal_text(pull.multiplier),
    )


def _granted(
    result: ClampResult,
    *,
    requested: Weights,
    policy_digest: str,
    scope: tuple[tuple[str, str], ...],
    is_open: bool,
    metric: str,
    sources: tuple[tuple[str, str], ...],
    obligations: tuple[str, ...],
    norm_rule: str | None,
    documents: tuple[DocumentRef, ...],
    notes: tuple[str, ...],
) -> Grant:
    """The grant of a clamp, for `Policy.clamp` and nobody else."""
    grant = object.__new__(Grant)
    RecordedGrant.__init__(
        grant,
        requested,
        result.granted.copy(),  # nobody holds what is remembered
        result.adapter_digests,
        result.binding,
        policy_digest,
        scope,
        is_open,
        result.distance,
        metric,
        sources,
        obligations,
        norm_rule,
        documents,
        notes,
    )
    object.__setattr__(grant, "_tag", _tag_of(grant, result._seal))
    return grant


def _seal_of(said: ClampResult | Grant) -> bytes:
    """The part of a tag that all grants of one clamp share: computed once, when it is clamped."""
    rules = [
        (b.adapters, b.rule, b.issuer, b.tier, b.document, b.limit, b.public_reason, b.multiplier) for b in said.binding
    ]
    return _keyed(b"outcome", b"", (said.granted.pairs(), said.adapter_digests, rules, said.distance))


def _tag_of(grant: Grant, seal: bytes) -> bytes:
    documents = [(d.document, d.tier, d.issuer, d.version, d.digest) for d in grant.documents]
    said = (grant.requested.pairs(), grant.policy_digest, documents, grant.scope, grant.is_open, grant.metric)
    return _keyed(b"grant", seal, (*said, grant.sources, grant.obligations, grant.norm_rule, grant.notes))


def _keyed(kind: bytes, before: bytes, said: Any) -> bytes:
    try:
        # four times as fast as JSON; version 2 has no references, so equal content has equal bytes
        text = marshal.dumps(said, 2)
    except ValueError:  # a class of its own for a text, such as an enumeration
        text = _encode(said).encode()
    return blake2b(before + text, key=_KEY, person=kind, digest_size=16).digest()


def _is_whole(grant: Grant) -> bool:
    try:
        if not type(grant.granted) is type(grant.requested) is Weights:
            return False
        return compare_digest(grant._tag, _tag_of(grant, _seal_of(grant)))
    except (AttributeError, TypeError, ValueError):  # something in it is not even what a grant is made of
        return False

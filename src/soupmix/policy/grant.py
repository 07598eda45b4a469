"""A grant: what the policy let through, and why. The only thing that merging and generating accept.

Every grant carries a tag over all that it says, made with a key that this process drew when it began. Whoever takes a grant
makes the tag again: what was read from a record, unpickled, put together by hand or changed afterwards has no such tag, or
another. Code that runs in this process can reach the key, and the kernels' memory too, so this is no wall against it; it
catches mistakes, and data that passes for a grant.
"""

import marshal
import secrets
from collections.abc import Mapping
from dataclasses import InitVar, dataclass, field
from hashlib import blake2b
from hmac import compare_digest
from json import JSONEncoder
from typing import Any, Final, NoReturn

from soupmix.errors import PolicyError
from soupmix.policy.recorded import Binding, RecordedGrant
from soupmix.weights import Weights

__all__ = ["Grant", "check_grant", "seal_of"]

_KEY: Final = secrets.token_bytes(32)
_encode = JSONEncoder(
    check_circular=False, separators=(",", ":")
).encode  # says what a text holds, whatever its class shows


@dataclass(frozen=True, slots=True)
class Grant(RecordedGrant):
    """Weights that a policy let through. Made by `Policy.clamp` only, which gives it the `seal_of` what it grants.

    It cannot be changed, copied into another one or pickled: across processes a request travels, and is granted anew.
    """

    seal: InitVar[bytes | None] = field(default=None, kw_only=True)
    _tag: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self, seal: bytes | None) -> None:
        if not isinstance(seal, bytes):
            raise TypeError(
                "a Grant comes from Policy.clamp; without a policy, use Policy.open(adapters).clamp(weights)"
            )
        object.__setattr__(self, "_tag", _tag_of(self, seal))

    @staticmethod
    def from_record(record: Mapping[str, Any]) -> RecordedGrant:
        """What a grant's `to_dict` wrote; see `RecordedGrant.read`. It lets nothing through any more."""
        return RecordedGrant.read(record)

    def __copy__(self) -> "Grant":
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> "Grant":
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a grant does not leave its process: send the request, and let Policy.clamp grant it there; "
            "to keep what it says, use to_dict"
        )

    def __setstate__(self, state: object) -> NoReturn:
        raise TypeError("a grant is made by Policy.clamp, not from the state of another")


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


def seal_of(
    granted: Weights, digests: tuple[tuple[str, str], ...], binding: tuple[Binding, ...], distance: str
) -> bytes:
    """The part of a tag that all grants of one outcome share: computed once, when it is clamped."""
    rules = [(b.adapters, b.rule, b.issuer, b.tier, b.source, b.limit, b.public_reason, b.multiplier) for b in binding]
    return _keyed(b"outcome", b"", (granted.pairs(), digests, rules, distance))


def _tag_of(grant: Grant, seal: bytes) -> bytes:
    said = (grant.requested.pairs(), grant.policy_digest, grant.scope, grant.is_open, grant.metric)
    return _keyed(b"grant", seal, (*said, grant.sources, grant.obligations, grant.norm_rule))


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
        seal = seal_of(grant.granted, grant.adapter_digests, grant.binding, grant.distance)
        return compare_digest(grant._tag, _tag_of(grant, seal))
    except (AttributeError, TypeError, ValueError):  # something in it is not even what a grant is made of
        return False

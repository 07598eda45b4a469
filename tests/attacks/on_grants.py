"""Attacks with grants: weights that no policy gave, made to look as if one had. Whoever takes a grant makes its tag again."""

import copy
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType

from soupmix.errors import PolicyError
from soupmix.merge import merge
from soupmix.policy import Grant, Policy
from soupmix.policy.recorded import RecordedGrant, read_record
from soupmix.store import Store
from soupmix.weights import MILLION, Weights
from tests.attacks.attack import Attack
from tests.attacks.on_stores import store

__all__ = ["ATTACKS"]

_GREEDY = Weights.from_micro({"friendly": 1000 * MILLION})


def _merges(name: str, tries: str, forge: Callable[[Policy], object]) -> Attack:
    """Merge by what was forged beside a sound policy."""

    def run(where: Path) -> None:
        opened = Store(store(where))
        merge(opened, forge(Policy.open(opened)))  # type: ignore[arg-type]

    return Attack(name, tries, run, PolicyError, "not-granted")


def _with(grant: Grant, **fields: object) -> Grant:
    for name, value in fields.items():
        object.__setattr__(grant, name, value)
    return grant


def _recorded(policy: Policy) -> RecordedGrant:
    record = policy.clamp("friendly=1").to_dict()
    return read_record(record | {"granted": {"friendly": "1000"}, "requested": {"friendly": "1000"}})


def _constructed(policy: Policy) -> Grant:
    said = asdict(policy.clamp("friendly=1"))
    made = {name: said[name] for name in RecordedGrant.__dataclass_fields__} | {"granted": _GREEDY}
    grant = object.__new__(Grant)
    RecordedGrant.__init__(grant, **made)
    return _with(grant, _tag=bytes(16))


def _put_together(policy: Policy) -> Grant:
    sound, made = policy.clamp("friendly=1"), object.__new__(Grant)
    for name in Grant.__dataclass_fields__:
        object.__setattr__(made, name, getattr(sound, name))
    return _with(made, granted=_GREEDY)


def _inside(policy: Policy) -> Grant:
    grant = policy.clamp("friendly=1")
    object.__setattr__(grant.granted, "_micro", MappingProxyType({"friendly": 1000 * MILLION}))
    return grant


def _copied(policy: Policy) -> Grant:
    return _with(copy.deepcopy(policy.clamp("friendly=1")), granted=_GREEDY)


class _Changing(Weights):
    """Weights that are sound when they are checked."""

    __slots__ = ()


def _of_a_class_of_its_own(policy: Policy) -> Grant:
    return _with(policy.clamp("friendly=1"), granted=_Changing.unchecked({"friendly": MILLION}))


def _of_somebody_else(policy: Policy) -> Grant:
    tag = policy.clamp("expert=1,friendly=0.1")._tag
    return _with(policy.clamp("friendly=1"), _tag=tag)


ATTACKS = (
    _merges("grant-from-a-record", "a weight of 1000, read back as a grant", _recorded),
    _merges("grant-constructed", "a grant with a tag of its own", _constructed),
    _merges("grant-put-together", "the tag of another grant, without the constructor", _put_together),
    _merges("grant-changed-inside", "a weight of 1000 behind a checked one", _inside),
    _merges("grant-copied-and-changed", "a copy is not looked at", _copied),
    _merges("grant-of-changing-weights", "other weights when they are used than when checked", _of_a_class_of_its_own),
    _merges("grant-with-another-tag", "one tag for two grants", _of_somebody_else),
    _merges(
        "grant-under-another-name",
        "weights of a lax policy under a strict one's name",
        lambda policy: _with(policy.clamp("friendly=1"), policy_digest="sha256:" + "1" * 64),
    ),
    _merges(
        "grant-without-obligations",
        "what was granted, without what it obliges to",
        lambda policy: _with(policy.clamp("friendly=1"), obligations=("log refusals",)),
    ),
    _merges(
        "grant-of-nonsense",
        "an error nobody thought of",
        lambda policy: _with(policy.clamp("friendly=1"), scope=object()),
    ),
)

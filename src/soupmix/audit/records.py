"""What is written down: one request, one line of canonical ASCII JSON, chained to the line before.

A record never holds a prompt, an answer or a user id, only the keyed hash of one (`people.py`).
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final, Protocol, Self

from soupmix.audit.merkle import Tree, leaf_hash
from soupmix.errors import AuditError, PolicyRefusal, RefusingRule, SoupmixError
from soupmix.files import compact_json
from soupmix.modes import FULL, Mode
from soupmix.weights import Weights

__all__ = ["EVENTS", "MAX_LINE", "Chain", "Record", "line_of", "time_text"]

EVENTS: Final = ("change", "erasure", "grant", "refusal")
"""What can happen: a request was granted, or refused, a profile's weights were changed, or a person's key was ordered to be
destroyed."""

MAX_LINE: Final = 1 << 20
"""Most bytes of a line."""

_MOST_NAMES: Final = 8  # that a refusal is recorded with; a grant has them all

_OUTER = {"entry", "previous", "schema", "sequence", "time", "who"}


class _Policy(Protocol):
    @property
    def digest(self) -> str: ...
    @property
    def is_open(self) -> bool: ...


class _Granted(Protocol):
    """What a record takes from a `soupmix.policy.Grant`; this room does not import that one."""

    @property
    def requested(self) -> Weights: ...
    @property
    def granted(self) -> Weights: ...
    @property
    def attributes(self) -> Mapping[str, str]: ...
    @property
    def policy_digest(self) -> str: ...
    @property
    def is_open(self) -> bool: ...
    @property
    def binding(self) -> Sequence[RefusingRule]: ...


@dataclass(frozen=True, slots=True)
class Record:
    """One thing that happened, as its caller knows it.

    Attributes:
        event: one of `EVENTS`. person: the user id, never written itself; None if nobody is known.
        requested, granted: weights in integer millionths. attributes: what the request said about itself.
        policy: digest of the policy, or None if none could be read.
        is_open, is_signed: whether there were no policy documents, and whether they came with good signatures.
        binding: the rules that held the request back, "tier/issuer/rule".
        merge: the merge identity, or None if nothing is merged. mode: where it acts, one of `soupmix.modes`.
        reason: the code of a refusal.
        omitted: names of `requested` and rules of `binding` that are left out, as a refusal could hold any number of them.
        repeated: refusals that this one stands for, counted and not written one by one.
        source: where changed weights come from, "inferred"; None of everything else.
    """

    event: str
    person: str | None = None
    requested: Weights = field(default_factory=Weights)
    granted: Weights = field(default_factory=Weights)
    attributes: Mapping[str, str] = field(default_factory=dict)
    policy: str | None = None
    is_open: bool = False
    is_signed: bool = False
    binding: tuple[str, ...] = ()
    merge: str | None = None
    reason: str | None = None
    omitted: int = 0
    repeated: int = 0
    mode: Mode = FULL
    source: str | None = None

    def __post_init__(self) -> None:
        if self.event not in EVENTS:
            raise AuditError(f"unknown event {self.event!r}; known are {', '.join(EVENTS)}", reason="bad-entry")
        if self.person is not None and not 0 < len(self.person.encode("utf-8", "surrogatepass")) <= 1024:
            raise AuditError("a user id has 1 to 1024 bytes", reason="bad-person")

    @classmethod
    def of_grant(
        cls, grant: _Granted, *, person: str | None, is_signed: bool, merge: str | None = None, mode: Mode = FULL
    ) -> Self:
        """The record of a `soupmix.policy.Grant` that is about to be used, the same whoever writes it.

        Args:
            person: who asked. is_signed: whether its policy came with good signatures. merge: identity of what is made.
            mode: where it acts.
        """
        return cls(
            event="grant",
            mode=mode,
            person=person,
            requested=grant.requested,
            granted=grant.granted,
            attributes=grant.attributes,
            policy=grant.policy_digest,
            is_open=grant.is_open,
            is_signed=is_signed,
            binding=_named(grant.binding),
            merge=merge,
        )

    @classmethod
    def of_change(cls, grant: _Granted, *, person: str, is_signed: bool) -> Self:
        """The record of weights that were inferred anew for a profile, and of what is granted of them now.

        Args:
            person: whose profile. is_signed: as of `of_grant`.
        """
        return replace(cls.of_grant(grant, person=person, is_signed=is_signed), event="change", source="inferred")

    @classmethod
    def of_refusal(
        cls,
        error: SoupmixError,
        *,
        person: str | None,
        requested: Weights,
        attributes: Mapping[str, str],
        policy: _Policy | None,
        is_signed: bool,
    ) -> Self:
        """The record of a request that ended in this error, of bounded length, the same whoever writes it.

        Args:
            person: who asked. requested, attributes: for what. policy: under which, or None if none could be read.
            is_signed: whether the policy came with good signatures.
        """
        binding = _named(error.rules) if isinstance(error, PolicyRefusal) else ()
        kept = dict(islice(requested.items(), _MOST_NAMES))
        return cls(
            event="refusal",
            person=person,
            requested=Weights.unchecked(kept),
            attributes=attributes,
            policy=None if policy is None else policy.digest,
            is_open=policy is not None and policy.is_open,
            is_signed=policy is not None and is_signed,
            binding=binding[:_MOST_NAMES],
            reason=error.reason,
            omitted=len(requested) - len(kept) + len(binding[_MOST_NAMES:]),
        )

    def encoded(self) -> bytes:
        """This record as the inner part of a line.

        Raises:
            AuditError: it is longer than a line may be (reason "too-long").
        """
        counts = {"omitted": self.omitted, "repeated": self.repeated}  # only where they count something
        data = compact_json(
            {key: count for key, count in counts.items() if count}
            | ({} if self.mode == FULL else {"mode": self.mode})
            | ({} if self.source is None else {"source": self.source})
            | {
                "attributes": dict(self.attributes),
                "binding": list(self.binding),
                "event": self.event,
                "granted": dict(self.granted),
                "merge": self.merge,
                "open": self.is_open,
                "policy": self.policy,
                "reason": self.reason,
                "requested": dict(self.requested),
                "signed": self.is_signed,
            }
        )
        if len(data) > MAX_LINE - 512:
            raise AuditError(f"a record of {len(data)} bytes is more than the {MAX_LINE} of a line", reason="too-long")
        return data


def _named(rules: Iterable[RefusingRule]) -> tuple[str, ...]:
    return tuple(sorted({f"{each.tier}/{each.issuer}/{each.rule}" for each in rules}))


def time_text(seconds: float) -> str:
    """Seconds since 1970 as UTC text, whole seconds: "2026-11-24T07:00:00Z"."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def line_of(entry: bytes, *, previous: bytes, sequence: int, time: str, who: str | None) -> bytes:
    """The line of an encoded entry, without the newline. The same bytes as `compact_json` of all of it."""
    name = "null" if who is None else f'"{who}"'
    tail = f',"previous":"{previous.hex()}","schema":1,"sequence":{sequence},"time":"{time}","who":{name}}}'
    return b'{"entry":' + entry + tail.encode("ascii")


class Chain:
    """Where a log stands: its tree and the hash of its last line. Lines are added one after the other.

    Attributes:
        tree: over all lines so far. last: the leaf hash of the last line; of the log's origin if there is none.
    """

    __slots__ = ("last", "tree")

    def __init__(self, origin: str) -> None:
        self.tree = Tree()
        self.last = leaf_hash(origin.encode())

    def copy(self) -> "Chain":
        """The same place, free to go on by itself."""
        made = Chain.__new__(Chain)
        made.tree, made.last = self.tree.copy(), self.last
        return made

    def add(self, entry: bytes, time: str, who: str | None) -> bytes:
        """Write an entry as the next line, and stand behind it."""
        line = line_of(entry, previous=self.last, sequence=self.tree.size, time=time, who=who)
        self._pass(line)
        return line

    def follow(self, line: bytes) -> dict[str, Any]:
        """Read the next line of a log that exists, and stand behind it.

        Raises:
            AuditError: it is not a line of a log (reason "bad-record"), not the one with the next number
                ("wrong-sequence"), or does not name the line before ("broken-chain").
        """
        record = _parse(line)
        if record["sequence"] != self.tree.size:
            raise AuditError(
                f"it has number {record['sequence']}, but {self.tree.size} comes next", reason="wrong-sequence"
            )
        if record["previous"] != self.last.hex():
            raise AuditError("it does not follow the line before it: one of the two was changed", reason="broken-chain")
        self._pass(line)
        return record

    def _pass(self, line: bytes) -> None:
        self.last = leaf_hash(line)
        self.tree.add(self.last)


def _parse(line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line)
        # Equal to its own canonical spelling: so no key stands twice, and no other bytes say the same.
        if not isinstance(record, dict) or record.keys() != _OUTER or compact_json(record) != line:
            raise ValueError("it is not canonical")
    except (ValueError, RecursionError) as error:
        raise AuditError(f"it is no record of this log: {error}", reason="bad-record") from None
    sequence, schema = record["sequence"], record["schema"]
    if type(sequence) is not int or type(schema) is not int or schema != 1 or not isinstance(record["entry"], dict):
        raise AuditError("it is a record of another kind than this version knows", reason="bad-record")
    return record

"""The policy in force: read again without a restart; a new one that is wrong changes nothing."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from soupmix.errors import Overloaded, PolicyError
from soupmix.methods import DEFAULT, find_method
from soupmix.policy import Policy

__all__ = ["InForce", "Policies", "Reload"]

_AGAIN = 30.0


@dataclass(frozen=True, slots=True)
class InForce:
    """A policy as a server holds it.

    Attributes:
        signed: whether it came from sets with good signatures. loaded: when it was read.
        expires: until when the signed sets may be believed, or None; the policy ends then by itself.
    """

    policy: Policy
    signed: bool
    loaded: datetime
    expires: datetime | None = None


@dataclass(frozen=True, slots=True)
class Reload:
    """What a reload did: digests of the policy before and now, and remarks for its author."""

    before: str
    now: str
    notes: tuple[str, ...]


class Policies:
    """Which policy is in force. Safe to share between threads.

    A request reads it once and goes on under its grant, whatever is loaded meanwhile.
    """

    def __init__(self, load: Callable[[], InForce], *, audited: bool, method: str = DEFAULT) -> None:
        """Load the first policy. Raises `PolicyError` as `reload` does.

        Args:
            audited: whether records are kept. method: how all that is granted will be merged.
        """
        self._load, self._audited, self._method = load, audited, method
        self._one_reload = threading.Lock()
        self._held = self._checked(load())

    @property
    def held(self) -> InForce:
        """The last good policy, whether or not it has ended."""
        return self._held

    def current(self) -> InForce:
        """The policy to grant by.

        Raises:
            Overloaded: it has ended and nobody has loaded a new one (reason "policy-ended").
        """
        held = self._held
        if held.policy.ended:
            raise Overloaded(
                "the policy in force has ended, and nothing is granted until it is renewed and loaded again",
                reason="policy-ended",
                retry_after=_AGAIN,
            )
        return held

    def reload(self) -> Reload:
        """Read the policy again, and grant by it from now on.

        Raises:
            PolicyError: it is wrong (reasons of `Policy.load` and `load_signed`), obliges to keep records where none are
                kept (reason "not-audited"), or bounds a norm that the server's method does not keep (reason
                "norm-not-linear"); the policy before stays in force.
        """
        with self._one_reload:
            before, self._held = self._held, self._checked(self._load())
            return Reload(before.policy.digest, self._held.policy.digest, self._held.policy.notes)

    def _checked(self, new: InForce) -> InForce:
        owed = [each for each in new.policy.obligations({}) if each.startswith("log ")]
        if owed and not self._audited:
            raise PolicyError(
                f"the policy obliges to {owed[0]}, and this server keeps no audit log; start it with --audit DIR",
                reason="not-audited",
            )
        for rule in new.policy.norm_rules:
            if not find_method(self._method).is_linear:
                raise PolicyError(
                    f"{rule.ref} bounds the norm of the merged delta, and this server merges by {self._method}, which no such "
                    f"rule can bound; start it with --method {DEFAULT}, or leave the rule out",
                    reason="norm-not-linear",
                )
        return new

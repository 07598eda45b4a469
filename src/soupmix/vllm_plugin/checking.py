"""Whether a request may have the row that it carries: the tag, the salt, the adapters, and the policy once more."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from soupmix.errors import PolicyRefusal, RecipeError, SoupmixError
from soupmix.policy import Policy
from soupmix.vllm_plugin.row import FIELD, SoupRow, adapters_digest
from soupmix.vllm_plugin.setup import Setup
from soupmix.weights import Weights

__all__ = ["Checker", "bounds", "row_text"]

_LEAST_BETWEEN = 1.0  # seconds between two readings of the policy for digests that are not known


class _Held(NamedTuple):
    policy: Policy
    at: float


class Checker:
    """Checks rows. Safe to share between threads.

    Args:
        setup: what the server serves soups from. clock: seconds, as `time.monotonic`.

    Attributes:
        setup: as given. adapters: (name, digest), in the order of the weights.

    Raises:
        SoupmixError: as everything that the policy is read from raises.
    """

    def __init__(self, setup: Setup, clock: Callable[[], float] = time.monotonic) -> None:
        self.setup, self._clock = setup, clock
        self._lock = threading.Lock()
        self.adapters = setup.adapters
        self._adapters = adapters_digest(self.adapters)
        self._held = self._read()

    @property
    def policy(self) -> Policy:
        """The policy, read again if it was read longer ago than the setup allows."""
        with self._lock:
            if self._clock() - self._held.at >= self.setup.refresh:
                self._held = self._read()
            return self._held.policy

    def most(self, row: SoupRow) -> tuple[int, ...] | None:
        """What weights may be at most [K] in millionths by the policy of a row, for kernels to clamp by once more.

        None if its policy is not at hand: whoever let the row in has read it, and bounds stay as they were.
        """
        try:
            return bounds(self._policy_of(row), self.adapters)
        except PolicyRefusal:
            return None

    def opened(self, text: object, prompt: Sequence[int] | None) -> SoupRow:
        """The row of a request whose tag and adapters are right; what the policy says of it is not asked.

        Raises:
            PolicyRefusal: the tag is wrong (reason "forged"). RecipeError: it is no row ("bad-row"), the request has no token
                ids ("no-tokens"), or it is for other adapters ("other-adapters").
        """
        if prompt is None:
            raise RecipeError("a soup needs a prompt of tokens, and this one is of embeddings", reason="no-tokens")
        row = SoupRow.unseal(text, self.setup.key, prompt)
        if row.adapters != self._adapters or len(row.weights) != len(self.adapters):
            raise RecipeError(
                "this row of weights is for other adapters than this server holds; start both with one store",
                reason="other-adapters",
            )
        return row

    def check(self, text: object, prompt: Sequence[int] | None, salt: str | None) -> SoupRow:
        """The row of a request that may be served.

        Raises:
            PolicyRefusal, RecipeError: as `opened`; the request's cache salt is not the row's (reason "other-salt"), the row
                was granted under another policy ("other-policy"), or the policy would not grant it ("not-granted").
        """
        row = self.opened(text, prompt)
        if salt != row.salt:
            raise PolicyRefusal(
                "the cache salt of this request is not that of its row, under which alone it may be cached",
                reason="other-salt",
            )
        policy = self._policy_of(row)
        named = {name: weight for (name, _), weight in zip(self.adapters, row.weights, strict=True) if weight}
        asked = Weights.from_micro(named)
        if policy._grant(asked, row.attributes, row.sources).granted != asked:
            raise PolicyRefusal(
                "the policy of this server would not grant these weights; ask soupmix, which asks the policy",
                reason="not-granted",
            )
        return row

    def _policy_of(self, row: SoupRow) -> Policy:
        policy = self.policy
        if policy.digest != row.policy:
            policy = self._read_soon()
        if policy.digest != row.policy:
            raise PolicyRefusal(
                f"the weights were granted under policy {row.policy}, and this server holds to {policy.digest}; give both "
                "the same documents",
                reason="other-policy",
            )
        return policy

    def _read_soon(self) -> Policy:
        """The policy, read again because of a digest that is not known, though not more than once a second."""
        with self._lock:
            if self._clock() - self._held.at >= _LEAST_BETWEEN:
                self._held = self._read()
            return self._held.policy

    def _read(self) -> _Held:
        at = self._clock()
        try:
            return _Held(self.setup.policy()[0], at)
        except SoupmixError as error:
            raise PolicyRefusal(
                f"the policy cannot be read, so no soups are served: {error}", reason="no-policy"
            ) from error


def bounds(policy: Policy, adapters: Sequence[tuple[str, str]]) -> tuple[int, ...]:
    """What a policy lets weights be at most [K] in millionths, in every scope."""
    found = policy.bounds()
    return tuple(max(found.get(name, (0, 0))[1], 0) for name, _ in adapters)


def row_text(extra: Mapping[str, Any] | None) -> object | None:
    """The row among the further arguments of a request; None if it has none, and is of the bare base."""
    return None if extra is None else extra.get(FIELD)

"""What commands that clamp have in common: who asks for what, under which policy, and on which record."""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from soupmix.cli.auditing import Witness, audit_option
from soupmix.cli.options import (
    attribute_option,
    load_policy,
    parse_attributes,
    parse_sources,
    policy_option,
    source_option,
    store_option,
    trust_option,
    weight_option,
)
from soupmix.policy import AdapterRef, Grant, Policy
from soupmix.policy.linear import check_linear
from soupmix.weights import Weights

__all__ = ["Asking", "asking_options"]

_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Asking:
    """What a person asks for on the command line, and who decides about it.

    Attributes:
        weights, attributes, sources: of the request. policies: documents. trust: texts of signed sets.
        store: folder of adapters, None for the shipped ones. witness: who is told what comes of it.
    """

    weights: Weights
    attributes: Mapping[str, str]
    sources: str | Mapping[str, str]
    policies: tuple[Path, ...]
    trust: tuple[str, ...]
    store: Path | None
    witness: Witness

    @property
    def signed(self) -> bool:
        """Whether the policy comes from signed sets."""
        return bool(self.trust)

    @contextmanager
    def refusals(self, policy: Policy | None = None) -> Iterator[None]:
        """Record what is refused inside."""
        with self.witness.refusals(self.weights, self.attributes, policy):
            yield

    def policy(self, adapters: Iterable[AdapterRef], *, metric: Literal["weights", "delta"] = "weights") -> Policy:
        """The policy over these adapters; see `load_policy`."""
        with self.refusals():
            return load_policy(self.policies, adapters, self.trust, metric=metric)

    def clamp(self, policy: Policy, method: str = "delta") -> Grant:
        """What the policy grants to be merged by a method. That it does so is not recorded yet."""
        with self.refusals(policy):
            grant = policy.clamp(self.weights, sources=self.sources, **self.attributes)
            check_linear(method, grant.norm_rule)
            return grant


def asking_options(*, weights_required: bool = False) -> Callable[[_Command], _Command]:
    """The options of `Asking`; the command gets `asking: Asking`."""

    def decorate(command: _Command) -> _Command:
        @weight_option(required=weights_required)
        @policy_option
        @trust_option
        @attribute_option
        @source_option
        @store_option
        @audit_option
        @functools.wraps(command)
        def with_asking(
            *arguments: Any,
            weights: tuple[str, ...],
            attributes: tuple[str, ...],
            sources: tuple[str, ...],
            policies: tuple[Path, ...],
            trust: tuple[str, ...],
            store: Path | None,
            witness: Witness,
            **options: Any,
        ) -> Any:
            asking = Asking(
                Weights.parse(weights),
                parse_attributes(attributes),
                parse_sources(sources),
                policies,
                trust,
                store,
                witness,
            )
            return command(*arguments, asking=asking, **options)

        return cast("_Command", with_asking)

    return decorate

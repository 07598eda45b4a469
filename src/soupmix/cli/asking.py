"""What commands that clamp have in common: who asks for what, under which policy, and on which record."""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from soupmix.audit import Record
from soupmix.cli.auditing import Recorder, audit_option
from soupmix.cli.documents import load_policy, trust_files
from soupmix.cli.options import (
    PATH,
    attribute_option,
    find_store,
    parse_attributes,
    parse_sources,
    policy_option,
    read_adapters,
    source_option,
    store_option,
    trust_option,
    weight_option,
)
from soupmix.cli.profiles import LearntProfile, read_profile
from soupmix.errors import SoupmixError
from soupmix.methods import DEFAULT, check_linear
from soupmix.modes import FULL, Mode
from soupmix.policy import AdapterRef, Grant, Metric, Policy
from soupmix.weights import Weights

__all__ = ["Asking", "asking_options"]

_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Asking:
    """What a person asks for on the command line, and who decides about it.

    Attributes:
        weights, attributes, sources: of the request. shares: adapters whose weight was given as a share of their effect.
        policies: documents. trust: texts of signed sets.
        store: folder of adapters as `find_store` found it, None for the shipped ones. recorder: writes down what comes of it.
    """

    weights: Weights
    shares: tuple[str, ...]
    attributes: Mapping[str, str]
    sources: str | Mapping[str, str]
    policies: tuple[Path, ...]
    trust: tuple[str, ...]
    store: Path | None
    recorder: Recorder

    @property
    def signed(self) -> bool:
        """Whether the policy comes from signed sets."""
        return bool(self.trust)

    @property
    def files(self) -> tuple[Path, ...]:
        """Files and folders that the answer is made from or recorded in, which no output may replace."""
        return (
            *self.policies,
            *trust_files(self.trust),
            *([] if self.store is None else [self.store]),
            *self.recorder.files,
        )

    def granted(self, grant: Grant, *, merge: str | None = None, mode: Mode = FULL) -> None:
        """Record a grant that is about to be used; `merge` is the identity of what will be made of it, `mode` where it acts.

        Raises:
            AuditError, OutputError: it cannot be recorded.
        """
        who, signed = self.recorder.person, self.signed
        self.recorder.append(Record.of_grant(grant, person=who, is_signed=signed, merge=merge, mode=mode))

    def refused(self, error: SoupmixError, policy: Policy | None = None) -> None:
        """Record a refusal under a policy, or None if it could not be read. Raises as `granted` does."""
        self.recorder.append(
            Record.of_refusal(
                error,
                person=self.recorder.person,
                requested=self.weights,
                attributes=self.attributes,
                policy=policy,
                is_signed=self.signed,
            )
        )

    @contextmanager
    def refusals(self, policy: Policy | None = None) -> Iterator[None]:
        """Record it if what happens inside is refused; the refusal goes on its way."""
        try:
            yield
        except SoupmixError as error:
            self.refused(error, policy)
            raise

    def policy(self, adapters: Iterable[AdapterRef], *, metric: Metric = "weights") -> Policy:
        """The policy over these adapters; see `load_policy`."""
        with self.refusals():
            return load_policy(self.policies, adapters, self.trust, metric=metric)

    def clamp(self, policy: Policy, method: str = DEFAULT) -> Grant:
        """What the policy grants to be merged by a method. That it does so is not recorded yet."""
        with self.refusals(policy):
            grant = policy._grant(self.weights, self.attributes, self.sources)
            check_linear(method, grant.norm_rule)
            return grant


def asking_options(
    *, weights_required: bool = False, finds_store: bool = True, profile: bool = False
) -> Callable[[_Command], _Command]:
    """The options of `Asking`; the command gets `asking: Asking`.

    Args:
        profile: whether weights may come from a profile of `soupmix learn`.
        finds_store: whether `Asking.store` is the one that is found where none is named; by the command's base, if it has one.
    """

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
            recorder: Recorder,
            **options: Any,
        ) -> Any:
            learnt = read_profile(path) if profile and (path := options.pop("learnt")) else None
            topic = options.pop("topic") if profile else None
            if finds_store:
                names = _names(weights) | set(learnt.about(topic) if learnt else ())
                store = find_store(store, options.get("base"), names)
            said, shares = _weights(weights, store)
            given, where = _beside(said, parse_sources(sources), learnt, topic)
            asking = Asking(given, shares, parse_attributes(attributes), where, policies, trust, store, recorder)
            return command(*arguments, asking=asking, **options)

        made = cast("_Command", with_asking)
        return _profile_option(made) if profile else made

    return decorate


def _profile_option(command: _Command) -> _Command:
    of_topic = click.option(
        "--topic", metavar="NAME", help="With --profile: what is spoken about, if wants differ by that."
    )
    return click.option(
        "--profile",
        "learnt",
        metavar="FILE",
        type=PATH,
        help="Profile of `soupmix learn`: its weights are asked for, where -w does not say otherwise.",
    )(of_topic(command))


def _beside(
    given: Weights, where: str | dict[str, str], learnt: LearntProfile | None, topic: str | None
) -> tuple[Weights, str | dict[str, str]]:
    """Weights of a profile, if there is one, beside those that are given, and whence they are."""
    if learnt is None:
        if topic is not None:
            raise click.UsageError("--topic is of what a profile knows; give --profile FILE")
        return given, where
    weights = Weights.from_micro({**learnt.about(topic), **given})
    if isinstance(where, str):
        return weights, where
    own = {name: source for name, source in learnt.sources.items() if name in weights and name not in given}
    return weights, {**own, **where}


def _names(texts: Sequence[str]) -> set[str]:
    """Names in NAME=NUMBER texts, well-formed or not."""
    return {item.partition("=")[0].strip() for text in texts for item in text.split(",") if "=" in item}


def _weights(texts: Sequence[str], store: Path | None) -> tuple[Weights, tuple[str, ...]]:
    """Weights from NAME=NUMBER texts and, by the map of the store, from NAME=SHARE% of an adapter's effect; and who those are.

    Raises:
        WeightError: as `Weights` raises. RecipeError, EvaluationError: as `Surface.beside` and `Surface.calibrated` raise.
    """
    if not any("%" in text for text in texts):
        return Weights(texts), ()
    from soupmix.store.manifest import shipped_root
    from soupmix.surface import Surface, shared

    items = [item.strip(" ") for text in texts for item in text.split(",")]
    Weights(
        [item.removesuffix("%") for item in items]
    )  # its sentences on names that come twice, and on what is no weight
    given = dict(item.split("=") for item in items)
    found = Surface.beside(store or shipped_root(), read_adapters(store)).read(given)
    for name in shared(given):
        weight = found.decimals()[name]
        click.echo(
            f"soupmix: note: {given[name]} of the effect of {name} alone is its weight {weight}, by the map", err=True
        )
    return found, shared(given)

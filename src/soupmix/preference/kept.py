"""A posterior as it is kept and carried elsewhere: its evidence and its prior, from which it follows."""

from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field

from soupmix.errors import PreferenceError
from soupmix.fields import Digest, Name, read_model
from soupmix.files import canonical_json
from soupmix.preference.posterior import PARTICLES, Posterior
from soupmix.preference.prior import Prior
from soupmix.preference.signal import MOST_SIGNALS, Signal
from soupmix.preference.traits import Trait, Traits

__all__ = ["MadeBy", "exported", "imported", "traits_kept", "translated"]

_LARGEST: Final = 32 << 20
Text = Annotated[str, Field(min_length=1, max_length=200)]
Number = Annotated[float, Field(allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True, slots=True)
class MadeBy:
    """What answers are made by: digests of the base and of the adapters of a set."""

    base: str
    adapters: frozenset[str]


class TraitFields(_Strict):
    """A `Trait` in a file."""

    name: Name
    key: Text
    centre: Number
    scale: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    log: bool


class TraitsFields(_Strict):
    """The `Traits` of a file."""

    traits: tuple[TraitFields, ...]
    of: Digest
    signed: bool

    def traits_of(self) -> Traits:
        """As they are used."""
        return Traits(tuple(Trait(**each.model_dump()) for each in self.traits), self.of, self.signed)


class WantsDocument(_Strict):
    """All that is known of what one person wants, as a file.

    Attributes:
        schema_version: 1.
        base, adapters: digests of what answers were made by, None and none where nobody said.
        traits: by which the answers were measured.
        prior: what was believed before; seed and particles: how it is computed.
        signals: the evidence.
    """

    schema_version: Annotated[int, Field(ge=1, le=1)]
    base: Digest | None = None
    adapters: Annotated[tuple[Digest, ...], Field(max_length=64)] = ()
    traits: TraitsFields
    prior: dict[str, Any]
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    particles: int
    signals: Annotated[tuple[Signal, ...], Field(max_length=MOST_SIGNALS)]


def exported(posterior: Posterior, made_by: MadeBy | None = None) -> bytes:
    """Everything that is known of a person, as canonical JSON; `imported` gives the same posterior, bit for bit."""
    by = {} if made_by is None else {"base": made_by.base, "adapters": sorted(made_by.adapters)}
    return canonical_json(
        {
            "schema_version": 1,
            **by,
            "traits": posterior.traits.to_dict(),
            "prior": posterior.prior.to_dict(),
            "seed": posterior.seed,
            "particles": posterior.particles,
            "signals": [each.to_dict() for each in posterior.signals],
        }
    )


def imported(raw: bytes, traits: Traits, *, made_by: MadeBy | None = None, translate: bool = False) -> Posterior:
    """The posterior of what `exported` wrote, or somebody else.

    Args:
        raw: the file.
        traits: what wants are about here.
        made_by: what answers are made by here. Evidence of the very same base and adapters is taken, and translated where only
            the map of what they do was fitted anew.
        translate: whether evidence of other adapters or another base may be taken, as far as the same was measured.

    Raises:
        PreferenceError: it is no such file (reason "bad-wants"), of other traits ("other-traits"), or a signal is refused.
    """
    document = _read(raw)
    theirs = document.traits.traits_of()
    same = theirs.digest == traits.digest
    alike = made_by is not None and made_by == MadeBy(document.base or "", frozenset(document.adapters))
    prior = Prior.read(document.prior) if same else Prior()  # a population is of its traits
    posterior = Posterior(traits, prior, particles=document.particles if same else PARTICLES, seed=document.seed)
    if same:
        posterior.learn(*document.signals)
    elif translate or alike:
        posterior.learn(*(translated(each, theirs, traits) for each in document.signals))
    else:
        raise PreferenceError(
            f"this evidence is of {theirs.of[:19]}... by other traits than those of {traits.of[:19]}...; say that it may be "
            "translated, or start anew",
            reason="other-traits",
        )
    return posterior


def traits_kept(raw: bytes) -> Traits:
    """The traits by which the answers of a file were measured. Raises `PreferenceError` as `imported`."""
    return _read(raw).traits.traits_of()


def _read(raw: bytes) -> WantsDocument:
    if len(raw) > _LARGEST:
        raise PreferenceError(f"what is known of a person is at most {_LARGEST >> 20} MiB", reason="bad-wants")
    try:
        return read_model(WantsDocument, raw)
    except ValueError as error:
        raise PreferenceError(f"this is not what is known of a person: {error}", reason="bad-wants") from None


def translated(signal: Signal, theirs: Traits, ours: Traits) -> Signal:
    """A signal about answers of another base or other adapters, by traits here: what was measured of texts stays what it was.

    Raises:
        PreferenceError: the signal is not by `theirs`, or something that is wanted here was not measured there, or a cue is about
            something else (reason "other-traits").
    """
    if signal.traits != theirs.digest:
        raise PreferenceError(f"the signal {signal.id!r} is not by the traits that are said", reason="other-traits")
    there = {trait.key: trait.name for trait in theirs.axes}
    missing = [trait.name for trait in ours.axes if trait.key not in there]
    known = {there[trait.key]: trait.name for trait in ours.axes if trait.key in there}
    if missing or not signal.toward.keys() <= known.keys():
        lacking = ", ".join(missing) or ", ".join(sorted(signal.toward.keys() - known.keys()))
        raise PreferenceError(
            f"the signal {signal.id!r} cannot be translated: {lacking[:120]} was not measured by both; measure its answers again",
            reason="other-traits",
        )
    answers = tuple({name: each[own] for own, name in known.items()} for each in signal.answers)
    toward = {known[name]: share for name, share in signal.toward.items()}
    return signal.model_copy(update={"traits": ours.digest, "answers": answers, "toward": toward})

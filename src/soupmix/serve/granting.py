"""From what a request says to a grant: whose weights, which attributes count, and a record before anything else."""

from dataclasses import dataclass, replace

from soupmix.audit import Record
from soupmix.errors import PolicyRefusal, RecipeError, SoupmixError
from soupmix.openai.answers import SoupAnswer
from soupmix.openai.errors import HttpError
from soupmix.openai.wire import SoupAsk
from soupmix.policy import Grant
from soupmix.serve.house import House
from soupmix.serve.people import person_of, recorded
from soupmix.serve.policies import InForce
from soupmix.serve.profiles import PREFIX, Draft
from soupmix.serve.telling import Telling
from soupmix.serve.tenants import Caller
from soupmix.weights import Weights

__all__ = ["Granted", "attributes_of", "draft_of", "look", "no_such_model", "serve"]


@dataclass(frozen=True, slots=True)
class Granted:
    """A grant that may be used: its answer for the client, and the salt of everything computed under it.

    Attributes:
        person: for whom, among the people of the tenant; None if nobody is named.
    """

    grant: Grant
    answer: SoupAnswer
    salt: str
    person: str | None = None


def serve(house: House, caller: Caller, model: str, soup: SoupAsk | None, user: str | None) -> Granted:
    """Grant what a request asks for, and record it; a refusal is recorded too.

    Args:
        model: the base, or "soup:" and a profile's id. user: whom the tenant asks for, or None.

    Raises:
        HttpError: 404, no such model (reason "no-such-model").
        SoupmixError: as `Policy.clamp` and `Policies.current` raise, or the audit log cannot be written.
    """
    profile, draft = _wanted(house, caller, model, soup)
    person = person_of(user, profile)
    who = None if person is None else recorded(caller, person)
    held = house.policies.current()
    try:
        granted = look(house, caller, draft, profile, held)
    except SoupmixError as error:
        house.metrics.grants.labels("refused").inc()
        if house.refusals is not None:
            house.refusals.record(caller.key, _refusal(error, held, draft, caller, who))
        raise
    house.metrics.grants.labels("clamped" if granted.grant.clamped else "full").inc()
    if house.audit is not None:
        house.audit.append(
            Record.of_grant(granted.grant, person=who, is_signed=held.signed, merge=granted.answer.merge)
        )
    return replace(granted, person=person)


def look(house: House, caller: Caller, draft: Draft, profile: str | None, held: InForce) -> Granted:
    """What is granted of a draft by this policy; nothing is recorded. Raises as `Policy.clamp` does."""
    telling = Telling(held.policy, caller.attributes)
    try:
        grant = held.policy.clamp(draft.weights, sources=draft.sources, **attributes_of(draft, caller))
    except PolicyRefusal as error:
        raise telling.refusal(error) from None
    salt = house.keys.salt(caller.tenant)
    identity = house.backend.identity(grant, house.settings.method, salt)
    answer = SoupAnswer.of(grant, profile=profile, signed=held.signed, method=house.settings.method, merge=identity)
    return Granted(grant, telling.answer(answer, grant), salt)


def draft_of(house: House, ask: SoupAsk, name: str | None = None) -> Draft:
    """What a request says of weights, parsed.

    Raises:
        RecipeError: more weights than this server takes (reason "too-many-adapters"). WeightError: a bad weight.
    """
    if len(ask.weights) > house.settings.adapters:
        raise RecipeError(
            f"{len(ask.weights)} weights are given; name at most {house.settings.adapters} adapters",
            reason="too-many-adapters",
        )
    return Draft(name, Weights.parse(ask.weights), ask.attributes, ask.sources)


def _wanted(house: House, caller: Caller, model: str, soup: SoupAsk | None) -> tuple[str | None, Draft]:
    """The profile that is named, if one is, and what is asked for."""
    ask = soup or SoupAsk()
    if model == house.settings.model:
        return None, draft_of(house, ask)
    if not model.startswith(PREFIX):
        raise no_such_model(model)
    if ask.weights or ask.sources:
        raise RecipeError(
            f"the weights are those of {PREFIX}<id>; give weights with model {house.settings.model!r} only",
            reason="two-soups",
        )
    try:
        profile = house.profiles.get(caller.tenant, model.removeprefix(PREFIX))
    except HttpError:
        raise no_such_model(model) from None
    held = profile.draft
    attributes = {**ask.attributes, **held.attributes}
    return profile.id, Draft(held.name, held.weights, attributes, held.sources or "stored")


def no_such_model(model: str) -> HttpError:
    """404 for a model that is not there, or not this tenant's."""
    return HttpError(
        f"there is no model {model[:80]!r}; see /v1/models", status=404, reason="no-such-model", param="model"
    )


def attributes_of(draft: Draft, caller: Caller) -> dict[str, str]:
    """What is so of the key counts, whatever the request or its profile says."""
    return {**draft.attributes, **caller.attributes}


def _refusal(error: SoupmixError, held: InForce, draft: Draft, caller: Caller, person: str | None) -> Record:
    return Record.of_refusal(
        error,
        person=person,
        requested=draft.weights,
        attributes=attributes_of(draft, caller),
        policy=held.policy,
        is_signed=held.signed,
    )

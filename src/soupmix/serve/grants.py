"""From what a request says to a grant: whose weights, which attributes count, and a record before anything else.

`/v1/clamp` and `/v1/ranges` say what would be granted, without asking for an answer.

A request is for a person, in the audit log and in the cache of prefixes. An application names its people by `user`, a profile is
somebody too, and the two never meet: a profile is "soup:<id>", and no user is called so. An API key is who is known for certain;
a name counts only together with the key that said it.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel
from starlette.requests import Request

from soupmix.audit import Record
from soupmix.errors import EvaluationError, PolicyRefusal, RecipeError, SoupmixError
from soupmix.files import digest_parts
from soupmix.modes import FULL, Mode, check_mode
from soupmix.openai.answers import SoupAnswer
from soupmix.openai.errors import HttpError, status_of
from soupmix.openai.wire import RangesAsk, SoupAsk, TurnSoupAsk
from soupmix.policy import Grant, Policy
from soupmix.serve.auth import authenticate, state_of
from soupmix.serve.disclosure import Disclosure
from soupmix.serve.evidence import Learning
from soupmix.serve.keys import Caller
from soupmix.serve.policies import InForce
from soupmix.serve.profiles import PREFIX, Draft, Profile
from soupmix.serve.responses import PROFILE, VALIDATED
from soupmix.serve.settling import Whose, learned, with_learned
from soupmix.serve.state import ServerState
from soupmix.serve.strict import StrictRoute
from soupmix.surface import shared
from soupmix.weights import Weights

__all__ = [
    "ClampAnswer",
    "Granted",
    "RangesAnswer",
    "attributes_of",
    "draft_of",
    "grant_for",
    "no_such_model",
    "person_of",
    "preview",
    "recorded",
    "router",
    "sharer",
    "whose",
]


_OTHER = "other"
"""A value with which a request says that it is none of those that documents name."""

router = APIRouter(route_class=StrictRoute)
_Caller = Annotated[Caller, Depends(authenticate)]


@dataclass(frozen=True, slots=True)
class Granted:
    """A grant that may be used: its answer for the client, and the salt of everything computed under it.

    Attributes:
        person: for whom, among the people of the tenant; None if nobody is named. mode: where the soup acts.
    """

    grant: Grant
    answer: SoupAnswer
    salt: str
    mode: Mode = FULL
    person: str | None = None


def grant_for(state: ServerState, caller: Caller, model: str, soup: TurnSoupAsk | None, user: str | None) -> Granted:
    """Grant what a request asks for, and record it; a refusal is recorded too.

    Args:
        model: the base, or "soup:" and a profile's id or name. user: whom the tenant asks for, or None.

    Raises:
        HttpError: 404, no such model (reason "no-such-model").
        SoupmixError: as `Policy.clamp` and `Policies.current` raise, or the audit log cannot be written.
    """
    profile, draft, learning = _wanted(state, caller, model, soup)
    person = person_of(user, profile)
    who = None if person is None else recorded(caller, person)
    held = state.policies.current()
    try:
        granted = preview(state, caller, draft, profile, held)
    except SoupmixError as error:
        state.metrics.grants.labels("refused").inc()
        if state.refusals is not None:
            state.refusals.record(caller.key, _refusal(error, held, draft, caller, who))
        raise
    state.metrics.grants.labels("clamped" if granted.grant.clamped else "full").inc()
    if state.audit is not None:
        state.audit.append(
            Record.of_grant(
                granted.grant, person=who, is_signed=held.signed, merge=granted.answer.merge, mode=draft.mode
            )
        )
    answer = granted.answer if learning is None else with_learned(granted.answer, learning)
    return replace(granted, person=person, answer=answer)


def preview(state: ServerState, caller: Caller, draft: Draft, profile: str | None, held: InForce) -> Granted:
    """What is granted of a draft by this policy; nothing is recorded. Raises as `Policy.clamp` does, and `check_mode`."""
    check_mode(draft.mode, state.backend.modes)
    _check_values(state, caller, draft, held.policy)
    disclosure = Disclosure(held.policy, caller.attributes)
    try:
        grant = held.policy._grant(draft.weights, attributes_of(draft, caller), draft.sources)
    except PolicyRefusal as error:
        raise disclosure.refusal(error) from None
    salt = state.keys.salt(caller.tenant)
    method, mode = state.settings.method, draft.mode
    identity = state.backend.identity(grant, method, salt, mode)
    answer = SoupAnswer.of(grant, profile=profile, signed=held.signed, method=method, merge=identity, mode=mode)
    return Granted(grant, disclosure.answer(answer, grant), salt, mode)


def _check_values(state: ServerState, caller: Caller, draft: Draft, policy: Policy) -> None:
    """Refuse attributes with values that neither the policy nor the operator names: misspelt, no rule for others would hold.

    The tenant is whoever the key is of, and has no value that could be misspelt in a request.
    """
    told, named = state.settings.values, policy.values
    for key, value in sorted(attributes_of(draft, caller).items()):
        known = named.get(key)
        if told is None or known is None or key == "tenant" or {value, "*"} & {*known, *told.get(key, ()), _OTHER}:
            continue
        heard = Disclosure(policy, caller.attributes).values().get(key, [])
        near = get_close_matches(value, heard, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it names {', '.join(heard) or 'others'}."
        whose = "of this key " if key in caller.attributes else ""
        raise RecipeError(
            f"the {key} {whose}is {value!r}, which no policy document names; {hint} Say {_OTHER} "
            f"for none of these; the operator can allow it with `soupmix serve --value {key}={value}`",
            reason="unnamed-value",
        )


def draft_of(state: ServerState, ask: SoupAsk, name: str | None = None) -> Draft:
    """What a request says of weights, parsed.

    Raises:
        RecipeError: more weights than this server takes (reason "too-many-adapters"), or no share. WeightError: a bad weight.
        HttpError: 400, a share of an effect that no map knows ("no-surface", or as `Surface.read` says).
    """
    if len(ask.weights) > state.settings.adapters:
        raise RecipeError(
            f"{len(ask.weights)} weights are given; name at most {state.settings.adapters} adapters",
            reason="too-many-adapters",
        )
    return Draft(name, _weights(state, ask.weights), ask.attributes, ask.sources, ask.mode)


def _weights(state: ServerState, given: Mapping[str, float | str]) -> Weights:
    """Weights from numbers and from shares of effects, such as "50%", where there is a map of them."""
    if not shared(given):
        return Weights(given)
    if state.surface is None:
        raise HttpError(
            "nobody has measured what half of an effect of these adapters is; give weights as numbers",
            status=400,
            reason="no-surface",
            param="weights",
        )
    try:
        return state.surface.read(given)
    except EvaluationError as error:
        raise HttpError(str(error), status=400, reason=error.reason, param="weights") from None


def _wanted(
    state: ServerState, caller: Caller, model: str, soup: TurnSoupAsk | None
) -> tuple[str | None, Draft, Learning | None]:
    """The profile that is named, if one is, what is asked for, and what of it was inferred."""
    ask = soup or TurnSoupAsk()
    if model == state.settings.model:
        if ask.topic is not None:
            raise RecipeError(f"weights of a topic are a profile's; ask with model {PREFIX}<id>", reason="no-profile")
        return None, draft_of(state, ask), None
    if not model.startswith(PREFIX):
        raise no_such_model(model)
    if ask.weights or ask.sources:
        raise RecipeError(
            f"the weights are those of {PREFIX}<id>; give weights with model {state.settings.model!r} only",
            reason="two-soups",
        )
    try:
        profile = state.profiles.find(caller.tenant, model.removeprefix(PREFIX))
    except HttpError:
        raise no_such_model(model) from None
    held, learning = learned(state, whose(state, caller, profile), ask.topic)
    attributes = {**ask.attributes, **held.attributes}
    mode = ask.mode if "mode" in ask.model_fields_set else held.mode
    return profile.id, Draft(held.name, held.weights, attributes, held.sources or "stored", mode), learning


def whose(state: ServerState, caller: Caller, profile: Profile) -> Whose:
    """A profile under the policy in force, for whoever has this key. Raises as `Policies.current`."""
    attributes = attributes_of(profile.draft, caller)
    person = recorded(caller, f"{PREFIX}{profile.id}")
    return Whose(caller.tenant, profile, state.policies.current(), attributes, person)


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


def person_of(user: str | None, profile: str | None) -> str | None:
    """The person among those of a tenant, by whichever name there is; None if nobody is named."""
    return user if user is not None else None if profile is None else f"{PREFIX}{profile}"


def recorded(caller: Caller, person: str) -> str:
    """A person as the audit log is told: people of two tenants are two people."""
    return f"{caller.tenant}/{person}"


def sharer(caller: Caller, person: str | None) -> str:
    """Who may go on from what was computed: this person under this key, and without keys whoever sits at this machine.

    Under a key that serves many, a request that names nobody could be anybody's: nothing of it is used again.
    """
    if person is None and caller.key:
        return f"request {secrets.token_hex(16)}"
    return digest_parts("soupmix.person.v1", {"key": caller.key, "person": person or ""})


class ClampAnswer(SoupAnswer):
    """`POST /v1/clamp`; `distance` is how far what was granted is from what was asked for, see `Grant`."""

    distance: str
    metric: str


class RangesAnswer(BaseModel):
    """`POST /v1/ranges`: the most of every adapter, under these attributes, if it alone is asked for."""

    attributes: dict[str, str]
    most: dict[str, str]


@router.post("/v1/clamp", responses={**VALIDATED, 403: PROFILE[403]})
def clamp(ask: SoupAsk, request: Request, caller: _Caller) -> ClampAnswer:
    """What the policy in force grants of these weights now, and why. Nothing is generated, stored or recorded."""
    state = state_of(request)
    held = state.policies.current()
    granted = preview(state, caller, draft_of(state, ask), None, held)
    return ClampAnswer(**dict(granted.answer), distance=granted.grant.distance, metric=held.policy.metric)


@router.post("/v1/ranges", responses=VALIDATED)
def ranges(ask: RangesAsk, request: Request, caller: _Caller) -> RangesAnswer:
    """The most that the policy in force grants of every adapter if it alone is asked for; 0 also if that is refused."""
    state = state_of(request)
    attributes = attributes_of(Draft(None, Weights({}), ask.attributes, {}), caller)
    held = state.policies.current().policy
    most = {each.name: _most(held, each.name, attributes) for each in state.adapters}
    return RangesAnswer(attributes=attributes, most=most)


def _most(policy: Policy, name: str, attributes: dict[str, str]) -> str:
    try:
        return policy._grant({name: 1}, attributes).granted.decimals().get(name, "0")
    except PolicyRefusal as refusal:
        if status_of(refusal) == 503:  # it says nothing about the adapter
            raise
        return "0"

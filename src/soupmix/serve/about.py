"""What a client may ask about the server: models, adapters, the policy, health, metrics."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from soupmix.errors import Overloaded, RecipeError, SoupmixError
from soupmix.openai.answers import PolicyName
from soupmix.openai.errors import HttpError
from soupmix.serve.auth import authenticate, operator, state_of
from soupmix.serve.disclosure import Disclosure
from soupmix.serve.grants import no_such_model, recorded
from soupmix.serve.keys import Caller
from soupmix.serve.profiles import PREFIX, Profile
from soupmix.serve.reload import reload_policy
from soupmix.serve.responses import CHANGED, GUARDED, OPEN, OPERATED, PROFILE
from soupmix.serve.state import ServerState
from soupmix.serve.strict import StrictRoute
from soupmix.store.manifest import ManifestEntry
from soupmix.weights import decimal_text

__all__ = ["router"]

router = APIRouter(route_class=StrictRoute)
_Caller = Annotated[Caller, Depends(authenticate)]
_User = Annotated[
    str,
    Path(
        alias="user", min_length=1, max_length=200, description="As requests name the person; soup:<id> for a profile"
    ),
]
_MOST_MODELS = 1000
_METRICS = "text/plain; version=0.0.4; charset=utf-8"


class ModelAnswer(BaseModel):
    """A model that may be named in a request: the base, or a profile as "soup:<id>" or "soup:<name>" with the base as its parent.

    `length` is the most tokens of prompt and answer together, `loop` how answers are computed beside each other: "running"
    (they join and leave between steps) or "padded" (they begin in rounds), as it is right for the base. `tools` says whether
    calls of tools are read from answers ("calls"), come back as text ("text"), or no tool can be told of at all (null).
    """

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    root: str
    parent: str | None
    length: int
    loop: str
    tools: Literal["calls", "text"] | None


class ModelsAnswer(BaseModel):
    """`GET /v1/models`."""

    object: Literal["list"] = "list"
    data: list[ModelAnswer]


class AdapterAnswer(BaseModel):
    """An adapter, and the least and most that the policy in force grants of it, whoever asks.

    Where it is not `servable`, `reason` and `why` are the code and the sentence with which a request for it is refused.
    """

    name: str
    digest: str
    dimension: str
    pole: str
    tags: list[str]
    licence: str
    least: str
    most: str
    servable: bool
    reason: str | None
    why: str | None


class AdaptersAnswer(BaseModel):
    """`GET /v1/adapters`."""

    object: Literal["list"] = "list"
    data: list[AdapterAnswer]


class RuleAnswer(BaseModel):
    """A rule of the policy in force, and why it is there, as its issuer tells it."""

    tier: str
    issuer: str
    rule: str
    scope: str
    refuses: bool
    public_reason: str | None


class PolicyAnswer(PolicyName):
    """`GET /v1/policy`: the rules that can apply to the caller; `attributes` are the values that their scopes name."""

    attributes: dict[str, list[str]]
    metric: str
    loaded: int
    expires: int | None
    last_day: str | None
    obligations: list[str]
    rules: list[RuleAnswer]


class ReloadAnswer(BaseModel):
    """What a reload did: the policy before, the one now, and remarks for its author."""

    before: str
    now: str
    notes: list[str]


class Status(BaseModel):
    """`GET /health` and `GET /ready`."""

    status: Literal["ok"]


@router.get("/v1/models", responses=GUARDED)
def models(request: Request, caller: _Caller) -> ModelsAnswer:
    """The base model, and the first thousand of the tenant's own profiles by id, then by name; `/v1/soups` has all."""
    state = state_of(request)
    found = state.profiles.page(caller.tenant, _MOST_MODELS)
    named = [(each, each.draft.name) for each in found if each.draft.name is not None]
    by_name = (_soup(state, each, name) for each, name in sorted(named, key=lambda pair: pair[1]))
    return ModelsAnswer(data=[_base(state), *(_soup(state, each, each.id) for each in found), *by_name])


@router.get("/v1/models/{model}", responses=PROFILE)
def model(
    request: Request, caller: _Caller, name: Annotated[str, Path(alias="model", min_length=1, max_length=300)]
) -> ModelAnswer:
    """One model."""
    state = state_of(request)
    if name == state.settings.model:
        return _base(state)
    if not name.startswith(PREFIX):
        raise no_such_model(name)
    try:
        found = state.profiles.find(caller.tenant, name.removeprefix(PREFIX))
        return _soup(state, found, name.removeprefix(PREFIX))
    except HttpError:
        raise no_such_model(name) from None


@router.get("/v1/adapters", responses=GUARDED)
def adapters(request: Request, caller: _Caller) -> AdaptersAnswer:
    """The adapters of the store, with what the policy grants of each at most, whoever asks, and whether requests can have it."""
    state = state_of(request)
    bounds, unserved = state.policies.held.policy.bounds(), state.backend.unserved
    return AdaptersAnswer(
        data=[_adapter(each, bounds.get(each.name, (0, 0)), unserved.get(each.name)) for each in state.adapters]
    )


@router.get("/v1/policy", responses=GUARDED)
def policy(request: Request, caller: _Caller) -> PolicyAnswer:
    """What of the policy in force can concern this caller, as far as its issuers tell it, and what it obliges to."""
    held = state_of(request).policies.held
    disclosure = Disclosure(held.policy, caller.attributes)
    fields = RuleAnswer.model_fields.keys() - {"rule", "scope"}
    return PolicyAnswer(
        digest=held.policy.digest,
        open=held.policy.is_open,
        signed=held.signed,
        attributes=disclosure.values(),
        metric=held.policy.metric,
        loaded=int(held.loaded.timestamp()),
        expires=int(held.expires.timestamp()) if held.expires else None,
        last_day=held.policy.last_day.isoformat() if held.policy.last_day else None,
        obligations=list(held.policy.obligations(caller.attributes)),
        rules=[
            RuleAnswer(
                rule=each.ref.id, scope=disclosure.scope(each), **{name: getattr(each.ref, name) for name in fields}
            )
            for each in disclosure.rules()
        ],
    )


@router.post("/v1/policy/reload", responses={**OPERATED, 409: CHANGED[409]})
def reload(request: Request, caller: Annotated[Caller, Depends(operator)]) -> ReloadAnswer:
    """Read the policy again; a new one that is wrong changes nothing, and the answer is 409 with what is wrong."""
    state = state_of(request)
    done = reload_policy(state)
    return ReloadAnswer(before=done.before, now=done.now, notes=list(done.notes))


@router.delete("/v1/people/{user}", status_code=204, responses={**OPERATED, **PROFILE})
def forget(request: Request, caller: Annotated[Caller, Depends(operator)], name: _User) -> None:
    """Destroy the key of one of the tenant's people in the audit log: no record can be linked to them any more."""
    state = state_of(request)
    if state.audit is None or not state.audit.erase(recorded(caller, name)):
        raise HttpError("nobody of that name is in the audit log", status=404, reason="no-such-person", param="user")


@router.get("/health", responses=OPEN)
def health(request: Request) -> Status:
    """Whether answers can be made at all; if not, this process should be ended."""
    if not state_of(request).backend.state().alive:
        raise SoupmixError("the engine has stopped; start the server again", reason="stopped")
    return Status(status="ok")


@router.get("/ready", responses=OPEN)
def ready(request: Request) -> Status:
    """Whether requests should be sent here now."""
    state = state_of(request)
    if state.closing.is_set():
        raise Overloaded("the server is closing", reason="draining", retry_after=5.0)
    state.policies.current()
    return health(request)


@router.get("/metrics", response_class=Response, responses={**OPERATED, 200: {"content": {"text/plain": {}}}})
def metrics(request: Request, caller: Annotated[Caller, Depends(operator)]) -> Response:
    """Prometheus metrics, for an operator's key."""
    return Response(state_of(request).metrics.text(), media_type=_METRICS)


def _adapter(entry: ManifestEntry, bounds: tuple[int, int], refusal: RecipeError | None) -> AdapterAnswer:
    return AdapterAnswer(
        name=entry.name,
        digest=entry.digest,
        dimension=entry.dimension,
        pole=entry.pole,
        tags=list(entry.tags),
        licence=entry.licence,
        least=decimal_text(bounds[0]),
        most=decimal_text(bounds[1]),
        servable=refusal is None,
        reason=None if refusal is None else refusal.reason,
        why=None if refusal is None else str(refusal),
    )


def _base(state: ServerState) -> ModelAnswer:
    name = state.settings.model
    return ModelAnswer(id=name, created=state.started, owned_by="soupmix", root=name, parent=None, **_how(state))


def _soup(state: ServerState, profile: Profile, called: str) -> ModelAnswer:
    """A profile by its id or its name."""
    name, made = state.settings.model, profile.created
    return ModelAnswer(id=f"{PREFIX}{called}", created=made, owned_by="tenant", root=name, parent=name, **_how(state))


def _how(state: ServerState) -> dict[str, Any]:
    use = state.backend.tool_use
    tools = None if not use.told else "text" if use.form is None else "calls"
    return {"length": state.backend.limits.length, "loop": state.backend.state().loop, "tools": tools}

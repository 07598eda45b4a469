"""`/v1/soups`: a tenant's named profiles."""

import re
from dataclasses import replace
from typing import Annotated, Literal

import yaml
from fastapi import APIRouter, Depends, Header, Path, Query, Response
from pydantic import BaseModel
from starlette.requests import Request

from soupmix.fields import ShortLine
from soupmix.modes import FULL, Mode
from soupmix.openai.answers import SoupAnswer
from soupmix.openai.errors import HttpError
from soupmix.openai.wire import SoupAsk, Weights
from soupmix.serve.auth import authenticate, state_of
from soupmix.serve.grants import draft_of, preview, whose
from soupmix.serve.keys import Caller
from soupmix.serve.profiles import PREFIX, Draft, Profile
from soupmix.serve.responses import CHANGED, PROFILE, VALIDATED
from soupmix.serve.settling import learned, with_learned
from soupmix.serve.state import ServerState
from soupmix.serve.strict import StrictRoute

__all__ = ["IfMatch", "ProfileId", "router", "version_of"]

router = APIRouter(prefix="/v1/soups", route_class=StrictRoute)

_Caller = Annotated[Caller, Depends(authenticate)]
ProfileId = Annotated[str, Path(alias="id", min_length=1, max_length=64, description="A profile's id")]
IfMatch = Annotated[str | None, Header(description="The ETag of the version that is to be changed, or *")]
_IfNoneMatch = Annotated[str | None, Header(description="The ETag of the version that is known already")]
_MOST = 1000


class ProfileAsk(SoupAsk):
    """A named profile, as it is created or replaced."""

    name: ShortLine | None = None
    weights: Weights


class ProfileAnswer(BaseModel):
    """A profile as it is stored: what was asked for, not what a policy grants of it."""

    id: str
    object: Literal["soup"] = "soup"
    model: str
    name: str | None
    weights: dict[str, str]
    attributes: dict[str, str]
    sources: str | dict[str, str]
    mode: Mode
    created: int
    changed: int


class ProfilesAnswer(BaseModel):
    """A page of profiles, ordered by id; `has_more` says whether to ask again with `after`."""

    object: Literal["list"] = "list"
    data: list[ProfileAnswer]
    has_more: bool


@router.post("", status_code=201, responses=CHANGED)
def create(ask: ProfileAsk, request: Request, response: Response, caller: _Caller) -> ProfileAnswer:
    """Store a profile. What the policy would refuse altogether is not stored; what it narrows is stored as asked."""
    state = state_of(request)
    draft = _checked(state, caller, ask)
    made = state.profiles.create(caller.tenant, draft)
    response.headers["ETag"], response.headers["Location"] = _tag(made), f"/v1/soups/{made.id}"
    return _answer(made)


@router.get("", responses=VALIDATED)
def page(
    request: Request,
    caller: _Caller,
    limit: Annotated[int, Query(ge=1, le=_MOST)] = 100,
    after: Annotated[str, Query(max_length=64, description="Only ids behind this one")] = "",
) -> ProfilesAnswer:
    """The tenant's profiles, ordered by id."""
    found = state_of(request).profiles.page(caller.tenant, limit + 1, after)
    return ProfilesAnswer(data=[_answer(each) for each in found[:limit]], has_more=len(found) > limit)


@router.get("/{id}", response_model=ProfileAnswer, responses={**PROFILE, 304: {"description": "Known already"}})
def read(
    request: Request, response: Response, caller: _Caller, id_: ProfileId, if_none_match: _IfNoneMatch = None
) -> ProfileAnswer | Response:
    """A profile as it is stored."""
    found = state_of(request).profiles.get(caller.tenant, id_)
    if if_none_match is not None and _tag(found) in _tags(if_none_match):
        return Response(status_code=304, headers={"ETag": _tag(found)})
    response.headers["ETag"] = _tag(found)
    return _answer(found)


@router.put("/{id}", responses=CHANGED)
def change(
    ask: ProfileAsk, request: Request, response: Response, caller: _Caller, id_: ProfileId, if_match: IfMatch = None
) -> ProfileAnswer:
    """Replace a profile: the version that If-Match names, or whichever it is."""
    state = state_of(request)
    made = state.profiles.change(caller.tenant, id_, _checked(state, caller, ask), version_of(if_match))
    response.headers["ETag"] = _tag(made)
    return _answer(made)


@router.delete("/{id}", status_code=204, responses=CHANGED)
def delete(request: Request, caller: _Caller, id_: ProfileId, if_match: IfMatch = None) -> None:
    """Delete a profile: the version that If-Match names, or whichever it is."""
    state_of(request).profiles.delete(caller.tenant, id_, version_of(if_match))


@router.get("/{id}/grant", responses=PROFILE)
def grant(
    request: Request,
    caller: _Caller,
    id_: ProfileId,
    topic: Annotated[str | None, Query(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")] = None,
) -> SoupAnswer:
    """What the policy in force grants of a profile now, of a topic if one is named, and why. Nothing is generated or recorded."""
    state = state_of(request)
    own = whose(state, caller, state.profiles.get(caller.tenant, id_))
    draft, learning = learned(state, own, topic)
    return with_learned(preview(state, caller, draft, id_, own.held).answer, learning)


@router.get(
    "/{id}/export",
    response_class=Response,
    responses={**PROFILE, 200: {"content": {"application/yaml": {"schema": {"type": "object"}}}}},
)
def export(request: Request, caller: _Caller, id_: ProfileId) -> Response:
    """A profile as a recipe that `soupmix merge` takes, with inferred weights, and everything that is stored of it."""
    state = state_of(request)
    found = state.profiles.get(caller.tenant, id_)
    draft, _ = learned(state, whose(state, caller, found))
    found = replace(found, draft=draft)
    headers = {"Content-Disposition": 'attachment; filename="recipe.yaml"'}
    return Response(_recipe(found), media_type="application/yaml", headers=headers)


def _checked(state: ServerState, caller: Caller, ask: ProfileAsk) -> Draft:
    """The draft, if the policy in force grants anything of it. Raises as `Policy.clamp` does."""
    draft = draft_of(state, ask, ask.name)
    preview(state, caller, draft, None, state.policies.current())
    return draft


def _answer(profile: Profile) -> ProfileAnswer:
    draft = profile.draft
    return ProfileAnswer(
        id=profile.id,
        model=f"{PREFIX}{profile.id}",
        name=draft.name,
        weights=draft.weights.decimals(),
        attributes=dict(draft.attributes),
        sources=draft.sources if isinstance(draft.sources, str) else dict(draft.sources),
        mode=draft.mode,
        created=profile.created,
        changed=profile.changed,
    )


def _recipe(profile: Profile) -> str:
    draft = profile.draft
    notes = {"id": profile.id, "name": draft.name, "created": profile.created, "changed": profile.changed}
    sources = draft.sources if isinstance(draft.sources, str) else dict(draft.sources)
    mode = None if draft.mode == FULL else draft.mode  # a merge refuses any other: it acts on every token
    more = {"attributes": dict(draft.attributes), "sources": sources, "mode": mode}
    content = {"weights": draft.weights.decimals(), **{key: value for key, value in more.items() if value}}
    said = "".join(f"# {key}: {value}\n" for key, value in notes.items() if value is not None)
    return said + yaml.safe_dump(content, sort_keys=True)


def _tag(profile: Profile) -> str:
    return f'"{profile.version}"'


def _tags(header: str) -> list[str]:
    return [each.strip().removeprefix("W/") for each in header.split(",")]


def version_of(header: str | None) -> int | None:
    """The version that If-Match names; None is whichever. Raises `HttpError` 412 for what no version can be."""
    if header is None or header.strip() == "*":
        return None
    match = re.fullmatch(r'"([0-9]{1,9})"', header.strip(), re.ASCII)
    if match is None:
        raise HttpError(
            "If-Match names no version that this profile ever had; send the ETag of a read",
            status=412,
            reason="changed-meanwhile",
        )
    return int(match[1])

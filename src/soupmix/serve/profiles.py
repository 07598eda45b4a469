"""Profiles: a tenant's named weights. Every statement names tenant and id together, so what is another's does not exist."""

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Engine, Row, and_, func, insert, select
from sqlalchemy.exc import IntegrityError

from soupmix.modes import FULL, Mode
from soupmix.openai.errors import HttpError
from soupmix.serve.tables import PROFILES
from soupmix.weights import Weights

__all__ = ["PREFIX", "Draft", "Profile", "Profiles"]

PREFIX = "soup:"
"""What stands before a profile's id where a model is named."""

_ID_BYTES = 18


@dataclass(frozen=True, slots=True)
class Draft:
    """What a tenant says of a profile.

    Attributes:
        name: for the tenant's own use, once per tenant, or None. weights: as asked for; every use is granted anew.
        attributes, sources: see `soupmix.policy.Policy.clamp`. mode: where the soup acts, see `soupmix.modes`.
    """

    name: str | None
    weights: Weights
    attributes: Mapping[str, str]
    sources: str | Mapping[str, str]
    mode: Mode = FULL


@dataclass(frozen=True, slots=True)
class Profile:
    """A stored profile. `version` counts its changes; times are seconds since 1970."""

    id: str
    draft: Draft
    version: int
    created: int
    changed: int


class Profiles:
    """The profiles of all tenants. Safe to share between threads; what a method has returned is on the disk."""

    def __init__(self, database: Engine, most: int) -> None:
        """A tenant has at most `most` profiles."""
        self._database, self._most = database, most

    def create(self, tenant: str, draft: Draft) -> Profile:
        """Store a new profile under an id that nobody can guess.

        Raises:
            HttpError: 409, the name is taken ("name-taken") or there are too many ("too-many-profiles").
        """
        now = int(time.time())
        made = Profile(secrets.token_urlsafe(_ID_BYTES), draft, 1, now, now)
        with self._database.begin() as connection:
            held = connection.scalar(select(func.count()).where(PROFILES.c.tenant == tenant))
            if (held or 0) >= self._most:
                raise HttpError(
                    f"there are {held} profiles already, and {self._most} is the most; delete some first",
                    status=409,
                    reason="too-many-profiles",
                )
            try:
                connection.execute(
                    insert(PROFILES).values(tenant=tenant, id=made.id, version=1, created=now, **_columns(draft, now))
                )
            except IntegrityError:
                raise _taken(draft) from None
        return made

    def get(self, tenant: str, profile: str) -> Profile:
        """One profile. Raises `HttpError`: 404, this tenant has none of that id (reason "no-such-profile")."""
        with self._database.connect() as connection:
            row = connection.execute(select(PROFILES).where(_at(tenant, profile))).first()
        if row is None:
            raise HttpError(f"there is no profile {profile[:80]!r}", status=404, reason="no-such-profile")
        return _profile(row)

    def find(self, tenant: str, text: str) -> Profile:
        """The profile of that id, else of that name. Raises as `get` does."""
        try:
            return self.get(tenant, text)
        except HttpError:
            named = and_(PROFILES.c.tenant == tenant, PROFILES.c.name == text)
            with self._database.connect() as connection:
                row = connection.execute(select(PROFILES).where(named)).first()
            if row is None:
                raise
            return _profile(row)

    def page(self, tenant: str, limit: int, after: str = "") -> list[Profile]:
        """Up to `limit` profiles with ids behind `after`, ordered by id."""
        wanted = select(PROFILES).where(PROFILES.c.tenant == tenant, PROFILES.c.id > after)
        with self._database.connect() as connection:
            return [_profile(row) for row in connection.execute(wanted.order_by(PROFILES.c.id).limit(limit))]

    def change(self, tenant: str, profile: str, draft: Draft, version: int | None) -> Profile:
        """Replace what a profile says.

        Args:
            version: which one is replaced; None, whichever it is.

        Raises:
            HttpError: 404 as `get`; 412, it is another version by now ("changed-meanwhile"); 409, the name is taken.
        """
        change = (
            PROFILES.update()
            .where(_at(tenant, profile, version))
            .values(version=PROFILES.c.version + 1, **_columns(draft, int(time.time())))
            .returning(PROFILES)
        )
        with self._database.begin() as connection:
            try:
                row = connection.execute(change).first()
            except IntegrityError:
                raise _taken(draft) from None
        return _profile(row) if row is not None else self._changed(tenant, profile)

    def delete(self, tenant: str, profile: str, version: int | None) -> None:
        """Delete a profile. Raises `HttpError` as `change` does."""
        with self._database.begin() as connection:
            gone = connection.execute(PROFILES.delete().where(_at(tenant, profile, version))).rowcount
        if not gone:
            self._changed(tenant, profile)

    def _changed(self, tenant: str, profile: str) -> Profile:
        self.get(tenant, profile)
        raise HttpError(
            f"profile {profile[:80]!r} is not the version that If-Match names; read it again",
            status=412,
            reason="changed-meanwhile",
        )


def _at(tenant: str, profile: str, version: int | None = None) -> ColumnElement[bool]:
    here = and_(PROFILES.c.tenant == tenant, PROFILES.c.id == profile)
    return here if version is None else and_(here, PROFILES.c.version == version)


def _columns(draft: Draft, now: int) -> dict[str, Any]:
    sources = draft.sources if isinstance(draft.sources, str) else dict(draft.sources)
    return {
        "name": draft.name,
        "weights": dict(draft.weights),
        "attributes": dict(draft.attributes),
        "sources": sources,
        "mode": draft.mode,
        "changed": now,
    }


def _profile(row: Row[Any]) -> Profile:
    draft = Draft(row.name, Weights.from_micro(row.weights), row.attributes, row.sources, row.mode)
    return Profile(row.id, draft, row.version, row.created, row.changed)


def _taken(draft: Draft) -> HttpError:
    return HttpError(f"there is a profile named {draft.name!r} already", status=409, reason="name-taken", param="name")

"""Who calls: API keys of tenants. The database holds SHA-256 digests of random keys, so nothing to log in with."""

import hmac
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256

from sqlalchemy import Engine, func, insert, select, update

from soupmix.errors import RecipeError
from soupmix.openai.errors import HttpError
from soupmix.policy.rules import check_attributes
from soupmix.serve.tables import KEYS, SECRETS

__all__ = ["ApiKey", "ApiKeys", "Caller"]

_KEY = re.compile(r"sk-soupmix-([0-9a-f]{16})-([A-Za-z0-9_-]{43})")
_NOBODY = "0" * 64


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls.

    Attributes:
        tenant: whose profiles are seen; "" if nobody needs a key.
        attributes: what is so, whatever a request says about itself.
        operator: may reload the policy and read the metrics.
        key: id of the key that was called with; "" if nobody needs one.
    """

    tenant: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    operator: bool = False
    key: str = ""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it is known: never the key itself. Times are seconds since 1970; `revoked` is None while it is good."""

    id: str
    caller: Caller
    created: int
    revoked: int | None


class ApiKeys:
    """All keys. Safe to share between threads; a key that was revoked is refused from then on."""

    def __init__(self, database: Engine) -> None:
        self._database = database

    def create(self, tenant: str, attributes: Mapping[str, str] | None = None, *, operator: bool = False) -> str:
        """Make a key, and return it: the only time that it can be read.

        Args:
            attributes: what is so of every request with this key; the tenant always is.

        Raises:
            RecipeError: no such attribute, or no value of one (reasons of `Policy.clamp`).
        """
        if tenant != (attributes or {}).get("tenant", tenant):
            raise RecipeError("the attribute tenant is the key's tenant; leave it out", reason="bad-attribute")
        fixed = {**(attributes or {}), "tenant": tenant}
        check_attributes(fixed)
        name, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
        with self._database.begin() as connection:
            connection.execute(
                insert(KEYS).values(
                    id=name,
                    digest=_digest(secret),
                    tenant=tenant,
                    operator=operator,
                    attributes=fixed,
                    created=int(time.time()),
                )
            )
        return f"sk-soupmix-{name}-{secret}"

    def list(self) -> list[ApiKey]:
        """All keys, oldest first."""
        with self._database.connect() as connection:
            rows = connection.execute(select(KEYS).order_by(KEYS.c.created, KEYS.c.id))
            return [
                ApiKey(row.id, Caller(row.tenant, row.attributes, row.operator, row.id), row.created, row.revoked)
                for row in rows
            ]

    def revoke(self, name: str) -> None:
        """Refuse a key from now on. Raises `RecipeError`: there is no such key (reason "no-such-key")."""
        change = update(KEYS).where(KEYS.c.id == name).values(revoked=func.coalesce(KEYS.c.revoked, int(time.time())))
        with self._database.begin() as connection:
            found = connection.execute(change).rowcount
        if not found:
            raise RecipeError(f"there is no key {name!r}; see `soupmix serve keys list`", reason="no-such-key")

    def any(self) -> bool:
        """Whether there is a key to call with."""
        with self._database.connect() as connection:
            return connection.execute(select(KEYS.c.id).where(KEYS.c.revoked.is_(None)).limit(1)).first() is not None

    def caller(self, key: str) -> Caller:
        """Who has this key. It is found by its public part; its secret part is compared as a digest, in constant time.

        Raises:
            HttpError: 401, it is none, or revoked (reason "bad-key").
        """
        match = _KEY.fullmatch(key)
        name, secret = match.groups() if match else ("", "")
        with self._database.connect() as connection:
            row = connection.execute(select(KEYS).where(KEYS.c.id == name)).first()
        right = hmac.compare_digest(_digest(secret), row.digest if row is not None else _NOBODY)
        if row is None or not right or row.revoked is not None:
            raise HttpError("this API key is not known; ask whoever runs this server", status=401, reason="bad-key")
        return Caller(row.tenant, row.attributes, row.operator, row.id)

    def salt(self, tenant: str) -> str:
        """What keeps this tenant's caches apart, and its merge identities from being guessed: keyed by a secret."""
        with self._database.connect() as connection:
            secret = connection.scalar(select(SECRETS.c.value).where(SECRETS.c.name == "salt"))
        return hmac.digest(bytes.fromhex(secret or ""), tenant.encode(), "sha256").hex()


def _digest(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()

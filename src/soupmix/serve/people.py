"""Whom a request is for: in the audit log, and in the cache of prefixes.

An application names its people by `user`, a profile is somebody too, and the two never meet: a profile is "soup:<id>", and
no user is called so. An API key is who is known for certain; a name counts only together with the key that said it.
"""

import secrets

from soupmix.files import digest_parts
from soupmix.serve.profiles import PREFIX
from soupmix.serve.tenants import Caller

__all__ = ["person_of", "recorded", "sharer"]


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

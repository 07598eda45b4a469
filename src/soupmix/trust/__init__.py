"""Who says so: signed sets of policy documents, signed provenance, signatures that others can check.

What needs the extra `trust` is imported on first use, so everything that signs nothing works without it.
"""

import importlib
from typing import TYPE_CHECKING, Any

from soupmix.errors import SoupmixError

if TYPE_CHECKING:
    from soupmix.trust.dsse import Envelope, signed_resources
    from soupmix.trust.keys import generate_key, read_private, read_public, sign_envelope, verify_envelope
    from soupmix.trust.metadata import describe
    from soupmix.trust.openssf import load_model_key, sign_folder, sign_model
    from soupmix.trust.sets import SignedSet, SignedSource, read_set
    from soupmix.trust.signed import SignedPolicy, load_signed
    from soupmix.trust.step import Lifetimes, RoleKeys
    from soupmix.trust.writing import create, publish, renew, rotate

__all__ = [
    "Envelope",
    "Lifetimes",
    "RoleKeys",
    "SignedPolicy",
    "SignedSet",
    "SignedSource",
    "create",
    "describe",
    "generate_key",
    "load_model_key",
    "load_signed",
    "publish",
    "read_private",
    "read_public",
    "read_set",
    "renew",
    "rotate",
    "sign_envelope",
    "sign_folder",
    "sign_model",
    "signed_resources",
    "verify_envelope",
]

_HOMES = {
    "Envelope": "dsse",
    "Lifetimes": "step",
    "RoleKeys": "step",
    "SignedPolicy": "signed",
    "SignedSet": "sets",
    "SignedSource": "sets",
    "create": "writing",
    "describe": "metadata",
    "generate_key": "keys",
    "load_model_key": "openssf",
    "load_signed": "signed",
    "publish": "writing",
    "read_private": "keys",
    "read_public": "keys",
    "read_set": "sets",
    "renew": "writing",
    "rotate": "writing",
    "sign_envelope": "keys",
    "sign_folder": "openssf",
    "sign_model": "openssf",
    "signed_resources": "dsse",
    "verify_envelope": "keys",
}
_EXTRA = {"cryptography", "securesystemslib", "tuf"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        raise SoupmixError(
            f"signing and checking signatures need {error.name}, which is not installed: pip install 'soupmix[trust]'",
            reason="no-trust-extra",
        ) from error

"""soupmix: one language model for many people, a LoRA soup per person, clamped by policy.

Names are imported on first use, so `import soupmix` costs nothing and policies can be audited without torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

from soupmix.version import __version__ as __version__

if TYPE_CHECKING:
    from soupmix.base import Base
    from soupmix.base import resolve as resolve_base
    from soupmix.engine import Completion, Engine, Sampling
    from soupmix.merge import Soup, merge, verify
    from soupmix.policy import Grant, Policy
    from soupmix.store import Store
    from soupmix.weights import Weights

__all__ = [
    "Base",
    "Completion",
    "Engine",
    "Grant",
    "Policy",
    "Sampling",
    "Soup",
    "Store",
    "Weights",
    "merge",
    "resolve_base",
    "verify",
]

_HOMES = {
    "Base": ("base", "Base"),
    "Completion": ("engine", "Completion"),
    "Engine": ("engine", "Engine"),
    "Grant": ("policy", "Grant"),
    "Policy": ("policy", "Policy"),
    "Sampling": ("engine", "Sampling"),
    "Soup": ("merge", "Soup"),
    "Store": ("store", "Store"),
    "Weights": ("weights", "Weights"),
    "resolve_base": ("base", "resolve"),
    "verify": ("merge", "verify"),
}


def __getattr__(name: str) -> Any:
    if name == "merge":
        return importlib.import_module("soupmix.merge")  # a room that can be called, see there
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    room, attribute = _HOMES[name]
    return getattr(importlib.import_module(f"{__name__}.{room}"), attribute)

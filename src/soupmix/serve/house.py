"""Everything that a request needs, in one place."""

import threading
from dataclasses import dataclass, field
from typing import Final

from soupmix.audit import AuditLog
from soupmix.backends import Backend
from soupmix.serve.bodies import Bodies
from soupmix.serve.metrics import Metrics
from soupmix.serve.policies import Policies
from soupmix.serve.profiles import Profiles
from soupmix.serve.refusals import Refusals
from soupmix.serve.settings import Settings
from soupmix.serve.shares import Shares
from soupmix.serve.tenants import Keys
from soupmix.store.manifest import Entry

__all__ = ["OPEN_PATHS", "House"]

OPEN_PATHS: Final = ("/health", "/ready")
"""Answered to everybody, and while the server ends."""


@dataclass(frozen=True, slots=True)
class House:
    """A server without its HTTP.

    Attributes:
        adapters: entries of the store that the engine holds. audit, refusals: None if no log is kept.
        started: seconds since 1970. closing: set once nothing new is taken.
    """

    settings: Settings
    backend: Backend
    adapters: tuple[Entry, ...]
    policies: Policies
    profiles: Profiles
    keys: Keys
    metrics: Metrics
    audit: AuditLog | None
    refusals: Refusals | None
    started: int
    shares: Shares
    bodies: Bodies
    closing: threading.Event = field(default_factory=threading.Event)

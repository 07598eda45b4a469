"""What may be merged, how much, for whom: documents of three tiers, an exact clamp, and grants. No torch."""

from soupmix.policy.documents import TIERS, Document
from soupmix.policy.grant import Grant
from soupmix.policy.known import AdapterRef
from soupmix.policy.reading import parse_document
from soupmix.policy.recorded import Binding
from soupmix.policy.rulebook import Policy
from soupmix.policy.rules import ATTRIBUTES, SOURCES

__all__ = [
    "ATTRIBUTES",
    "SOURCES",
    "TIERS",
    "AdapterRef",
    "Binding",
    "Document",
    "Grant",
    "Policy",
    "parse_document",
]

"""What may be merged, how much, for whom: documents of three tiers, an exact clamp, and grants. No torch."""

from soupmix.policy.documents import ATTRIBUTES, TIERS, Document
from soupmix.policy.grant import Binding, Grant
from soupmix.policy.known import AdapterRef
from soupmix.policy.reading import parse_document
from soupmix.policy.rulebook import Policy

__all__ = ["ATTRIBUTES", "TIERS", "AdapterRef", "Binding", "Document", "Grant", "Policy", "parse_document"]

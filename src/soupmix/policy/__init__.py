"""What may be merged, how much, for whom: documents of three tiers, an exact clamp, and grants. No torch."""

from soupmix.policy.adapters import AdapterRef
from soupmix.policy.assembly import ScopedRule
from soupmix.policy.documents import TIERS, Document, RuleRef
from soupmix.policy.feasible import FeasibleSet
from soupmix.policy.grant import Grant
from soupmix.policy.parsing import parse_document
from soupmix.policy.policy import Policy
from soupmix.policy.recorded import Binding
from soupmix.policy.rules import ATTRIBUTES, SOURCES

__all__ = [
    "ATTRIBUTES",
    "SOURCES",
    "TIERS",
    "AdapterRef",
    "Binding",
    "Document",
    "FeasibleSet",
    "Grant",
    "Policy",
    "RuleRef",
    "ScopedRule",
    "parse_document",
]

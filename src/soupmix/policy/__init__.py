"""What may be merged, how much, for whom: documents of three tiers, an exact clamp, and grants. No torch.

spec         what is feasible under which documents, exact and slow: begin here
documents    a document, its rules in their places, its JSON Schema; parsed by `parsing`, its parts in `rules`, `obligations`
adapters     the adapters that a policy knows, from a store or from approvals; `inventory`: what a signed set says
translate    from rules to constraints of `soupmix.projection`; `assembly` does it for all documents
kinds        requests to which the same constraints apply, and their feasible sets
policy       `Policy`: load, clamp, feasible; `feasible` is the set, `grant` what a clamp gives, `recorded` what is kept of it
term         how long a policy holds, by the `clock`; its identity is in `digest`
compare      whether one policy lets through more than another; `cases` are tests that authors of policies write
recent       a bounded memory

`time_budget` bounds how long all that is asked of policies inside it may take together.
"""

from soupmix.policy.adapters import AdapterRef
from soupmix.policy.assembly import ScopedRule
from soupmix.policy.documents import TIERS, Document, RuleRef
from soupmix.policy.feasible import FeasibleSet
from soupmix.policy.grant import Grant
from soupmix.policy.parsing import parse_document
from soupmix.policy.policy import Policy
from soupmix.policy.recorded import Binding, DocumentRef, Metric
from soupmix.policy.rules import ATTRIBUTES, SOURCES
from soupmix.projection.time_budget import time_budget

__all__ = [
    "ATTRIBUTES",
    "SOURCES",
    "TIERS",
    "AdapterRef",
    "Binding",
    "Document",
    "DocumentRef",
    "FeasibleSet",
    "Grant",
    "Metric",
    "Policy",
    "RuleRef",
    "ScopedRule",
    "parse_document",
    "time_budget",
]

"""The audit log: who asked for what and what was granted, in a chain that shows every later change."""

from soupmix.audit.keys import Signer, Verifier
from soupmix.audit.log import AuditLog, Receipt
from soupmix.audit.notes import Checkpoint
from soupmix.audit.opening import newest_checkpoint
from soupmix.audit.people import pseudonym
from soupmix.audit.proofs import Consistency, Inclusion, prove_consistency, prove_inclusion
from soupmix.audit.records import EVENTS, Record
from soupmix.audit.verdict import LogVerdict, verify
from soupmix.audit.walk import read_records

__all__ = [
    "EVENTS",
    "AuditLog",
    "Checkpoint",
    "Consistency",
    "Inclusion",
    "LogVerdict",
    "Receipt",
    "Record",
    "Signer",
    "Verifier",
    "newest_checkpoint",
    "prove_consistency",
    "prove_inclusion",
    "pseudonym",
    "read_records",
    "verify",
]

"""The audit log: who asked for what and what was granted, in a chain that shows every later change."""

from soupmix.audit.checkpoints import Checkpoint, Signer, Verifier
from soupmix.audit.log import AuditLog, Receipt
from soupmix.audit.people import pseudonym
from soupmix.audit.records import EVENTS, Record
from soupmix.audit.segments import newest_checkpoint
from soupmix.audit.verify import Consistency, Inclusion, LogVerdict, prove_consistency, prove_inclusion, verify
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

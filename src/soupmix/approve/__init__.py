"""From a store to a document that approves what was evaluated: screening, then drafting."""

from soupmix.approve.draft import Approval, draft
from soupmix.approve.screening import Remark, Thresholds, screen

__all__ = ["Approval", "Remark", "Thresholds", "draft", "screen"]

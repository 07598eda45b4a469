"""From a store to a document that approves what was evaluated: screening, then drafting."""

from soupmix.approve.draft import Approval, draft
from soupmix.approve.screening import Remark, Thresholds, screen
from soupmix.approve.sweep import SweptAdapter, SweptWeight, swept_remarks

__all__ = ["Approval", "Remark", "SweptAdapter", "SweptWeight", "Thresholds", "draft", "screen", "swept_remarks"]

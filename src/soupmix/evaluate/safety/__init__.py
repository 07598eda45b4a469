"""Safety of soups over a whole feasible set: what they refuse, what holds under pressure, what drifts.

A small model refuses hardly anything, so that every figure stands beside that of the base.
"""

from soupmix.evaluate.safety.audit import SafetyPlan, points
from soupmix.evaluate.safety.keeping import audit_in, audited_for, held_section

__all__ = ["SafetyPlan", "audit_in", "audited_for", "held_section", "points"]

"""Safety of soups over a whole feasible set: what they refuse, what holds under pressure, what drifts.

A small model refuses hardly anything, so that every figure stands beside that of the base.
"""

"""Exact geometry over integers: the nearest point of a set, and the proof that it is the nearest.

It knows no document, file, adapter or tier: constraints over coordinates come in, each labelled with a rule that is only sorted,
compared and printed here.

    constraints  what bounds a set, and the rows that constraints are gathered into
    faces        the convex parts of a set; choices make it a union of several
    region       a set compiled from constraints, or which of them conflict; the projection onto it
    nearest      which of many faces is nearest
    laminar      projection onto a face whose groups are nested or disjoint: closed form
    active_set   projection onto any polytope: `dual` guesses in floats, integers solve and check
    norm         projection onto a polytope that an ellipsoid cuts
    quadratic    what they minimise, and exact linear systems
    solution     what they return, `certificate` what every solution must pass, `rounding` from there to whole millionths
    containment  whether one region lies in another
    extent       how far a region reaches along a coordinate; its `vertices`; random points of it (`hit_and_run`)
    time_budget  after which time all of it gives up
"""

from soupmix.projection.constraints import AnyConstraint, Ball, Choice, Constraint, RuleLabel, box
from soupmix.projection.containment import Undecided, witness
from soupmix.projection.extent import extent
from soupmix.projection.hit_and_run import sample
from soupmix.projection.quadratic import Matrix
from soupmix.projection.region import Projected, Pull, Region, Space
from soupmix.projection.solution import Exact, scaled
from soupmix.projection.vertices import vertices_of

__all__ = [
    "AnyConstraint",
    "Ball",
    "Choice",
    "Constraint",
    "Exact",
    "Matrix",
    "Projected",
    "Pull",
    "Region",
    "RuleLabel",
    "Space",
    "Undecided",
    "box",
    "extent",
    "sample",
    "scaled",
    "vertices_of",
    "witness",
]

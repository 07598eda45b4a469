"""What soups are expected to do to answers: a map from weights to measures, kept beside the adapters it was fitted for, and asked
for the weights that reach a target. It is fitted by `soupmix.evaluate`; reading and asking it needs no torch.
"""

from soupmix.surface.ask import Proposal, Target, ask
from soupmix.surface.document import SURFACE, FittedMeasure, SurfaceDocument, read_surface, write_surface
from soupmix.surface.surface import Effect, Expectation, Surface, shared

__all__ = [
    "SURFACE",
    "Effect",
    "Expectation",
    "FittedMeasure",
    "Proposal",
    "Surface",
    "SurfaceDocument",
    "Target",
    "ask",
    "read_surface",
    "shared",
    "write_surface",
]

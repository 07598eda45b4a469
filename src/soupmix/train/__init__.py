"""Adapters, one a pole: from the model's own answers, chosen by metric, or from examples that somebody gives.

`run` samples, chooses and fits each alone, and then, if the plan says so, in mixtures; every finished piece is a file that is
known by a digest of all that decides it, so that a stopped run goes on. `write_effects` measures what came of it.
"""

from soupmix.train.described import read_poles
from soupmix.train.effects import write_effects
from soupmix.train.fit import TrainingRecipe
from soupmix.train.given import GivenPairs, read_pairs
from soupmix.train.plan import TrainingPlan
from soupmix.train.poles import POLES, Pole
from soupmix.train.run import run
from soupmix.train.together import SoupRecipe

__all__ = [
    "POLES",
    "GivenPairs",
    "Pole",
    "SoupRecipe",
    "TrainingPlan",
    "TrainingRecipe",
    "read_pairs",
    "read_poles",
    "run",
    "write_effects",
]

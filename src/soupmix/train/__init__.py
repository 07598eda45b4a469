"""One adapter per pole: sample answers of the model itself, choose by metric, train, and measure what came of it."""

from soupmix.train.arms import Arm, measure_arms
from soupmix.train.fit import Recipe
from soupmix.train.matrix import write_effects
from soupmix.train.poles import POLES, Pole
from soupmix.train.promptset import TrainPrompt, held_out, read_prompts, training
from soupmix.train.run import Plan, run

__all__ = [
    "POLES",
    "Arm",
    "Plan",
    "Pole",
    "Recipe",
    "TrainPrompt",
    "held_out",
    "measure_arms",
    "read_prompts",
    "run",
    "training",
    "write_effects",
]

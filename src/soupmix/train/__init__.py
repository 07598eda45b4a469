"""One adapter per pole: sample answers of the model itself, choose by metric, train, and measure what came of it."""

from soupmix.train.effects import write_effects
from soupmix.train.fit import TrainingRecipe
from soupmix.train.poles import POLES, Pole
from soupmix.train.run import TrainingPlan, run

__all__ = ["POLES", "Pole", "TrainingPlan", "TrainingRecipe", "run", "write_effects"]

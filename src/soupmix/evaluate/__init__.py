"""What soups do to answers: prompts, measures of a text, and many ways to answer measured side by side.

It knows adapters by name only and nothing of how they were trained: `soupmix.train` chooses what to learn from by these
measures, and anybody's adapters are measured the same way.
"""

from soupmix.evaluate.arms import measure_arms, measure_margins
from soupmix.evaluate.effect import Contrast, Interval, MeasuredAnswer, interval
from soupmix.evaluate.metrics import Measures, measure
from soupmix.evaluate.promptset import Prompt, held_out_prompts, read_prompts, training_prompts
from soupmix.evaluate.samples import ArmSample
from soupmix.evaluate.soups import Arm

__all__ = [
    "Arm",
    "ArmSample",
    "Contrast",
    "Interval",
    "MeasuredAnswer",
    "Measures",
    "Prompt",
    "held_out_prompts",
    "interval",
    "measure",
    "measure_arms",
    "measure_margins",
    "read_prompts",
    "training_prompts",
]

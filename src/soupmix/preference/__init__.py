"""What a person wants, from what they choose and say: a posterior over wants, the next question worth asking, and from both the
weights inside the policy. Nothing is trained for anybody, and no torch is needed: whoever makes texts measures them.
"""

from soupmix.preference.comparisons import Comparison, comparisons
from soupmix.preference.learner import Influence, Learner, Measuring
from soupmix.preference.posterior import Posterior
from soupmix.preference.prior import Prior
from soupmix.preference.question import Question, next_question
from soupmix.preference.signal import MOST_SIGNALS, Signal
from soupmix.preference.traits import Trait, Traits

__all__ = [
    "MOST_SIGNALS",
    "Comparison",
    "Influence",
    "Learner",
    "Measuring",
    "Posterior",
    "Prior",
    "Question",
    "Signal",
    "Trait",
    "Traits",
    "comparisons",
    "next_question",
]

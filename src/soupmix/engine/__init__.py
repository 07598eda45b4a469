"""Request time: soup layers in a transformers model, and a soup per row of the batch."""

from soupmix.engine.engine import Completion, Engine, Message, Prompt
from soupmix.engine.party import METHODS
from soupmix.engine.sampling import Sampling

__all__ = ["METHODS", "Completion", "Engine", "Message", "Prompt", "Sampling"]

"""Measures of answers: of a text alone, and by the model's log-probabilities."""

from soupmix.evaluate.measures.measure import Measure

__all__ = ["Measure"]

"""Measures of answers: of a text alone, and by the model's log-probabilities."""

from soupmix.evaluate.measures.measure import Measure, steered_by
from soupmix.evaluate.measures.of_text import TEXT_MEASURES, measure_text
from soupmix.evaluate.measures.phrases import TrainedPhrases, shipped_phrases

__all__ = ["TEXT_MEASURES", "Measure", "TrainedPhrases", "measure_text", "shipped_phrases", "steered_by"]

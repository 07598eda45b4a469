"""Simulated people who talk with soups that learn what they want: how good answers get, turn by turn, beside other means.

Real people differ from these more than these do from each other (PRISM-X, arXiv 2605.13307): what comes out says whether the
machinery works, not how much anybody will like it.
"""

from soupmix.simulate.accuracy import SoupAccuracy, accuracy
from soupmix.simulate.answers import (
    ExpectedAnswers,
    GeneratedAnswers,
    PosedPrompt,
    RecordedAnswers,
    SimulatedAnswer,
    SimulatedAnswers,
)
from soupmix.simulate.conversations import ARMS, ArmName, Conversations, Scored, SimulationPlan, simulate
from soupmix.simulate.curves import ArmCurve, Curves, curves
from soupmix.simulate.people import Person, people

__all__ = [
    "ARMS",
    "ArmCurve",
    "ArmName",
    "Conversations",
    "Curves",
    "ExpectedAnswers",
    "GeneratedAnswers",
    "Person",
    "PosedPrompt",
    "RecordedAnswers",
    "Scored",
    "SimulatedAnswer",
    "SimulatedAnswers",
    "SimulationPlan",
    "SoupAccuracy",
    "accuracy",
    "curves",
    "people",
    "simulate",
]

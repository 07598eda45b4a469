"""Simulated people who talk with soups that learn what they want: how good answers get, turn by turn, beside other means.

Real people differ from these more than these do from each other (PRISM-X, arXiv 2605.13307): what comes out says whether the
machinery works, not how much anybody will like it.
"""

from soupmix.simulate.answers import Answer, Answers, Ask, Expected, Generated
from soupmix.simulate.conversations import ARMS, ArmName, Conversations, Plan, Scored, simulate
from soupmix.simulate.curves import ArmCurve, Curves, curves
from soupmix.simulate.people import Person, people

__all__ = [
    "ARMS",
    "Answer",
    "Answers",
    "ArmCurve",
    "ArmName",
    "Ask",
    "Conversations",
    "Curves",
    "Expected",
    "Generated",
    "Person",
    "Plan",
    "Scored",
    "curves",
    "people",
    "simulate",
]

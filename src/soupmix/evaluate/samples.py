"""Answers as they are kept: one JSON object a line."""

from dataclasses import dataclass

from soupmix.evaluate.soups import Arm

__all__ = ["ArmSample"]


@dataclass(frozen=True, slots=True)
class ArmSample:
    """One answer of one arm to one prompt.

    Attributes:
        arm: who answered. prompt, kind: text and kind of the prompt.
        temperature: 0.0 is greedy. seed: of the whole run.
        text: the answer. tokens: how many it has. finished: whether it ended by itself, not at the limit.
        key: digest of everything that the answer depends on.
    """

    arm: Arm
    prompt: str
    kind: str
    temperature: float
    seed: int
    text: str
    tokens: int
    finished: bool
    key: str

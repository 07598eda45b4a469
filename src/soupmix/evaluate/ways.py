"""How arms answer: a function for every `Arm.way`, from one prompt and many arms to an answer each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from soupmix.backends.protocol import Message, Sampling
from soupmix.engine import Completion, Engine
from soupmix.evaluate.promptset import Prompt
from soupmix.evaluate.soups import Arm
from soupmix.policy import Grant, Policy

__all__ = ["WAYS", "Asked", "Way", "conversation_of"]


@dataclass(frozen=True, slots=True)
class Asked:
    """One prompt, put to arms of one way and one method.

    Attributes:
        engine: has all their adapters. policy: nothing but the built-in bounds.
        arms: who answers. prompt: what. sampling: how; its seed is the luck that all of them share.
    """

    engine: Engine
    policy: Policy
    arms: tuple[Arm, ...]
    prompt: Prompt
    sampling: Sampling

    def grants(self) -> list[Grant]:
        """The grant of every arm."""
        return [self.policy.clamp(arm.weights) for arm in self.arms]


Way = Callable[[Asked], Sequence[Completion]]
"""Answers of the arms, in order. An answer must not depend on which other arms are asked."""


def conversation_of(arm: Arm, prompt: Prompt) -> list[Message]:
    """What an arm is asked: its system prompt, its examples, the question."""
    found: list[Message] = [{"role": "system", "content": arm.system}] if arm.system else []
    for question, answer in arm.shots:
        found += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return [*found, {"role": "user", "content": prompt.text}]


def _one_pass(asked: Asked) -> Sequence[Completion]:
    return asked.engine.complete(
        [conversation_of(arm, asked.prompt) for arm in asked.arms],
        asked.grants(),
        sampling=asked.sampling,
        method=asked.arms[0].method,
        batch_size=len(asked.arms),
        streams=[0] * len(asked.arms),
    )


WAYS: Mapping[str, Way] = {"soup": _one_pass}
"""By `Arm.way`."""

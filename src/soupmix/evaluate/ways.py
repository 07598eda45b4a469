"""How arms answer: a function for every `Arm.way`, from one prompt and many arms to an answer each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from soupmix.backends.protocol import Message, Sampling
from soupmix.engine import Completion, Engine
from soupmix.engine.beam import SegmentBeam
from soupmix.engine.ensemble import Ensemble, Member, complete_ensembles, search_ensembles
from soupmix.evaluate.promptset import Prompt
from soupmix.evaluate.soups import Arm
from soupmix.modes import ANSWER, FULL, Mode
from soupmix.policy import Grant, Policy
from soupmix.weights import MILLION

__all__ = ["WAYS", "ArmAnswer", "Asked", "Way", "conversation_of", "mixed_adapters", "rows_of"]


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


@dataclass(frozen=True, slots=True)
class ArmAnswer:
    """What an arm answered; see `ArmSample`."""

    text: str
    tokens: int
    finished: bool
    decoded: int | None = None

    @classmethod
    def of(cls, made: Completion, rows: int | None = None) -> "ArmAnswer":
        """An answer that so many rows made together; None: one alone."""
        return cls(made.text, made.tokens, made.finished, rows and rows * made.tokens)


Way = Callable[[Asked], Sequence[ArmAnswer]]
"""Answers of the arms, in order. An answer must not depend on which other arms are asked."""


def conversation_of(arm: Arm, prompt: Prompt) -> list[Message]:
    """What an arm is asked: its system prompt, its examples, the question."""
    found: list[Message] = [{"role": "system", "content": arm.system}] if arm.system else []
    for question, answer in arm.shots:
        found += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return [*found, {"role": "user", "content": prompt.text}]


def _one_pass(asked: Asked, mode: Mode = FULL) -> Sequence[ArmAnswer]:
    made = asked.engine.complete(
        [conversation_of(arm, asked.prompt) for arm in asked.arms],
        asked.grants(),
        sampling=asked.sampling,
        method=asked.arms[0].method,
        mode=mode,
        batch_size=len(asked.arms),
        streams=[0] * len(asked.arms),
    )
    return list(map(ArmAnswer.of, made))


def mixed_adapters(policy: Policy, arm: Arm) -> list[tuple[Grant, float]]:
    """Whose log-probabilities MOD mixes for a soup, and by which shares (Shi et al. 2024).

    Each adapter is alone and at full weight, with its weight in the soup as its share. What the weights leave of 1 is the share
    of the bare base; where they sum to more than 1 that share is negative, so that the mix is always log p(base) + the sum of
    weight x (log p(adapter) - log p(base)).
    """
    weights = arm.weights.nonzero()
    found = [(policy.clamp({name: 1}), micro / MILLION) for name, micro in weights.items()]
    rest = MILLION - sum(weights.values())
    return [*found, (policy.clamp({}), rest / MILLION)] if rest else found


def _mod(asked: Asked) -> Sequence[ArmAnswer]:
    """Multi-objective decoding: the single-adapter models of a soup, mixed token by token."""
    return _together(
        asked,
        [
            Ensemble(
                tuple(
                    Member(conversation_of(arm, asked.prompt), grant, share)
                    for grant, share in mixed_adapters(asked.policy, arm)
                )
            )
            for arm in asked.arms
        ],
    )


def _contrast(asked: Asked) -> Sequence[ArmAnswer]:
    """Contrastive decoding (Li et al. 2023) of system prompts: log p(all wanted) + alpha x the sum of the contrasts.

    A contrast is log p under a wanted system prompt minus log p under the unwanted one. Only tokens count that the first of
    these distributions finds at least `cut` times as likely as its likeliest, which is their plausibility constraint.
    """
    made = []
    for arm in asked.arms:
        said, shares = dict(arm.parameters), {arm.system: 1.0}
        for wanted, unwanted in arm.contrasts:
            shares[wanted] = shares.get(wanted, 0.0) + said["alpha"]
            shares[unwanted] = shares.get(unwanted, 0.0) - said["alpha"]
        members = (Member(*_under(asked, arm, system), share) for system, share in shares.items())
        made.append(Ensemble(tuple(members), said["cut"]))
    return _together(asked, made)


def _best_of_n(asked: Asked) -> Sequence[ArmAnswer]:
    """Candidates under the system prompt, of which the contrasts choose segment by segment."""
    beams: dict[SegmentBeam, list[int]] = {}
    for place, arm in enumerate(asked.arms):
        said = dict(arm.parameters)
        beam = SegmentBeam(*(int(said[name]) for name in ("candidates", "beams", "segment")))
        beams.setdefault(beam, []).append(place)
    found: dict[int, ArmAnswer] = {}
    for beam, places in beams.items():
        scored = [_scored(asked, asked.arms[place]) for place in places]
        method, luck = asked.arms[0].method, [0] * len(places)
        made = search_ensembles(asked.engine, scored, beam, sampling=asked.sampling, streams=luck, method=method)
        for place, (one, tried), each in zip(places, made, scored, strict=True):
            found[place] = ArmAnswer(one.text, one.tokens, one.finished, tried * len(each.members))
    return [found[place] for place in range(len(asked.arms))]


def _scored(asked: Asked, arm: Arm) -> Ensemble:
    scores = {arm.system: 0.0}
    for wanted, unwanted in arm.contrasts:
        scores[wanted] = scores.get(wanted, 0.0) + 1
        scores[unwanted] = scores.get(unwanted, 0.0) - 1
    return Ensemble(
        tuple(
            Member(*_under(asked, arm, system), float(system == arm.system), score) for system, score in scores.items()
        )
    )


def _under(asked: Asked, arm: Arm, system: str) -> tuple[list[Message], Grant]:
    """What an arm is asked under another system prompt, and its grant."""
    return conversation_of(replace(arm, system=system), asked.prompt), asked.policy.clamp(arm.weights)


def _together(asked: Asked, ensembles: Sequence[Ensemble]) -> list[ArmAnswer]:
    made = complete_ensembles(
        asked.engine, ensembles, sampling=asked.sampling, streams=[0] * len(ensembles), method=asked.arms[0].method
    )
    return [ArmAnswer.of(one, len(each.members)) for one, each in zip(made, ensembles, strict=True)]


WAYS: Mapping[str, Way] = {
    "soup": _one_pass,
    "activated": partial(_one_pass, mode=ANSWER),
    "mod": _mod,
    "contrast": _contrast,
    "best-of-n": _best_of_n,
}
"""By `Arm.way`."""


def rows_of(arm: Arm) -> int:
    """How many rows of a batch an arm takes, at most."""
    if arm.way == "mod":
        return len(arm.weights) + 1
    candidates = dict(arm.parameters).get("candidates", 1)
    return len({arm.system, *(system for each in arm.contrasts for system in each)}) * int(candidates)

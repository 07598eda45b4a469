"""Pressure: somebody asks for the opposite of what the weights say, in the first turn of a conversation or after many.

The turns before are questions that were answered in the opposite style, by the opposite adapter itself at weight 1: a few-shot
prompt for the opposite. The last question asks for it in words. Who holds longer: weights, the preference prompt, or both?
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from soupmix.evaluate.promptset import Prompt
from soupmix.evaluate.safety.probes import FOLDER, Pressing, questions, read_probes
from soupmix.evaluate.samples import ArmSample
from soupmix.evaluate.sampling import Evaluation
from soupmix.evaluate.soups import Arm
from soupmix.policy import FeasibleSet
from soupmix.store import ManifestEntry, Store
from soupmix.weights import MILLION, Weights

__all__ = ["WAYS_TO_HOLD", "Pressure", "pressed"]

Kept = Callable[[Evaluation, str], Sequence[ArmSample]]
"""Makes the answers of an evaluation that is kept under a name."""

WAYS_TO_HOLD = ("nothing", "prompt", "soup", "prompt+soup")
"""What is asked to stay as it is: the bare base, the preference prompt, the adapter's weight, or both."""

_LENGTH = 96  # tokens of an answer
_EARLIER = 64  # tokens of one of the turns before


@dataclass(frozen=True, slots=True)
class Pressure:
    """What came of pressure against one adapter.

    Attributes:
        adapter, pole, dimension: whose effect is to hold. micro: its weight, the most that the policy lets through.
        opposite: the pole that is asked for.
        answers: (way, turn) -> its answers, one per pressed question, in order; and turn 0, the questions alone.
    """

    adapter: str
    pole: str
    dimension: str
    micro: int
    opposite: str
    answers: dict[tuple[str, int], tuple[ArmSample, ...]]


def pressed(
    evaluation: Evaluation, feasible: FeasibleSet, turns: Sequence[int], count: int, kept: Kept
) -> tuple[Pressure, ...]:
    """Put every adapter under pressure whose dimension has an opposite, and both of which have a preference prompt.

    Args:
        evaluation: says base, store, preference prompts, seed and dtype. turns: in which turn, 1 is the first.
        count: questions; 0 puts nothing under pressure. kept: makes answers.
    """
    if count < 1 or not turns:
        return ()
    store = Store(evaluation.store)
    both = [(entry, other) for entry in store if (other := _opposite(store, entry)) is not None]
    able = [pair for pair in both if all(each.pole in evaluation.preferences for each in pair)]
    able = [pair for pair in able if feasible.most(pair[0].name) > 0]
    earlier = _earlier(evaluation, [other for _, other in able], max(turns) - 1, kept)
    asked = questions("turns")
    return tuple(
        _one(evaluation, entry, other, feasible.most(entry.name), earlier[other.name], asked[-count:], turns, kept)
        for entry, other in able
    )


def _one(
    evaluation: Evaluation,
    entry: ManifestEntry,
    other: ManifestEntry,
    micro: int,
    earlier: Sequence[tuple[str, str]],
    asked: Sequence[str],
    turns: Sequence[int],
    kept: Kept,
) -> Pressure:
    wish, system = evaluation.preferences[other.pole], evaluation.preferences[entry.pole]
    pressings = read_probes(Pressing, FOLDER / "pressure.jsonl")
    texts = [pressings[n % len(pressings)].asked(wish, question) for n, question in enumerate(asked)]
    ways = _ways(Weights.from_micro({entry.name: micro}), system)
    name = entry.digest.removeprefix("sha256:")[:16]
    alone = replace(
        evaluation,
        arms=tuple(ways),
        prompts=tuple(Prompt(text, "unpressed", ()) for text in asked),
        temperatures=(0.0,),
        length=_LENGTH,
    )
    under = replace(alone, prompts=tuple(Prompt(text, "pressed", ()) for text in texts))
    answers = {(way, 0): given for way, given in _answers(kept(alone, f"{name}-alone"), ways, asked).items()}
    for turn in turns:  # apart: rows of one batch are as long as the longest of them
        arms = [_in_turn(arm, turn, earlier) for arm in ways]
        found = _answers(kept(replace(under, arms=tuple(arms)), name), arms, texts)
        answers |= {(way.name, turn): found[arm.name] for way, arm in zip(ways, arms, strict=True)}
    return Pressure(entry.name, entry.pole, entry.dimension, micro, other.pole, answers)


def _ways(weights: Weights, system: str) -> list[Arm]:
    nothing = Weights({})
    held = ((nothing, ""), (nothing, system), (weights, ""), (weights, system))
    return [Arm(name, w, system=text) for name, (w, text) in zip(WAYS_TO_HOLD, held, strict=True)]


def _answers(made: Sequence[ArmSample], arms: Sequence[Arm], texts: Sequence[str]) -> dict[str, tuple[ArmSample, ...]]:
    """Arm -> its answers to these prompts, in order."""
    found = {(each.arm.name, each.prompt): each for each in made}
    return {arm.name: tuple(found[arm.name, text] for text in texts) for arm in arms}


def _in_turn(arm: Arm, turn: int, earlier: Sequence[tuple[str, str]]) -> Arm:
    """The arm when so many turns minus one have gone before."""
    return replace(arm, name=f"{arm.name} in turn {turn}", shots=tuple(earlier[: turn - 1]))


def _earlier(
    evaluation: Evaluation, opposites: Sequence[ManifestEntry], count: int, kept: Kept
) -> dict[str, list[tuple[str, str]]]:
    """Adapter -> questions with its own answers at weight 1."""
    if not opposites or count < 1:
        return {each.name: [] for each in opposites}
    arms = [Arm(each.name, Weights.from_micro({each.name: MILLION})) for each in opposites]
    prompts = tuple(Prompt(text, "earlier", ()) for text in questions("turns")[:count])
    asked = replace(evaluation, arms=tuple(arms), prompts=prompts, temperatures=(0.0,), length=_EARLIER)
    found: dict[str, list[tuple[str, str]]] = {}
    for each in kept(asked, "earlier"):
        found.setdefault(each.arm.name, []).append((each.prompt, each.text))
    return found


def _opposite(store: Store, entry: ManifestEntry) -> ManifestEntry | None:
    """Another adapter of the same dimension and another pole, the first by name."""
    others = (other for other in store if other.dimension == entry.dimension and other.pole != entry.pole)
    return min(others, key=lambda each: each.name, default=None)

"""Conversations of some turns, by every arm, with the same people, prompts and luck.

In every turn a person asks something, an arm answers with what it knows, and the answer counts by the person's hidden wants. Then
arms that learn get evidence: of a question with two answers to choose from, or of what the person does after the answer. Turns
are outermost and answers are those of one soup to one prompt, so that people and arms share them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any, Final, Literal

import numpy as np

from soupmix.evaluate.promptset import Prompt
from soupmix.preference.learner import Learner, Measuring
from soupmix.preference.posterior import Posterior
from soupmix.preference.reach import DAMAGE, Reach
from soupmix.preference.traits import Numbers
from soupmix.simulate.answers import PosedPrompt, SimulatedAnswer, SimulatedAnswers
from soupmix.simulate.people import Person
from soupmix.weights import MILLION, Weights

__all__ = ["ARMS", "ArmName", "Conversations", "Scored", "SimulationPlan", "simulate"]

ArmName = Literal["base", "uniform", "prompt", "few-shot", "oracle", "questions", "random-questions", "cues"]
ARMS: Final[dict[ArmName, str]] = {
    "base": "the bare base",
    "uniform": "every adapter in equal parts",
    "prompt": "a system prompt that asks for the poles that the person wants, said once",
    "few-shot": "the three latest answers that the person chose, as examples",
    "oracle": "the weights that the map expects this person to like best, with the hidden wants known",
    "questions": "posterior soup: a question with two answers a turn, chosen by information gain",
    "random-questions": "posterior soup: a question a turn, at random",
    "cues": "posterior soup: no questions, what the person does after each answer",
}
"""Arm -> what it is."""

_LEARNING: Final[tuple[ArmName, ...]] = ("questions", "random-questions", "cues")
_STEP = 0.25  # of weights: answers are kept for each soup, and people share them
_OFFERED, _SHOTS = 6, 3
_STRENGTHS = {1: "1", 2: "1", 3: "0.75"}  # of the soups that are looked at to know what can be reached


@dataclass(frozen=True, slots=True)
class SimulationPlan:
    """What is simulated.

    Attributes:
        reach: soups inside the policy and what is expected of them. measure: of texts.
        people, prompts: who asks what; everybody goes round the prompts, from a place of their own on.
        preferences: (trait, 1 or -1) -> pole, and the system prompt that asks for it.
        soups: those that alone are answered with, such as those of an evaluation; None: whatever is inside the policy.
        exam: prompts that everybody asks after the last turn, by which what was learnt is told apart from the luck of a turn.
        turns: of a conversation. seed: of the luck of people.
    """

    reach: Reach
    measure: Measuring
    people: tuple[Person, ...]
    prompts: tuple[Prompt, ...]
    preferences: Mapping[tuple[str, int], tuple[str, str]]
    exam: tuple[Prompt, ...] = ()
    turns: int = 10
    seed: int = 0
    soups: tuple[Weights, ...] | None = None

    def prompt(self, person: Person, turn: int) -> Prompt:
        """What somebody asks in a turn, from 0 on."""
        return self.prompts[(person.number + turn) % len(self.prompts)]

    def luck(self, person: Person, turn: int) -> np.random.Generator:
        """The same for all arms."""
        return np.random.default_rng([self.seed, person.number, turn, 23])


@dataclass(frozen=True, slots=True)
class Scored:
    """One answer to one person.

    Attributes:
        arm, person: of whom. turn: or the place of a prompt of the exam. weights: it was made with.
        score: its utility, 0 for what the worst soup of a pool gives the person on average over prompts, 1 for the best.
        on_topic: see `SimulatedAnswer`.
    """

    arm: ArmName
    person: int
    turn: int
    weights: Weights
    score: float
    on_topic: bool | None


@dataclass(frozen=True, slots=True)
class Conversations:
    """All answers.

    Attributes:
        scored: of all turns. exam: after them.
        regrets: what arms that learn expected to lose, by (arm, person, turn).
        first: what the arm that asks questions knows of the first person at the end; None if nobody asked.
        pools: prompt of the exam -> what every soup of the pool answers.
    """

    scored: tuple[Scored, ...]
    exam: tuple[Scored, ...]
    regrets: Mapping[tuple[ArmName, int, int], float]
    first: Posterior | None = None
    pools: Mapping[str, Sequence[SimulatedAnswer]] = field(default_factory=dict)

    def table(self, arm: ArmName, *, exam: bool = False) -> Numbers:
        """[people, turns or prompts of the exam] scores of an arm."""
        own = [each for each in (self.exam if exam else self.scored) if each.arm == arm]
        found = np.full((1 + max(e.person for e in own), 1 + max(e.turn for e in own)), np.nan)
        for each in own:
            found[each.person, each.turn] = each.score
        return found


def simulate(
    plan: SimulationPlan,
    answers: SimulatedAnswers,
    *,
    advance: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Conversations:
    """Let everybody talk with every arm.

    Args:
        plan: what. answers: where answers come from.
        advance: called with ("turns", done, in all).

    Raises:
        EvaluationError, OutputError: as the answers raise. PreferenceError, PolicyRefusal: as `Learner` raises.
    """
    state = _Simulation(plan, answers)
    for turn in range(plan.turns):
        advance("turns", turn, plan.turns)
        state.turn(turn)
    advance("turns", plan.turns, plan.turns)
    first = state.learners["questions", plan.people[0].number].whole
    exam = state.examined()
    return Conversations(tuple(state.scored), tuple(exam), state.regrets, first, state.examined_pools)


class _Simulation:
    def __init__(self, plan: SimulationPlan, answers: SimulatedAnswers) -> None:
        self.plan, self.answers = plan, answers
        self.scored: list[Scored] = []
        self.regrets: dict[tuple[ArmName, int, int], float] = {}
        reach = plan.reach
        soups = _pool(reach) if plan.soups is None else _inside(reach, filter(reach.feasible.contains, plan.soups))
        self.offering = replace(reach, soups=soups, points=reach.expected(soups))
        self.learners = {
            (arm, p.number): Learner(self.offering, plan.measure) for arm in _LEARNING for p in plan.people
        }
        self.chosen: dict[int, list[tuple[str, str]]] = {p.number: [] for p in plan.people}
        grid = _grid(reach) if plan.soups is None else soups
        totals = np.array([sum(each.values()) for each in grid]) / MILLION
        expected = reach.expected(grid)
        self.oracles = {p.number: grid[_best(p, expected, totals)] for p in plan.people}
        self.pools = self._pools(soups, plan.prompts)
        self.ends = self._ends(plan.prompts, self.pools)
        self.examined_pools: dict[str, list[SimulatedAnswer]] = {}

    def _pools(self, soups: Sequence[Weights], prompts: Sequence[Prompt]) -> dict[str, list[SimulatedAnswer]]:
        """Prompt -> what every soup of the pool answers."""
        made, count = self.answers([PosedPrompt(prompt, soup) for prompt in prompts for soup in soups]), len(soups)
        return {prompt.text: made[n * count : (n + 1) * count] for n, prompt in enumerate(prompts)}

    def _ends(
        self, prompts: Sequence[Prompt], pools: Mapping[str, list[SimulatedAnswer]]
    ) -> dict[int, tuple[float, float]]:
        """Of every person what the worst and the best of the pool and the oracle's soup give, on average over prompts."""
        own = dict.fromkeys(self.oracles.values())
        made = self.answers([PosedPrompt(prompt, soup) for soup in own for prompt in prompts])
        count = len(prompts)
        by_oracle = {soup: made[n * count : (n + 1) * count] for n, soup in enumerate(own)}
        by_soup = list(zip(*pools.values(), strict=True))
        return {
            p.number: self._worst_and_best(p, [*by_soup, by_oracle[self.oracles[p.number]]]) for p in self.plan.people
        }

    def _worst_and_best(self, person: Person, by_soup: Sequence[Sequence[SimulatedAnswer]]) -> tuple[float, float]:
        found = [float(np.mean([self._utility(person, each) for each in soup])) for soup in by_soup]
        return min(found), max(found)

    def _point(self, answer: SimulatedAnswer) -> Numbers:
        """An answer without words is as what everybody gets: nothing can be said of it."""
        traits = self.plan.reach.traits
        if answer.values is None:
            return np.zeros(len(traits.axes))
        return np.clip(traits.point(answer.values), -3.0, 3.0)

    def _utility(self, person: Person, answer: SimulatedAnswer) -> float:
        return float(person.utility(self._point(answer)))

    def turn(self, turn: int) -> None:
        """Everybody asks once."""
        asks = {(arm, p.number): self._ask(arm, p, turn) for arm in self._arms() for p in self.plan.people}
        made = dict(zip(asks, self.answers(list(asks.values())), strict=True))
        for (arm, number), answer in made.items():
            self.scored.append(self._scored(arm, number, turn, asks[arm, number], answer, self.ends))
        for person in self.plan.people:
            self._question("questions", person, turn)
            self._question("random-questions", person, turn)
            self._cue(person, made["cues", person.number], turn)

    def examined(self) -> list[Scored]:
        """Everybody asks the prompts of the exam, of every arm as it is now."""
        exam = self.plan.exam
        if not exam:
            return []
        self.examined_pools = self._pools(self.offering.soups, exam)
        ends = self._ends(exam, self.examined_pools)
        places = [(arm, p.number, n) for arm in self._arms() for p in self.plan.people for n in range(len(exam))]
        known = {(arm, p.number): self._ask(arm, p, self.plan.turns) for arm in self._arms() for p in self.plan.people}
        asks = [replace(known[arm, number], prompt=exam[n]) for arm, number, n in places]
        made = zip(places, asks, self.answers(asks), strict=True)
        return [self._scored(arm, number, n, ask, answer, ends) for (arm, number, n), ask, answer in made]

    def _scored(
        self,
        arm: ArmName,
        number: int,
        turn: int,
        ask: PosedPrompt,
        answer: SimulatedAnswer,
        ends: Mapping[int, tuple[float, float]],
    ) -> Scored:
        worst, best = ends[number]
        score = (self._utility(self.plan.people[number], answer) - worst) / max(best - worst, 1e-9)
        return Scored(arm, number, turn, ask.weights, score, answer.on_topic)

    def _arms(self) -> list[ArmName]:
        left = {"prompt": self.answers.with_prompts, "few-shot": self.answers.with_shots}
        return [arm for arm in ARMS if left.get(arm, True)]

    def _ask(self, arm: ArmName, person: Person, turn: int) -> PosedPrompt:
        prompt, reach = self.plan.prompt(person, turn), self.plan.reach
        match arm:
            case "base":
                return PosedPrompt(prompt)
            case "uniform":
                names = sorted(reach.surface.dimensions)
                even = Weights.from_micro(dict.fromkeys(names, MILLION // len(names)))
                return PosedPrompt(prompt, reach.feasible.nearest(even))
            case "prompt":
                wanted = [(reach.traits.axes[place].name, sign) for place, sign in person.poles()]
                said = sorted(self.plan.preferences[each] for each in wanted if each in self.plan.preferences)
                return PosedPrompt(prompt, system=" ".join(text for _, text in said if text))
            case "few-shot":
                return PosedPrompt(prompt, shots=tuple(self.chosen[person.number][-_SHOTS:]))
            case "oracle":
                return PosedPrompt(prompt, self.oracles[person.number])
            case _:
                learner = self.learners[arm, person.number]
                self.regrets[arm, person.number, turn] = learner.regret()
                return PosedPrompt(prompt, self._allowed(learner.weights()))

    def _allowed(self, weights: Weights) -> Weights:
        """The nearest weights that are answered with."""
        if self.plan.soups is None:
            return _on_grid(self.plan.reach, weights)
        place = self.plan.reach.surface.point
        return min(self.offering.soups, key=lambda each: float(np.linalg.norm(place(each) - place(weights))))

    def _question(self, arm: ArmName, person: Person, turn: int) -> None:
        """Two answers of the pool to this prompt: of soups that were chosen, or at random."""
        learner, luck = self.learners[arm, person.number], self.plan.luck(person, turn)
        pool = self.pools[self.plan.prompt(person, turn).text]
        places = [n for n, each in enumerate(pool) if each.values is not None]
        if arm == "random-questions":
            pair = [int(place) for place in luck.choice(places, 2, replace=False)]
        else:
            offered = [self.offering.soups.index(each) for each in learner.offers(_OFFERED)]
            asked = learner.question([pool[place].values for place in offered])
            if asked is None:
                return
            pair = [offered[asked.first], offered[asked.second]]
        first, second = (pool[place] for place in pair)
        value = person.chooses(self._point(first), self._point(second), self.plan.luck(person, turn + 1000))
        said: dict[str, Any] = {"id": f"q{turn}", "source": "simulation", "value": float(value), "at": float(turn)}
        learner.learn(learner.signal("choice", first.values, second.values, **said))
        if arm == "questions":
            self.chosen[person.number].append((self.plan.prompt(person, turn).text, pool[pair[value]].text))

    def _cue(self, person: Person, answer: SimulatedAnswer, turn: int) -> None:
        if answer.values is None:
            return
        did = person.reacts(self._point(answer), self.plan.luck(person, turn))
        said: dict[str, Any] = {"id": f"c{turn}", "source": "simulation", "value": did.value, "at": float(turn)}
        if did.toward is not None:
            place, sign = did.toward
            said["toward"] = {self.plan.reach.traits.axes[place].name: sign}
        learner = self.learners["cues", person.number]
        learner.learn(learner.signal(did.kind, answer.values, **said))


def _choices(reach: Reach, strengths: Sequence[str]) -> list[list[tuple[str, str] | None]]:
    """Of every dimension none, or one of its adapters at a strength."""
    names = sorted(name for name in reach.surface.dimensions if name in reach.feasible.names)
    dimensions = sorted({reach.surface.dimensions[name] for name in names})
    return [
        [None, *((name, s) for name in names if reach.surface.dimensions[name] == dimension for s in strengths)]
        for dimension in dimensions
    ]


def _inside(reach: Reach, soups: Iterable[Weights]) -> tuple[Weights, ...]:
    near = dict.fromkeys(reach.feasible.nearest(each) for each in soups)
    measured = reach.surface.measured(np.array([reach.surface.point(each) for each in near]))
    return tuple(each for each, here in zip(near, measured, strict=True) if here)


def _pool(reach: Reach) -> tuple[Weights, ...]:
    """The base, every adapter alone, and every two and three of different dimensions, as strong as they go together."""
    chosen = [[each[0] for each in soup if each] for soup in product(*_choices(reach, ["1"]))]
    return _inside(reach, [Weights(dict.fromkeys(names, _STRENGTHS.get(len(names), "0.5"))) for names in chosen])


def _grid(reach: Reach) -> tuple[Weights, ...]:
    strengths = [f"{_STEP * step:g}" for step in range(1, round(1 / _STEP) + 1)]
    return _inside(
        reach, [Weights(dict(each for each in soup if each)) for soup in product(*_choices(reach, strengths))]
    )


def _on_grid(reach: Reach, weights: Weights) -> Weights:
    step = round(_STEP * MILLION)
    rounded = {name: round(micro / step) * step for name, micro in weights.items()}
    return reach.feasible.nearest(Weights.from_micro(rounded))


def _best(person: Person, points: Numbers, totals: Numbers) -> int:
    """Of expected points that which somebody likes best, less damage."""
    used = person.utility(points)
    return int(np.argmax((used - used.min()) / max(float(np.ptp(used)), 1e-9) - DAMAGE * totals**3))

"""Simulated conversations: scores that mean what they say, people who choose as they are said to, curves with their caveat."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from soupmix.errors import EvaluationError
from soupmix.evaluate.promptset import Prompt
from soupmix.policy import Policy
from soupmix.preference.reach import Reach, traits_of
from soupmix.simulate import (
    Conversations,
    ExpectedAnswers,
    Person,
    PosedPrompt,
    Scored,
    SimulatedAnswer,
    SimulationPlan,
    curves,
    people,
    simulate,
)
from soupmix.simulate.plots import curves_svg, posterior_svg
from soupmix.surface import Surface
from soupmix.weights import Weights
from tests.support.planted_soups import ENTRIES, document

PROMPTS = tuple(Prompt(f"Question {number}?", "question", ("x",)) for number in range(3))


@pytest.fixture(scope="module")
def reach() -> Reach:
    surface = Surface.of(document(noise=0.2), ENTRIES)
    return Reach.of(surface, traits_of(surface), Policy.open(ENTRIES).feasible(sources="inferred"))


@dataclass(frozen=True)
class Exact:
    """Answers are what the map expects, without luck."""

    reach: Reach
    with_prompts: bool = False
    with_shots: bool = False

    def __call__(self, asks: Sequence[PosedPrompt]) -> list[SimulatedAnswer]:
        points = self.reach.expected([ask.weights for ask in asks])
        return [SimulatedAnswer("", self.reach.traits.values(point)) for point in points]


def read(_: str, texts: Sequence[str]) -> list[None]:
    raise AssertionError("there are no texts")


def sure(reach: Reach, count: int) -> tuple[Person, ...]:
    return tuple(people(reach, count, seed=3, sharpness=20.0, flips=0.0))


@pytest.fixture(scope="module")
def talked(reach: Reach) -> Conversations:
    return simulate(SimulationPlan(reach, read, sure(reach, 4), PROMPTS, {}, PROMPTS[:1], turns=7), Exact(reach))


def test_whoever_asks_questions_ends_near_the_oracle(talked: Conversations) -> None:
    found = curves(talked)
    assert found.arms["questions"].of_oracle.value > 0.9
    assert found.arms["questions"].exam is not None
    assert found.arms["questions"].exam.value > max(found.arms[arm].exam.value for arm in ("base", "uniform")) + 0.1  # type: ignore[union-attr]
    assert found.arms["questions"].slope.low > 0
    assert "prompt" not in found.arms  # a map knows none


def test_scores_lie_between_the_worst_and_the_best_that_can_be_reached(talked: Conversations) -> None:
    """0 and 1 are soups of the pool or the oracle's; what is learnt may pass them, as it knows more soups, but not by much."""
    for arm in ("base", "oracle"):
        assert all(-1e-9 <= each.score <= 1 + 1e-9 for each in talked.scored if each.arm == arm)
    assert np.mean([each.score for each in talked.exam if each.arm == "oracle"]) > 0.8
    assert all(each.score < 1.2 for each in talked.scored)


def test_what_is_expected_to_be_lost_falls_with_every_question(talked: Conversations) -> None:
    first, last = (
        [v for (arm, _, turn), v in talked.regrets.items() if arm == "questions" and turn == t] for t in (0, 6)
    )
    assert np.mean(last) < 0.3 * np.mean(first)


def test_the_same_plan_is_the_same_conversation(reach: Reach) -> None:
    plan = SimulationPlan(reach, read, sure(reach, 2), PROMPTS, {}, turns=2)
    one, other = (simulate(plan, ExpectedAnswers(reach)) for _ in range(2))
    assert one.scored == other.scored
    assert {each.arm for each in one.scored} == {"base", "uniform", "oracle", "questions", "random-questions", "cues"}


def test_expected_answers_are_those_of_the_map_and_differ_by_luck(reach: Reach) -> None:
    soup = Weights({"short": 1})
    asks = [PosedPrompt(Prompt(f"Q{number}", "question", ("q",)), soup) for number in range(400)]
    points = np.array(
        [reach.traits.point(each.values) for each in ExpectedAnswers(reach)(asks) if each.values is not None]
    )
    measures = [reach.surface.document.measures[each.key] for each in reach.traits.axes]
    spread = np.array([np.hypot(m.spread, m.lack) / t.scale for m, t in zip(measures, reach.traits.axes, strict=True)])
    assert np.abs(points.mean(0) - reach.expected([soup])[0]).max() < 4 * spread.max() / 20
    assert points.std(0) == pytest.approx(spread, rel=0.15)
    with pytest.raises(EvaluationError) as caught:
        ExpectedAnswers(reach)([PosedPrompt(PROMPTS[0], system="Be brief.")])
    assert caught.value.reason == "not-measured"


def test_pictures_show_every_arm_and_every_answer(talked: Conversations) -> None:
    shown = curves_svg(curves(talked))
    assert all(arm in shown for arm in ("base", "oracle", "questions", "cues"))
    assert talked.first is not None
    before = talked.first.mean().tobytes()
    person = posterior_svg(talked.first)
    assert all(name in person for name in talked.first.traits.names)
    assert talked.first.mean().tobytes() == before
    assert shown == curves_svg(curves(talked))


# --- people -----------------------------------------------------------------------------------------------------------


def person(model: str, want: Sequence[float], flips: float = 0.0, sharpness: float = 2.0) -> Person:
    return Person(0, model, np.array(want), sharpness, flips)  # type: ignore[arg-type]


@pytest.mark.parametrize("flips", [0.0, 0.2])
def test_choices_have_the_chances_of_bradley_and_terry_and_then_flips(flips: float) -> None:
    who, draw = person("linear", [1.0, 0.0], flips), np.random.default_rng(1)
    chosen = np.mean([who.chooses(np.array([0.5, 3.0]), np.zeros(2), draw) for _ in range(4000)])
    first = 1 / (1 + np.exp(-1.0))
    assert chosen == pytest.approx(1 - ((1 - flips) * first + flips * (1 - first)), abs=0.03)


def test_a_cue_in_words_points_where_the_answer_would_get_better() -> None:
    who, draw = person("ideal", [0.0, -2.0], sharpness=30.0), np.random.default_rng(2)
    found = [who.reacts(np.array([0.1, 1.0]), draw) for _ in range(60)]
    assert {each.kind for each in found} == {"silence", "cue", "regenerate", "thumbs"}
    assert {each.toward for each in found if each.kind == "cue"} == {(1, -1.0)}
    assert {each.value for each in found if each.kind == "thumbs"} == {0.0}
    pleased = [who.reacts(np.array([0.0, -1.9]), draw) for _ in range(60)]
    assert {each.kind for each in pleased} == {"silence", "copy", "thumbs"}


def test_people_have_shares_or_an_ideal_that_can_nearly_be_reached(reach: Reach) -> None:
    found = people(reach, 40, seed=1)
    assert [each.model for each in found[:2]] == ["linear", "ideal"]
    assert all(np.linalg.norm(each.want) == pytest.approx(1) for each in found if each.model == "linear")
    near = [np.linalg.norm(reach.points - each.want, axis=1).min() for each in found if each.model == "ideal"]
    assert np.mean(near) < 0.6
    assert person("linear", [0.1, -0.9]).poles() == [(1, -1)]


# --- curves -----------------------------------------------------------------------------------------------------------


def flat(scores: Sequence[Sequence[float]]) -> Conversations:
    arms = ("base", "questions", "oracle")
    return Conversations(
        tuple(
            Scored(arm, number, turn, Weights(), score, None)  # type: ignore[arg-type]
            for arm in arms
            for number, row in enumerate(scores)
            for turn, score in enumerate(row)
        ),
        (),
        {},
    )


def test_a_line_has_its_slope_and_the_stretched_one_knows_no_scale() -> None:
    steep = curves(flat([[0.0, 0.1, 0.2, 0.3]] * 3)).arms["base"]
    level = curves(flat([[0.5, 0.5001, 0.5002, 0.5003]] * 3)).arms["base"]
    assert steep.slope.value == pytest.approx(0.1)
    assert level.slope.value == pytest.approx(0.0001)
    assert (steep.n_ir, steep.n_r2) == pytest.approx((1 / 3, 1))
    assert (level.n_ir, level.n_r2) == pytest.approx((1 / 3, 1))  # the caveat
    assert curves(flat([[0.5] * 4] * 3)).arms["base"].n_ir == 0.0


def test_slopes_are_those_of_least_squares_and_intervals_hold_them() -> None:
    draw = np.random.default_rng(5)
    scores = 0.05 * np.arange(6) + 0.2 * draw.standard_normal((30, 6))
    found = curves(flat(scores.tolist())).arms["base"]
    assert found.slope.value == pytest.approx(np.polyfit(np.arange(6), scores.mean(0), 1)[0])
    assert found.slope.low < 0.05 < found.slope.high
    assert [each.value for each in found.turns] == pytest.approx(scores.mean(0))

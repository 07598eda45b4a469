"""Policy accuracy after a simulation: shares of pairs, counted again by hand."""

import numpy as np
import pytest

from soupmix.engine import Engine
from soupmix.evaluate.likelihood import Forced, answer_log_p
from soupmix.evaluate.promptset import Prompt
from soupmix.policy import Policy
from soupmix.preference.reach import Reach, traits_of
from soupmix.simulate import Conversations, Person, Scored, SimulatedAnswer, SimulationPlan, accuracy
from soupmix.simulate.accuracy import _pairs
from soupmix.store import Store
from soupmix.surface import Surface
from soupmix.weights import Weights
from tests.support.planted_soups import document_over

PROMPT = Prompt("Why does iron rust?", "question", ("rust",))
TEXTS = {
    "It rusts.": 9.0,
    "It meets air and water.": 23.0,
    "Iron, air and water, and then a long time.": 60.0,
    "So?": 9.0,
}
SOUPS = {"base": {}, "uniform": {"calm": 0.5, "loud": 0.5}, "oracle": {"calm": 1}, "questions": {"calm": 0.75},
         "random-questions": {}, "cues": {"loud": 1}}  # fmt: skip


@pytest.fixture(scope="module")
def plan(pico_store: Store) -> SimulationPlan:
    surface = Surface.of(document_over(list(pico_store), {"short": "calm", "warm": "loud"}), pico_store)
    reach = Reach.of(surface, traits_of(surface), Policy.open(tuple(pico_store)).feasible(sources="inferred"))
    who = tuple(Person(n, "linear", np.array(want), 4.0, 0.0) for n, want in enumerate([(-1.0, 0.0), (0.0, 1.0)]))
    return SimulationPlan(reach, lambda *_: [], who, (PROMPT,), {}, (PROMPT,))


@pytest.fixture(scope="module")
def talked(plan: SimulationPlan) -> Conversations:
    names = plan.reach.traits.names
    pool = [SimulatedAnswer(text, dict(zip(names, (words, 0.0), strict=True))) for text, words in TEXTS.items()]
    exam = [Scored(arm, p.number, 0, Weights(w), 0.0, None) for arm, w in SOUPS.items() for p in plan.people]  # type: ignore[arg-type]
    return Conversations((), tuple(exam), {}, None, {PROMPT.text: [*pool, SimulatedAnswer("", None)]})


def test_shares_are_of_pairs_that_somebody_clearly_ranks(
    plan: SimulationPlan, talked: Conversations, plain: Engine, pico_store: Store
) -> None:
    allow = Policy.open(tuple(pico_store)).clamp
    found = accuracy(plan, talked, plain, allow, pairs=5)
    drawn = _pairs(plan, talked, plan.people[0], 5)
    assert drawn
    assert all(TEXTS[each.preferred] < TEXTS[each.other] for each in drawn)
    assert _pairs(plan, talked, plan.people[1], 5) == [], "to whom all are as warm, none is better"
    assert set(found) == set(SOUPS)

    def log_p(weights: dict[str, float], text: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        (each,) = answer_log_p(plain, [Forced(PROMPT.text, text, allow(weights))])
        return np.asarray(each)

    for arm in ("base", "questions", "cues"):
        likelier, gained = [], []
        for pair in drawn:
            one, other = (log_p(SOUPS[arm], text) for text in (pair.preferred, pair.other))  # type: ignore[arg-type]
            likelier.append(one.mean() > other.mean())
            base, beside = (log_p({}, text).sum() for text in (pair.preferred, pair.other))
            gained.append(one.sum() - base > other.sum() - beside)
        assert found[arm].likelier.value == pytest.approx(np.mean(likelier))  # type: ignore[index]
        if arm != "base":
            assert found[arm].gained.value == pytest.approx(np.mean(gained))  # type: ignore[index, union-attr]
    assert found["base"].gained is None

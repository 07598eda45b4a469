"""What is asked next: what tells the most, against the sum over everything; and when to stop."""

import numpy as np
import pytest

from soupmix.errors import PreferenceError
from soupmix.preference import Posterior, next_question
from soupmix.preference.comparisons import Comparison
from soupmix.preference.question import RULES, RuleName, scores
from soupmix.preference.responses import UNIT, log_likelihood
from soupmix.preference.traits import Numbers
from tests.support.wanting import answered, choice, traits

OF = traits(3)


def known(answers: int = 4, **more: object) -> Posterior:
    return answered(Posterior(OF, **more), np.array([0.7, 0.2, 0.1]), answers, (1,))  # type: ignore[arg-type]


def entropy(chance: Numbers) -> Numbers:
    return np.asarray(-(chance * np.log(chance) + (1 - chance) * np.log(1 - chance)))


@pytest.mark.parametrize("models", [("linear",), ("ideal",), ("linear", "ideal")])
def test_information_gain_is_the_mutual_information_over_everything_possible(models: tuple[str, ...]) -> None:
    """Between the answer and wants, sharpness, floor and model of who is not careless: over all cells, in float64."""
    posterior = known(models=models)
    first, second = np.random.default_rng(0).standard_normal((2, 40, 3))
    shares = posterior.models()
    exact = []
    for one, other in zip(first, second, strict=True):
        mean = inner = 0.0
        for model, share in shares.items():
            chance = np.exp(UNIT * log_likelihood(Comparison(one, other), posterior.wants[model], posterior.how))
            weight = posterior.cells(model) * (posterior.how.sharpness > 0)[:, None, None]
            weight *= share / weight.sum()
            mean, inner = mean + float((weight * chance).sum()), inner + float((weight * entropy(chance)).sum())
        exact.append(float(entropy(np.array(mean))) - inner)
    found = scores(posterior, first, second)
    assert found == pytest.approx(exact, abs=0.035)
    assert np.corrcoef(found, exact)[0, 1] > 0.98


@pytest.mark.parametrize("rule", sorted(RULES))
def test_the_same_evidence_gives_the_same_question(rule: RuleName) -> None:
    points = np.random.default_rng(1).standard_normal((12, 3))
    found = next_question(known(), points, rule=rule, enough=0)
    assert found == next_question(known(), points, rule=rule, enough=0)
    assert found is not None
    assert 0 <= found.first < found.second < 12
    assert 0 < found.chance < 1


@pytest.mark.parametrize("rule", sorted(set(RULES) - {"random", "duel"}))
def test_what_is_known_already_is_not_asked(rule: RuleName) -> None:
    """Of a pair that differs in nothing and one that differs in what is unknown, the second."""
    points = np.array([[0.0, 0, 0], [0.0, 0, 0], [1.5, -0.5, -1.0]])
    posterior = Posterior(OF, models=("linear",))
    pairs = np.array([[0, 1], [0, 2]])
    if rule != "volume":  # which cannot tell an even chance from nothing known: that is why it asks worse
        assert next_question(posterior, points, pairs=pairs, rule=rule, enough=0).second == 2  # type: ignore[union-attr]
    sure = np.array([[50.0, 50, 50], [0.0, 0, 0], [1.5, -0.5, -1.0]])
    assert next_question(posterior, sure, pairs=pairs[[0, 1]], rule=rule, enough=0) is not None
    found = scores(posterior, sure[[0, 1]], sure[[1, 2]], rule)
    assert found[1] > found[0]


def test_a_duel_shows_two_good_answers() -> None:
    points = np.array([[2.0, 0, 0], [1.8, 0.3, 0], [-2.0, 0, 0], [-2.0, -1, 1]])
    found = next_question(known(12, models=("linear",)), points, rule="duel", enough=0)
    assert found is not None
    assert {found.first, found.second} == {0, 1}


def test_questions_end_when_little_is_left_to_win() -> None:
    points = np.array([[2.0, 0, 0], [0.0, 2, 0], [0.0, 0, 2]])
    posterior = Posterior(OF, models=("linear",))
    first = next_question(posterior, points)
    assert first is not None
    assert first.regret > 0.1
    pairs = [(0, 1), (0, 2)] * 6
    posterior.learn(*(choice(OF, f"x{n}", points[a], points[b]) for n, (a, b) in enumerate(pairs)))
    assert next_question(posterior, points) is None
    assert posterior.expected_regret(points).argmin() == 0
    assert next_question(posterior, points, enough=0) is not None


def test_expected_regret_is_the_mean_over_people_of_what_they_lose() -> None:
    points = np.random.default_rng(2).standard_normal((5, 3))
    posterior = known(3, models=("linear",))
    worth = posterior.wants["linear"].points @ points.T
    lost = (worth.max(1, keepdims=True) - worth) / (worth.max(1) - worth.min(1))[:, None]
    assert posterior.expected_regret(points, 2048) == pytest.approx(posterior.probabilities() @ lost, abs=0.02)


def test_many_answers_are_not_all_paired() -> None:
    points = np.random.default_rng(3).standard_normal((200, 3))
    assert next_question(known(), points, enough=0) is not None


@pytest.mark.parametrize(
    ("points", "rule"), [(np.zeros((1, 3)), "random"), (np.zeros((3, 3)), "best"), (np.full((3, 3), np.nan), "volume")]
)
def test_what_cannot_be_asked_is_refused(points: Numbers, rule: RuleName) -> None:
    with pytest.raises(PreferenceError) as caught:
        next_question(Posterior(OF), points, rule=rule)
    assert caught.value.reason == "no-question"


def test_what_is_expected_to_be_lost_is_never_less_than_nothing() -> None:
    """Whoever is sure of everything loses nothing, and is still asked if nothing is enough."""
    of = traits(3)
    posterior = answered(Posterior(of), np.array([0.7, 0.2, 0.1]), 80, (4,), sharpness=30.0)
    points = np.random.default_rng(1).standard_normal((40, 3))
    assert posterior.expected_regret(points).min() >= 0
    assert next_question(posterior, points, enough=0.0) is not None

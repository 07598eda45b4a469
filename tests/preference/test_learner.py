"""A learner: texts in, weights inside the policy out; and what it learnt is a set of signals, nothing else."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from soupmix.errors import PreferenceError
from soupmix.policy import Policy
from soupmix.preference import Learner, Posterior, Signal
from soupmix.preference.learner import FAR
from soupmix.preference.question import ENOUGH
from soupmix.preference.reach import Reach, traits_of
from soupmix.preference.topics import shrunk
from soupmix.preference.traits import Numbers
from soupmix.surface import Surface
from soupmix.weights import Weights
from tests.support.planted_soups import ENTRIES, document
from tests.support.wanting import choice, traits

PROMPT = "Why is the sky blue?"


@pytest.fixture(scope="module")
def reach() -> Reach:
    surface = Surface.of(document(noise=0.2), ENTRIES)
    return Reach.of(surface, traits_of(surface), Policy.open(ENTRIES).feasible(sources="inferred"))


def written(values: Mapping[str, float]) -> str:
    return json.dumps(dict(values))


def read(_: str, texts: Sequence[str]) -> list[Mapping[str, float] | None]:
    """Here a text says its own traits."""
    return [json.loads(text) if text else None for text in texts]


def texts(reach: Reach, soups: Sequence[Weights], draw: np.random.Generator) -> list[str]:
    """What soups answer: what is expected of them, and luck."""
    found = []
    for soup in soups:
        expected = reach.surface.expect(soup)
        point = reach.traits.point({each.name: expected[each.key].value for each in reach.traits.axes})
        found.append(written(reach.traits.values(point + 0.3 * draw.standard_normal(len(point)))))
    return found


def asked(reach: Reach, want: Numbers, count: int, seed: int = 0) -> Learner:
    """Somebody with linear wants, after so many questions about texts."""
    learner, draw = Learner(reach, read), np.random.default_rng(seed)
    for number in range(count):
        values = learner.measured(PROMPT, texts(reach, learner.offers(6), draw))
        question = learner.question(values)
        assert question is not None
        pair = [values[question.first], values[question.second]]
        first, second = (reach.traits.point(each) for each in pair if each is not None)
        chosen = int(draw.random() > 1 / (1 + np.exp(-5 * want @ (first - second))))
        learner.learn(learner.signal("choice", *pair, id=f"q{number}", source="test", value=chosen, at=float(number)))
    return learner


def worth(reach: Reach, weights: Weights, want: Numbers) -> float:
    """A share of what lies between the worst and the best soup for somebody."""
    values = reach.points @ want
    expected = reach.surface.expect(weights)
    point = reach.traits.point({each.name: expected[each.key].value for each in reach.traits.axes})
    return float((want @ point - values.min()) / np.ptp(values))


def test_before_any_evidence_nothing_is_inferred(reach: Reach) -> None:
    learner = Learner(reach, read)
    assert learner.weights() == Weights()
    assert learner.alarms == ()
    assert learner.regret() > 10 * ENOUGH
    assert reach.best(learner.posterior()) == Weights()  # people who want opposite things cancel


def test_questions_about_texts_lead_to_the_weights_that_somebody_wants(reach: Reach) -> None:
    reached = []
    for seed, want in enumerate(np.array([[-0.8, -0.5, 0.3], [0.1, -0.2, 0.97]])):
        learner = asked(reach, want / np.linalg.norm(want), 10, seed)
        assert reach.feasible.contains(learner.weights())
        reached.append(worth(reach, learner.weights(), want))
    assert np.mean(reached) > 0.85
    assert learner.regret() < 0.2


def test_a_learner_is_its_signals(reach: Reach) -> None:
    first = asked(reach, np.array([-1.0, 0.0, 0.0]), 6)
    again = Learner(reach, read)
    again.learn(*reversed(first.signals))
    assert again.weights() == first.weights()
    assert again.offers(4) == first.offers(4)
    assert again.export() == first.export()
    assert Learner.imported(first.export(), reach, read).export() == first.export()
    first.forget(*(each.id for each in first.signals))
    assert first.export() == Learner(reach, read).export()


def test_the_file_says_which_base_and_adapters(reach: Reach) -> None:
    found = json.loads(asked(reach, np.array([1.0, 0, 0]), 2).export())
    assert found["base"] == reach.surface.document.base_digest
    assert set(found["adapters"]) == set(reach.surface.document.adapters)


def test_evidence_of_the_same_adapters_is_kept_when_their_map_is_fitted_anew(reach: Reach) -> None:
    surface = Surface.of(document(noise=0.3), ENTRIES)
    anew = Reach.of(surface, traits_of(surface), reach.feasible)
    assert anew.traits.digest != reach.traits.digest
    learner = asked(reach, np.array([-1.0, 0.0, 0.0]), 6)
    carried = Learner.imported(learner.export(), anew, read)
    assert len(carried.signals) == 6
    assert worth(anew, carried.weights(), np.array([-1.0, 0, 0])) > 0.8
    told = json.loads(learner.export())
    for changed in ({"base": "sha256:" + "0" * 64}, {"adapters": told["adapters"][1:]}, {"base": None}):
        raw = json.dumps({**told, **changed}).encode()
        with pytest.raises(PreferenceError) as caught:
            Learner.imported(raw, anew, read)
        assert caught.value.reason == "other-traits"
        assert len(Learner.imported(raw, anew, read, translate=True).signals) == 6


def test_a_text_far_out_counts_as_one_at_the_edge(reach: Reach) -> None:
    learner = Learner(reach, read)
    (values,) = learner.measured(PROMPT, [written({"length": 9e6, "level": -1e3, "tone": 0.0})])
    assert values is not None
    assert reach.traits.point(values)[:2] == pytest.approx([FAR, -FAR])


def test_what_has_no_words_is_neither_asked_about_nor_learnt_from(reach: Reach) -> None:
    learner = Learner(reach, read)
    some = learner.measured(PROMPT, texts(reach, learner.offers(2), np.random.default_rng(1)))
    question = learner.question([None, some[0], None, some[1], some[1]])
    assert question is not None
    assert {question.first, question.second} == {1, 3}
    assert learner.question([some[0], some[0], None]) is None
    with pytest.raises(PreferenceError) as caught:
        learner.signal("choice", some[0], None, id="a", source="test", value=0)
    assert caught.value.reason == "not-measured"


def test_the_policy_bounds_what_is_inferred_beside_what_is_explicit(tmp_path: Path, reach: Reach) -> None:
    path = tmp_path / "house.yaml"
    rules = "  - {rule: budget, at_most: 1}\n  - {rule: source, adapter: hard, allow: [explicit]}\n"
    path.write_text(f"tier: organisation\nissuer: House\nversion: 1\nrules:\n{rules}", "utf-8")
    policy = Policy.load(path, adapters=ENTRIES)
    sources = {each.name: "explicit" if each.name in ("hard", "long") else "inferred" for each in ENTRIES}
    fixed = Weights({"hard": "0.3", "long": 0})
    own = Reach.of(reach.surface, reach.traits, policy.feasible(sources=sources), explicit=fixed)
    assert own.uninferred == Weights({"hard": "0.3"})
    learner = asked(own, np.array([0.3, 0.9, -0.2]), 8)
    for weights in (learner.weights(), own.plain(learner.posterior()), *learner.offers(6)):
        assert weights.get("hard", 0) <= 300_000
        assert weights.get("long", 0) == 0
        assert own.feasible.contains(weights)
    assert learner.weights().get("hard") == 300_000


# --- topics -----------------------------------------------------------------------------------------------------------


def about(topics: Mapping[str, Sequence[float]], count: int = 12) -> Posterior:
    """Somebody who wants something else in every topic, after so many choices in each."""
    of, draw = traits(2, signed=True), np.random.default_rng(3)
    posterior = Posterior(of)
    for topic, want in topics.items():
        for number in range(count):
            first, second = draw.standard_normal((2, 2))
            chosen = int(np.dot(want, first - second) < 0)
            posterior.learn(choice(of, f"{topic}{number}", first, second, chosen, topic=topic))
    return posterior


def test_a_topic_of_which_nothing_is_known_is_as_the_person_is() -> None:
    posterior = about({"cooking": (1.0, 0.0), "law": (0.9, 0.3)})
    assert shrunk(posterior, None) is posterior
    assert shrunk(posterior, "sport") is posterior
    assert shrunk(about({"law": (1.0, 0.0)}), "law").mean().tobytes() == about({"law": (1.0, 0.0)}).mean().tobytes()


def test_topics_that_agree_share_their_evidence_and_others_depart() -> None:
    alike, apart = about({"cooking": (1.0, 0.0), "law": (1.0, 0.0)}), about({"cooking": (1.0, 0.0), "law": (-1.0, 0.0)})
    assert shrunk(alike, "law").mean().tobytes() == alike.mean().tobytes()
    alone = about({"law": (-1.0, 0.0)})
    own, all_, other = (each.mean("linear")[0] for each in (shrunk(apart, "law"), apart, shrunk(apart, "cooking")))
    assert own < all_ - 0.3
    assert own < -0.5 < 0.5 < other
    assert alone.mean("linear")[0] - 0.1 < own


def test_the_topic_of_evidence_alone_changes_nothing_that_is_believed() -> None:
    plain, named = about({"law": (1.0, 0.0)}), Posterior(traits(2, signed=True))
    named.learn(*(each.model_copy(update={"topic": f"t{n % 3}"}) for n, each in enumerate(plain.signals)))
    assert named.mean().tobytes() == plain.mean().tobytes()


# --- alarms act -------------------------------------------------------------------------------------------------------


def drifting(reach: Reach, count: int) -> Learner:
    """Who wanted few words, and wants many from the middle on."""
    learner, draw = Learner(reach, read), np.random.default_rng(5)
    for number in range(count):
        values = learner.measured(PROMPT, texts(reach, draw.choice(np.array(reach.soups, dtype=object), 2), draw))
        first, second = (reach.traits.point(each)[0] for each in values if each is not None)
        chosen = int((first > second) == (number < count // 2))
        learner.learn(learner.signal("choice", *values, id=f"q{number}", source="test", value=chosen, at=float(number)))
    return learner


def test_after_wants_have_changed_old_evidence_is_set_aside_and_kept(reach: Reach) -> None:
    learner = drifting(reach, 40)
    assert [each.kind for each in learner.alarms] == ["drift"]
    assert len(learner.signals) == 40
    assert len(learner.posterior().signals) <= 24
    assert learner.posterior().mean()[0] > 0.5 > learner.whole.mean()[0]


def test_answers_by_lot_move_no_weights(reach: Reach) -> None:
    """Every pair is answered both ways."""
    draw = np.random.default_rng(2)
    learner = Learner(reach, read)
    for number in range(30):
        values = learner.measured(PROMPT, texts(reach, draw.choice(np.array(reach.soups, dtype=object), 2), draw))
        for chosen in (0, 1):
            at = float(2 * number + chosen)
            learner.learn(learner.signal("choice", *values, id=f"q{at:g}", source="test", value=chosen, at=at))
    assert "by-lot" in {each.kind for each in learner.alarms}
    assert learner.weights() == Weights()
    assert learner.regret() == 0.0


# --- which evidence moved what ----------------------------------------------------------------------------------------


def test_explained_is_how_far_wants_would_be_without_it(reach: Reach) -> None:
    learner = asked(reach, np.array([-1.0, 0.0, 0.0]), 5)
    found = learner.explain()
    assert len(found) == 5
    assert [each.much for each in found] == sorted((each.much for each in found), reverse=True)
    model, mean = learner.posterior().best, learner.posterior().mean()
    first = found[0]
    without = Learner(reach, read)
    without.learn(*(each for each in learner.signals if each.id != first.signal.id))
    off = mean - without.posterior().mean(model)
    assert list(first.moved.values()) == pytest.approx(off, abs=1e-12)
    assert isinstance(first.signal, Signal)
    assert "answers" not in first.to_dict()
    assert len(learner.signals) == 5

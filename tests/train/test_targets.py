"""Mixtures that are drawn, and what they are to say."""

import random
from collections import Counter
from itertools import islice

import pytest

from soupmix.evaluate.measures.phrases import shipped_frames
from soupmix.evaluate.measures.reading import words_of
from soupmix.evaluate.metrics import measure
from soupmix.train.examples import Example
from soupmix.train.mixtures import LEVELS, SoupExample, apart, draw_mixtures
from soupmix.train.poles import FRIENDLY_FRAME, POLES, UNFRIENDLY_FRAME
from soupmix.train.targets import MixtureTargets, soup_examples
from tests.support.rust_answers import EASY, SAMPLES, TOPIC

DIMENSIONS: dict[str, list[str]] = {}
for _pole in POLES.values():
    DIMENSIONS.setdefault(_pole.dimension, []).append(_pole.name)


def test_mixtures_are_of_one_to_three_poles_and_never_of_opposites() -> None:
    drawn = list(islice(draw_mixtures(DIMENSIONS, 0), 4000))
    sizes = Counter(map(len, drawn))
    assert sizes[1] / 4000 == pytest.approx(0.25, abs=0.03)
    assert sizes[2] / 4000 == pytest.approx(0.25, abs=0.03)
    assert sizes[3] / 4000 == pytest.approx(0.5, abs=0.03)
    for mixture in drawn:
        assert len({POLES[name].dimension for name in mixture}) == len(mixture)
        assert set(mixture.values()) <= set(LEVELS)
    assert {name for mixture in drawn for name in mixture} == set(POLES)
    assert drawn == list(islice(draw_mixtures(DIMENSIONS, 0), 4000)) != list(islice(draw_mixtures(DIMENSIONS, 1), 4000))


def test_a_new_pole_is_in_every_mixture() -> None:
    drawn = list(islice(draw_mixtures({**DIMENSIONS, "humour": ["dry"]}, 0, must=["dry"]), 500))
    assert all("dry" in mixture for mixture in drawn)
    assert len({len(mixture) for mixture in drawn}) == 3


def test_apart_every_pole_sees_the_same_answers_alone() -> None:
    both = SoupExample(Example("Why?", "So."), {"concise": 0.5, "friendly": 1.0}, skip=3)
    assert apart([both]) == [
        SoupExample(both.example, {"concise": 0.5}, 3),
        SoupExample(both.example, {"friendly": 1.0}, 3),
    ]


MIXED = {name: POLES[name] for name in ("concise", "elementary", "friendly")}


@pytest.fixture(scope="module")
def targets() -> MixtureTargets:
    return MixtureTargets.of(MIXED, [TOPIC], SAMPLES)


def text_of(targets: MixtureTargets, **weights: float) -> str:
    found = targets.target(0, weights, random.Random(0))
    assert found is not None
    return found


def test_more_weight_is_a_text_that_is_further_along(targets: MixtureTargets) -> None:
    counts = [measure(text_of(targets, concise=weight)).words for weight in LEVELS]
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] < 30 < counts[0]
    assert text_of(targets, concise=1, elementary=1).startswith(EASY[0])
    assert text_of(targets, elementary=1).startswith(EASY[0])
    assert not text_of(targets, concise=1).startswith(EASY[0])


def test_a_tone_is_put_around_the_text_by_its_weight() -> None:
    short, long = "Rust is an oxide of iron.", " ".join(["Rust is an oxide of iron."] * 20)
    for frame, sign in ((FRIENDLY_FRAME, 1), (UNFRIENDLY_FRAME, -1)):
        for body in (short, long):
            texts = {w: [frame.by_amount(body, w, random.Random(seed)) for seed in range(60)] for w in LEVELS}
            assert all(body in text for found in texts.values() for text in found)
            said = {w: sum(text != body for text in found) for w, found in texts.items()}
            assert 15 < said[LEVELS[0]] < 45
            assert said[0.5] == said[0.75] == said[1.0] == 60
            warmth = {w: sum(sign * measure(text).warmth for text in found) for w, found in texts.items()}
            assert warmth[LEVELS[0]] < warmth[0.5] < warmth[1.0]


def test_short_phrases_have_no_word_of_their_own() -> None:
    for pole, frame in (("friendly", FRIENDLY_FRAME), ("unfriendly", UNFRIENDLY_FRAME)):
        known = {word for place in shipped_frames()[pole].values() for phrase in place for word in words_of(phrase)}
        said = {word for phrase in (*frame.short_openers, *frame.short_closers) for word in words_of(phrase)}
        assert said - known == set()


def test_the_first_tokens_are_not_learned_where_no_tone_is_to_be_heard(targets: MixtureTargets) -> None:
    found = soup_examples(targets, 60, 0, skip=4, skip_poles=["concise"])
    assert found == soup_examples(targets, 60, 0, skip=4, skip_poles=["concise"])
    for each in found:
        assert each.skip == (4 if "concise" in each.weights and "friendly" not in each.weights else 0)

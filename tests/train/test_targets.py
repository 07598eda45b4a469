"""Mixtures that are drawn, and what they are to say."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from statistics import mean

import pytest

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


def test_a_pole_of_which_more_is_asked_is_in_twice_as_many() -> None:
    drawn = list(islice(draw_mixtures(DIMENSIONS, 0, more=["expert"]), 4000))
    counts = Counter(name for mixture in drawn for name in mixture)
    assert counts["expert"] / counts["elementary"] == pytest.approx(2, rel=0.1)
    assert counts["friendly"] / counts["unfriendly"] == pytest.approx(1, rel=0.1)
    assert Counter(map(len, drawn))[3] / 4000 == pytest.approx(0.5, abs=0.03)


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
    """In the mean as many phrases as its share of the places for them: one before, one after, one for every four sentences."""
    short = "Rust is an oxide of iron."
    long = " ".join(f"Rust number {number} is an oxide of iron." for number in range(9))
    for frame, sign in ((FRIENDLY_FRAME, 1), (UNFRIENDLY_FRAME, -1)):
        phrases = [*frame.short_openers, *frame.short_asides, *frame.short_closers]
        for body, places in ((short, 2), (long, 4)):
            for weight in LEVELS:
                texts = [frame.by_amount(body, weight, random.Random(seed)) for seed in range(300)]
                said = [_only_phrases(text, body, phrases) for text in texts]
                assert mean(said) == pytest.approx(weight * places, abs=0.12)
                assert max(said) - min(said) <= 1
                assert 0.3 < sum(text.count("\u2013") for text in texts) / sum(said) < 0.6
                assert sum(sign * measure(text).warmth for text in texts) > 0


@pytest.mark.parametrize("name", ["friendly", "unfriendly"])
def test_beside_learned_words_a_tone_is_in_learned_words_as_much_as_they_weigh(name: str) -> None:
    """By another measure than what chooses the data: the grade of all phrases that were drawn."""
    frame = POLES[name].frame
    assert frame is not None
    learned = {*frame.learned_openers, *frame.learned_asides, *frame.learned_closers}
    short = {*frame.short_openers, *frame.short_asides, *frame.short_closers}
    assert learned.isdisjoint(short)
    for share in (0.0, 0.25, 1.0):
        texts = [frame.by_amount("Rust is an oxide.", 1.0, random.Random(seed), share).lower() for seed in range(400)]
        said = sum(text.startswith(tuple(map(_bare, frame.learned_openers))) for text in texts)
        assert said / 400 == pytest.approx(share, abs=0.07)
    grades = [mean(measure(phrase).grade for phrase in said) for said in (short, learned)]
    assert grades[1] > grades[0] + 6


def test_reading_level_is_chosen_without_the_tone() -> None:
    """However plain or learned its phrases are, a tone asks for the same text."""
    poles = {name: POLES[name] for name in ("elementary", "friendly", "unfriendly")}
    made = MixtureTargets.of(poles, [TOPIC], SAMPLES)
    alone = made.target(0, {"elementary": 0.5}, random.Random(3))
    for tone in ("friendly", "unfriendly"):
        both = made.target(0, {"elementary": 0.5, tone: 1.0}, random.Random(3))
        assert alone is not None
        assert both is not None
        assert ("Rust denotes" in both) is ("Rust denotes" in alone)


def test_the_tone_of_a_mixture_is_learned_where_the_mixture_is() -> None:
    phrases = [_bare(each) for each in (*FRIENDLY_FRAME.learned_openers, *FRIENDLY_FRAME.learned_closers)]
    for is_learned in (True, False):
        pole = replace(POLES["elementary"], is_learned=is_learned)
        made = MixtureTargets.of({"elementary": pole, "friendly": POLES["friendly"]}, [TOPIC], SAMPLES)
        text = made.target(0, {"elementary": 1.0, "friendly": 1.0}, random.Random(0))
        assert text is not None
        assert any(each in text.lower() for each in phrases) is is_learned
    assert [name for name, pole in POLES.items() if pole.is_learned] == ["expert"]


def _only_phrases(text: str, body: str, phrases: Sequence[str]) -> int:
    """How many phrases are in a text of which all the rest is the body, in its order, but for dashes and capitals."""
    known, number, text = {_bare(each) for each in phrases}, 0, text.lower()
    for sentence in body.lower().removesuffix(".").split(". "):
        before, found, text = text.partition(sentence)
        assert found
        said = _bare(before.removeprefix(". "))
        assert not said or said in known
        number += bool(said)
    assert not _bare(text) or _bare(text) in known
    return number + bool(_bare(text))


def _bare(text: str) -> str:
    return text.lower().strip(" \u2013").lstrip(".").strip(" \u2013").rstrip(".!")


def test_the_first_tokens_are_not_learned_where_no_tone_is_to_be_heard(targets: MixtureTargets) -> None:
    found = soup_examples(targets, 60, 0, skip=4, skip_poles=["concise"])
    assert found == soup_examples(targets, 60, 0, skip=4, skip_poles=["concise"])
    for each in found:
        assert each.skip == (4 if "concise" in each.weights and "friendly" not in each.weights else 0)


def test_what_is_measured_is_the_whole_with_its_tone(targets: MixtureTargets) -> None:
    """A tone takes its words from a short answer, and does not come on top of them."""
    draws = range(40)
    with_tone = [targets.target(0, {"concise": 1.0, "friendly": 1.0}, random.Random(draw)) for draw in draws]
    without = [targets.target(0, {"concise": 1.0}, random.Random(draw)) for draw in draws]
    words = [[measure(text).words for text in found if text] for found in (with_tone, without)]
    assert mean(words[0]) < mean(words[1]) + FRIENDLY_FRAME.words(1.0)

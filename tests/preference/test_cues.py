"""What people say of an answer, as directions; and what they say of the world, as nothing."""

import pytest

from soupmix.preference import Trait, Traits
from soupmix.preference.cues import MOST_WORDS, cued, either, is_cue

TRAITS = Traits(
    (Trait("length", "words"), Trait("expertise", "grade"), Trait("style", "vader"), Trait("humour", "sha256:1")),
    "sha256:" + "0" * 64,
)


@pytest.mark.parametrize(
    ("said", "toward"),
    [
        ("shorter please", {"length": -1}),
        ("Could be shorter.", {"length": -1}),
        ("be brief", {"length": -1}),
        ("That was too long!", {"length": -1}),
        ("not so long", {"length": -1}),
        ("less detail", {"length": -1}),
        ("TL;DR", {"length": -1}),
        ("more detail please", {"length": 1}),
        ("too short", {"length": 1}),
        ("longer", {"length": 1}),
        ("not detailed enough", {"length": 1}),
        ("not longer", {"length": -1}),
        ("tell me more", {"length": 1}),
        ("too complicated", {"expertise": -1}),
        ("simpler", {"expertise": -1}),
        ("Explain it like I'm five", {"expertise": -1}),
        ("I don’t understand", {"expertise": -1}),
        ("more technical", {"expertise": 1}),
        ("too simple, I already know that", {"expertise": 1}),
        ("friendlier", {"style": 1}),
        ("a bit too cold", {"style": 1}),
        ("less friendly", {"style": -1}),
        ("don't be so friendly", {"style": -1}),
        ("shorter and simpler, and not so cold please", {"length": -1, "expertise": -1, "style": 1}),
        ("more humour", {"humour": 1}),
        ("less humour please", {"humour": -1}),
        ("No, shorter please", {"length": -1}),
        ("no, be brief", {"length": -1}),
        ("no more detail", {"length": -1}),
        ("don't make it shorter", {"length": 1}),
    ],
)
def test_what_is_asked_for(said: str, toward: dict[str, float]) -> None:
    assert cued(said, TRAITS) == toward
    assert is_cue(said, cued(said, TRAITS))


@pytest.mark.parametrize(
    "said",
    [
        "",
        "   ",
        "How long is the Nile?",
        "shorter, no, longer",
        "What is a short story?",
        "Why is ice cold?",
        "Thanks!",
        "Tell me about friendly dogs",
        "What makes people laugh about humour",
        "Write a very long letter to my landlord about the cold flat and the broken heating this winter",
        "x" * 100_000,
        "long " * (MOST_WORDS + 1),
    ],
)
def test_what_is_said_of_the_world_is_no_cue(said: str) -> None:
    assert cued(said, TRAITS) == {}
    assert not is_cue(said, cued(said, TRAITS))


def test_a_question_may_hold_a_cue_and_is_answered() -> None:
    assert cued("Can you make it shorter?", TRAITS) == {"length": -1}
    assert not is_cue("Can you make it shorter?", {"length": -1.0})


def test_a_measure_that_falls_as_texts_get_harder_turns_the_sign() -> None:
    assert cued("simpler", Traits((Trait("expertise", "zipf"),), TRAITS.of)) == {"expertise": 1}


def test_of_what_adapters_measure_words_say_nothing() -> None:
    """Which end of "formality" an adapter was trained to, its name does not say."""
    assert cued("more formality", Traits((Trait("formality", "reward_formality_0123456789abcdef"),), TRAITS.of)) == {}


def test_a_second_reader_reads_where_the_first_reads_nothing() -> None:
    read = either(cued, lambda text, traits: {"length": 1.0} if "more of that" in text else {})
    assert read("shorter please", TRAITS) == {"length": -1.0}
    assert read("I want more of that", TRAITS) == {"length": 1.0}
    assert read("Thanks!", TRAITS) == {}

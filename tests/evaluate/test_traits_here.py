"""Traits of texts: the same numbers that an evaluation has, and none that needs a library which is not here."""

import pytest

from soupmix.evaluate.measures import TEXT_MEASURES, measure_text
from soupmix.evaluate.measures import here as module
from soupmix.evaluate.measures.here import TextMeasuring, measures_here
from soupmix.evaluate.promptset import Prompt
from soupmix.preference import Trait, Traits

TRAITS = Traits((Trait("length", "words", log=True, centre=4.0), Trait("level", "grade")), "sha256:" + "0" * 64)


def test_values_are_those_of_an_evaluation() -> None:
    text = "The sky is blue. Air scatters blue light more than red light."
    (found,) = TextMeasuring(TRAITS)("Why?", [text])
    every = measure_text(Prompt("Why?", "question", ("sky",)), text, True)
    assert found == {"length": every["words"], "level": every["grade"]}
    some = measure_text(Prompt("Why?", "", ()), text, True, only={"zipf"})
    assert some == {"zipf": every["zipf"]}


@pytest.mark.parametrize("text", ["", "   ", "!!!", "```\ncode\n```"])
def test_a_text_without_words_has_no_traits(text: str) -> None:
    assert TextMeasuring(TRAITS)("Why?", [text, "It is so."])[0] is None


def test_only_what_is_installed_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    assert measures_here() == set(TEXT_MEASURES)
    monkeypatch.setattr(module, "find_spec", lambda name: None if name in ("sklearn", "wordfreq") else object())
    assert set(TEXT_MEASURES) - measures_here() == {"classifier", "zipf", "zipf_body"}

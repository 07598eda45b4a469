"""Plainer and more learned words, as much as a weight means."""

import random
from statistics import mean

import pytest
from wordfreq import zipf_frequency

from soupmix.train.wording import Wording, shipped_wordings
from tests.support import textstat_offline

TEXT = (
    "However, plants utilize light; this enables numerous processes, and they obtain energy. Many people use a big pot. "
    "This helps the well-used seeds. It's the people's way."
)


def test_half_an_amount_is_half_of_the_words() -> None:
    said = Wording({"one": "two"})
    text = " ".join(["One or one."] * 500)
    counts = {amount: said.by_amount(text, amount, random.Random(0)).lower().count("two") for amount in (0, 0.5, 1)}
    assert counts[0] == 0
    assert counts[0.5] == pytest.approx(500, abs=50)
    assert counts[1] == 1000
    assert said.by_amount("One or one.", 1, random.Random(0)) == "Two or two."


def test_the_longest_words_are_said_otherwise_and_only_whole_ones() -> None:
    said = Wording({"in order to": "to", "order": "kind", "to": "at", "kind": "sort"})
    text = "In order to order re-order, orders, order's or order-made kind."
    assert said.by_amount(text, 1, random.Random(0)) == "To kind re-order, orders, order's or order-made sort."


def test_clauses_become_sentences_or_sentences_clauses() -> None:
    parts, joins = Wording({"x": "y"}, parts=True), Wording({"x": "y"}, joins=True)
    text = "It is red, and it is big; leave it. This is all. This rock is old, and old rock is hard."
    assert parts.by_amount(text, 1, random.Random(0)) == (
        "It is red. And it is big. Leave it. This is all. This rock is old, and old rock is hard."
    )
    assert joins.by_amount(text, 1, random.Random(0)) == (
        "It is red, and it is big; leave it, which is all. This rock is old, and old rock is hard."
    )
    assert parts.by_amount(text, 0, random.Random(0)) == joins.by_amount(text, 0, random.Random(0)) == text


@pytest.mark.parametrize(("pole", "sign"), [("elementary", 1), ("expert", -1)])
def test_shipped_words_are_plainer_or_more_learned(pole: str, sign: int) -> None:
    """By word lists and formulas that know nothing of these: more frequent and shorter, or the reverse."""
    counted, instead = textstat_offline.textstat(), shipped_wordings()[pole].instead
    frequency = [zipf_frequency(new, "en") - zipf_frequency(old, "en") for old, new in instead.items()]
    syllables = [counted.syllable_count(new) - counted.syllable_count(old) for old, new in instead.items()]
    assert sign * mean(frequency) > 0.5
    assert -sign * mean(syllables) > 0.5
    said = shipped_wordings()[pole].by_amount(TEXT, 1, random.Random(0))
    assert sign * (counted.flesch_kincaid_grade(TEXT) - counted.flesch_kincaid_grade(said)) > 0.5
    assert all(old == old.lower() and old != new and new.strip() == new for old, new in instead.items())

"""What poles are asked for by: the shipped data, and what a file must hold."""

import json
from itertools import combinations, product
from pathlib import Path

import pytest

from soupmix.errors import EvaluationError
from soupmix.evaluate import held_out_prompts, training_prompts
from soupmix.evaluate.measures import shipped_phrases
from soupmix.evaluate.measures.phrases import grams
from soupmix.evaluate.measures.reading import words_of
from soupmix.evaluate.preferences import read_examples, shipped_examples, shipped_preferences

DIMENSIONS = (("elementary", "expert"), ("concise", "informative"), ("friendly", "unfriendly"))


def test_every_soup_of_shipped_poles_has_examples_of_its_own() -> None:
    sets = {frozenset(poles) for n in (1, 2, 3) for some in combinations(DIMENSIONS, n) for poles in product(*some)}
    found = shipped_examples()
    assert set(found) == sets
    assert {len(shown) for shown in found.values()} == {2}
    assert set(shipped_preferences()) == {pole for poles in sets for pole in poles}


def test_examples_are_no_data_that_adapters_were_trained_on() -> None:
    """Nor are they measured on their questions: no trained phrase, and nothing that any prompt asks about."""
    known = set().union(*(each.grams for each in shipped_phrases().said.values()))
    asked = {word for each in (*training_prompts(), *held_out_prompts()) for word in words_of(each.text)}
    for shown in shipped_examples().values():
        for question, answer in shown:
            assert known.isdisjoint(grams(tuple(words_of(answer)))), answer
            about = {word for word in words_of(question) if len(word) >= 7}
            assert about
            assert about.isdisjoint(asked), question


def test_examples_look_like_what_they_show() -> None:
    found = shipped_examples()
    for poles, shown in found.items():
        count = min(len(answer.split()) for _, answer in shown), max(len(answer.split()) for _, answer in shown)
        assert count[1] <= 20 if "concise" in poles else count[0] >= (100 if "informative" in poles else 15), poles


@pytest.mark.parametrize(
    "given",
    [
        [],
        {},
        {"calm": []},
        {"calm": "ab"},
        {"calm": [["a", "b", "c"]]},
        {"calm": [["a", " "]]},
        {"calm+calm": [["a", "b"]]},
        {"calm+": [["a", "b"]]},
        {"a+b": [["a", "b"]], "b+a": [["a", "b"]]},
    ],
)
def test_a_file_of_something_else_is_one_sentence(tmp_path: Path, given: object) -> None:
    (tmp_path / "examples.json").write_text(json.dumps(given))
    with pytest.raises(EvaluationError, match=r"does not hold examples \(.*\); it must be") as caught:
        read_examples(tmp_path / "examples.json")
    assert caught.value.reason == "examples"

"""The committed prompts: balanced, twinned, harmless in form; and files of others that are not such prompts."""

import json
from collections import Counter
from pathlib import Path

import pytest

from soupmix.errors import EvaluationError
from soupmix.evaluate.promptset import held_out_prompts, training_prompts
from soupmix.evaluate.safety.companionship import seeks_relationship
from soupmix.evaluate.safety.probes import FOLDER, Fact, Pressing, SafetyRequest, questions, read_probes
from soupmix.evaluate.statistics import area_under_curve

REQUESTS = read_probes(SafetyRequest, FOLDER / "requests.jsonl")


def test_every_request_has_a_benign_twin_in_its_category() -> None:
    assert len({each.prompt for each in REQUESTS}) == len(REQUESTS) == 96
    assert set(Counter((each.category, each.ought) for each in REQUESTS).values()) == {8}
    assert len({each.category for each in REQUESTS}) == 6
    twins: dict[str, list[SafetyRequest]] = {}
    for each in REQUESTS:
        twins.setdefault(each.id, []).append(each)
    for two in twins.values():
        assert sorted(each.ought for each in two) == ["answer", "refuse"]
        one, other = ({word.strip(".?,") for word in each.prompt.lower().split()} for each in two)
        assert len(one & other) >= 3, "twins share words"


def test_a_beginning_of_the_file_is_balanced() -> None:
    for count in (12, 24, 48):
        assert set(Counter((each.category, each.ought) for each in REQUESTS[:count]).values()) == {count // 12}


def test_nothing_was_trained_on() -> None:
    known = {each.text for each in [*training_prompts(), *held_out_prompts()]}
    assert not known & {*questions("turns"), *questions("companionship"), *(each.prompt for each in REQUESTS)}


def test_no_question_under_pressure_was_answered_before() -> None:
    """Nineteen turns before, answered in the opposite style, and eight questions: the most that the command takes."""
    asked = questions("turns")
    assert len(set(asked)) == len(asked)
    assert not {*asked[:19]} & {*asked[-8:]}


def test_pressure_puts_texts_in_their_places_as_they_are() -> None:
    for each in read_probes(Pressing, FOLDER / "pressure.jsonl"):
        assert each.text.count("{wish}") == each.text.count("{question}") == 1
        asked = each.asked("Be {question} brief.", "Why {wish}?")
        assert asked.count("Be {question} brief.") == asked.count("Why {wish}?") == 1
    assert {each.kind for each in read_probes(Pressing, FOLDER / "pressure.jsonl")} == {
        "asked",
        "insisted",
        "role-play",
    }


def test_relationship_seeking_is_told_from_help() -> None:
    lines = (Path(__file__).parent / "companionship.jsonl").read_text("utf-8").splitlines()
    labelled = [json.loads(line) for line in lines]
    seeks, helps = (
        [float(seeks_relationship(each["text"])) for each in labelled if each["seeks"] is label]
        for label in (True, False)
    )
    found = area_under_curve(seeks, helps)
    assert found is not None
    assert found.value >= 0.93
    assert sum(helps) == 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"question": "a", "right": "b"}',
        '{"question": "a", "right": "b", "wrong": null}',
        '{"question": "a", "right": "b", "wrong": "c", "more": "d"}',
        '{"question": "a", "question": "a", "right": "b", "wrong": "c"}',
        "\xff",
    ],
)
def test_a_wrong_file_is_one_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "facts.jsonl"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(EvaluationError, match="each line must be") as caught:
        read_probes(Fact, path)
    assert caught.value.reason == "prompts"

"""Preference data of anybody's: what trl's formats mean, and what is refused, with its line."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from soupmix.errors import TrainingError
from soupmix.train import read_pairs
from soupmix.train.examples import Example

ASK = {"role": "user", "content": "Why?"}
RULE = {"role": "system", "content": "Be dry."}
YES, NO = ({"role": "assistant", "content": text} for text in ("Because.", "Ha!"))


def read(folder: Path, *rows: Any) -> list[Example]:
    path = folder / "mine.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), "utf-8")
    return list(read_pairs(path).examples)


def test_every_format_of_trl_is_read(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        {"prompt": "Why?", "chosen": "Because.", "rejected": "Ha!"},
        {"prompt": [ASK], "chosen": [YES], "rejected": [NO]},
        {"chosen": [RULE, ASK, YES], "rejected": [RULE, ASK, NO]},
        {"prompt": "Why?", "chosen": [ASK, YES], "rejected": [ASK, NO], "score_chosen": 3.0, "id": None},
        {"prompt": [RULE, ASK, YES, ASK], "chosen": [YES], "rejected": [NO]},
        "",
        {"prompt": "Why?", "completion": "Because."},
        {"prompt": [ASK], "completion": [YES]},
        {"prompt": [{**ASK, "name": None}], "completion": [YES]},
    )
    assert [(each.asked, each.chosen, each.rejected) for each in found] == [
        ("Why?", "Because.", "Ha!"),
        ((ASK,), "Because.", "Ha!"),
        ((RULE, ASK), "Because.", "Ha!"),
        ((ASK,), "Because.", "Ha!"),
        ((RULE, ASK, YES, ASK), "Because.", "Ha!"),
        ("Why?", "Because.", ""),
        ((ASK,), "Because.", ""),
        ((ASK,), "Because.", ""),
    ]
    assert [each.place for each in found] == [f"line {number} of mine.jsonl" for number in (1, 2, 3, 4, 5, 7, 8, 9)]


GOOD = {"prompt": "Why?", "chosen": "Because.", "rejected": "Ha!"}


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("{", "line 1, column 2: expecting property name"),
        ("[]", "it is no JSON object"),
        ('{"prompt": "a", "prompt": "b", "completion": "c"}', "duplicate key 'prompt'"),
        ("[" * 100_000, "recursion"),
        ({}, "neither a pair nor a completion"),
        ({**GOOD, "completion": "x"}, "both a pair and a completion"),
        ({"prompt": "Why?", "chosen": "Because."}, "rejected must be a text or a list"),
        ({**GOOD, "rejected": "Because."}, "chosen and rejected are the same"),
        ({**GOOD, "chosen": None}, "chosen must be a text or a list"),
        ({**GOOD, "chosen": " "}, "chosen must be a text of 1 to"),
        ({**GOOD, "chosen": "x" * 32_001}, "chosen must be a text of 1 to 32000 characters"),
        ({**GOOD, "prompt": 3}, "prompt must be a text or a list"),
        ({"chosen": "Because.", "rejected": "Ha!"}, "it has no prompt"),
        ({"chosen": [YES], "rejected": [NO]}, "it has no prompt, and the answers do not begin with one"),
        ({"chosen": [ASK, YES], "rejected": [RULE, NO]}, "it has no prompt, and the answers do not begin with one"),
        ({**GOOD, "chosen": [YES]}, "chosen and rejected are a text and a list"),
        ({"prompt": "How?", "chosen": [ASK, YES], "rejected": [ASK, NO]}, "that do not begin with its prompt"),
        ({"prompt": [ASK, YES], "completion": [NO]}, "its prompt ends with a message of the assistant"),
        ({"prompt": [ASK], "completion": [ASK]}, "completion must be one message of the assistant"),
        ({"prompt": [ASK], "chosen": [YES, ASK], "rejected": [NO]}, "chosen must be one message of the assistant"),
        ({"prompt": [], "completion": "x"}, "prompt must be a text or a list of 1 to 64 messages"),
        ({"prompt": [ASK] * 65, "completion": "x"}, "prompt must be a text or a list of 1 to 64 messages"),
        ({"prompt": [{"role": "tool", "content": "x"}], "completion": "x"}, "a message of prompt must be"),
        (
            {"prompt": [{"role": "user", "content": [{"type": "text"}]}], "completion": "x"},
            "a message of prompt must be",
        ),
        ({"prompt": [{**ASK, "tool_calls": [1]}], "completion": "x"}, "'tool_calls', which is not read"),
        ('{"prompt": "\\ud800", "completion": "x"}', "it is not text in UTF-8"),
    ],
)
def test_what_is_wrong_is_one_sentence_with_its_line(tmp_path: Path, row: Any, why: str) -> None:
    with pytest.raises(TrainingError) as refusal:
        read(tmp_path, GOOD, row)
    assert str(refusal.value).startswith("line 2 of mine.jsonl: ")
    assert why in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert refusal.value.reason == "pairs"


def test_an_empty_file_and_a_missing_one(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="holds no line"):
        read(tmp_path, "", " ")
    with pytest.raises(TrainingError) as refusal:
        read_pairs(tmp_path / "none.jsonl")
    assert refusal.value.reason == "missing"


def test_a_file_of_empty_lines_takes_no_more_memory_than_it_has_bytes(tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_bytes(b"\n" * (16 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(TrainingError, match="more than 50000 lines"):
            read_pairs(tmp_path / "mine.jsonl")
        assert tracemalloc.get_traced_memory()[1] < 40 << 20
    finally:
        tracemalloc.stop()

"""The committed prompts, and prompt files of other people."""

from collections import Counter
from pathlib import Path

import pytest

from soupmix.errors import EvaluationError
from soupmix.evaluate import held_out_prompts, read_prompts, training_prompts


def test_the_prompt_sets_are_large_varied_and_apart() -> None:
    train, held = training_prompts(), held_out_prompts()
    assert len(train) >= 240
    assert len(held) >= 60
    trained_kinds = {p.kind for p in train}
    assert {"howto", "advice", "comparison", "explanation", "everyday"} <= trained_kinds
    assert sum(p.kind not in trained_kinds for p in held) >= 20
    texts = [p.text.lower() for p in [*train, *held]]
    assert max(Counter(texts).values()) == 1
    assert not {p.topic[0] for p in train} & {p.topic[0] for p in held}


@pytest.mark.parametrize(
    "line", ["{", '{"prompt": 3, "kind": "x", "topic": ["a"]}', '{"prompt": "x", "kind": "x", "topic": []}', "[]"]
)
def test_a_bad_prompt_file_is_one_sentence(tmp_path: Path, line: str) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(EvaluationError, match=r"each line must be \{\"prompt\""):
        read_prompts(path)

"""Whether an answer holds what every answer to its question should: does a soup still know what the base knows?"""

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path

from soupmix.evaluate.measures.reading import ReadText

__all__ = ["key_facts", "known_facts", "recall"]

_FILE = Path(__file__).parents[1] / "prompts" / "facts.jsonl"


@lru_cache(maxsize=1)
def key_facts() -> Mapping[str, tuple[tuple[str, ...], ...]]:
    """Question -> facts, each of which is said by any of some spellings in lower case."""
    rows = (json.loads(line) for line in _FILE.read_text("utf-8").splitlines())
    return {row["prompt"]: tuple(map(tuple, row["facts"])) for row in rows}


def recall(reading: ReadText, question: str) -> float | None:
    """Share of the key facts of a question that an answer holds, [0, 1]; None where it is not one of `key_facts`.

    A spelling is found at the beginning of a word, a number only as a whole.
    """
    facts = key_facts().get(question)
    if facts is None:
        return None
    said = " ".join("".join(c if c.isalnum() else " " for c in reading.text.lower()).split())
    return sum(any(_says(said, way) for way in ways) for ways in facts) / len(facts)


def known_facts(answers: Iterable[tuple[str, float]]) -> frozenset[str]:
    """The questions that count: those that the bare base itself answers with all of their key facts.

    Args:
        answers: (question, recall) of the base, greedy.
    """
    return frozenset(question for question, found in answers if found == 1.0)


def _says(said: str, spelling: str) -> bool:
    whole = f"{spelling} " if len(spelling) < 4 else spelling
    return f" {whole}" in f" {said} "

"""Whether an answer holds what every answer to its question should: does a soup still know what the base knows?"""

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from soupmix.evaluate.measures.reading import ReadText
from soupmix.evaluate.soups import BASE

__all__ = ["key_facts", "only_known", "recall"]

Values = Mapping[tuple[str, str], Mapping[str, float]]

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


def only_known(tables: Mapping[float, Values]) -> dict[float, dict[tuple[str, str], Mapping[str, float]]]:
    """The same values, with recall only of questions whose key facts the bare base all says: what it never knew no soup can lose.

    Args:
        tables: temperature -> (arm, prompt) -> measure -> value; the lowest temperature tells what the base knows.
    """
    told = tables[min(tables)] if tables else {}
    known = {prompt for (arm, prompt), values in told.items() if arm == BASE and values.get("recall") == 1.0}
    return {
        temperature: {key: values if key[1] in known else _without(values) for key, values in table.items()}
        for temperature, table in tables.items()
    }


def _without(values: Mapping[str, float]) -> Mapping[str, float]:
    return {name: value for name, value in values.items() if name != "recall"}


def _says(said: str, spelling: str) -> bool:
    whole = f"{spelling} " if len(spelling) < 4 else spelling
    return f" {whole}" in f" {said} "

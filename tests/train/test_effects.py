"""The card of an adapter says how it was made, whatever way that was."""

from typing import Any

import pytest

from soupmix.base import Base
from soupmix.train import POLES, Pole
from soupmix.train.effects import adapter_card

ALONE = {
    "method": "sft",
    "epochs": 1.0,
    "learning_rate": 7e-4,
    "batch": 4,
    "rank": 8,
    "alpha": 16,
    "init_seed": 0,
    "seed": 0,
    "pairs": 128,
    "response_tokens": 224,
}
GIVEN = {**ALONE, "given": {"name": "mine.jsonl", "sha256": "0" * 64}, "cut": 3}
SOUP = {
    "arm": "together",
    "mode": "full",
    "examples": 384,
    "beside": ["dry", "friendly"],
    "steps": 48,
    "batch": 8,
    "learning_rate": 3e-4,
    "seed": 0,
}
DRY = Pole("dry", "humour")
CASES: dict[str, tuple[Pole, dict[str, Any], tuple[str, ...]]] = {
    "alone": (POLES["friendly"], ALONE, ("- data: answers to 128 prompts", "`soupmix train OUT` (")),
    "given": (
        DRY,
        GIVEN,
        (
            "3 of their answers are longer than 224 tokens",
            "`soupmix train OUT --dimension humour --pole dry --pairs mine",
        ),
    ),
    "described": (DRY, ALONE, ("`soupmix train OUT --poles FILE` (",)),
    "together": (
        POLES["friendly"],
        {**ALONE, "soup": SOUP},
        (
            "- data: ",
            "- in mixtures: 384 of dry, friendly, all of them learning; 48 steps of 8",
            "OUT --together --mixtures 384 --rate 0.0003 --seed 0` (",
        ),
    ),
    "with a store": (
        POLES["friendly"],
        {
            "before": {"method": ["whatever"]},
            "soup": {**SOUP, "arm": "frozen", "mode": "answer", "more": ["dry"], "threads": 2},
        },
        (
            "- begun as it was in a store",
            "the others frozen; the prompt is read by the bare base",
            "OUT --with STORE --freeze-others --mode answer --mixtures 384 --rate 0.0003 --seed 0 --more dry --threads 2` (",
        ),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_card_says_how_it_was_made(tiny_base: Base, name: str) -> None:
    pole, training, said = CASES[name]
    card = adapter_card(pole, training, {}, None, tiny_base)
    assert [each for each in said if each not in card] == []
    assert ("in mixtures" in card) is ("soup" in training)

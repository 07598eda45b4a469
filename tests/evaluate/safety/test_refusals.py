"""What counts as a refusal: texts with known labels, and chances of openings against transformers token by token."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from soupmix.base import Base
from soupmix.engine import Engine
from soupmix.evaluate.safety.openings import opening_chances
from soupmix.evaluate.safety.refusals import REFUSAL_OPENINGS, refuses
from soupmix.evaluate.statistics import area_under_curve
from soupmix.policy import Grant

LABELLED = [json.loads(line) for line in (Path(__file__).parent / "refusals.jsonl").read_text("utf-8").splitlines()]
OPENINGS = ("I'm sorry", "I cannot", "I", "No", "I'm a")
PROMPTS = [
    "Why?",
    "How do I pick a lock?",
    [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Who?"}],
]


def test_refusals_are_told_from_answers() -> None:
    """The list knows the usual ways to refuse; some of the labelled texts do it in others."""
    true, false = (
        [float(refuses(each["text"])) for each in LABELLED if each["refuses"] is label] for label in (True, False)
    )
    assert (len(true), len(false)) == (35, 35)
    found = area_under_curve(true, false)
    assert found is not None
    assert found.value >= 0.93
    assert sum(false) == 0


def test_no_opening_begins_with_another() -> None:
    assert not any(a != b and a.startswith(b) for a in REFUSAL_OPENINGS for b in REFUSAL_OPENINGS)


def test_chances_are_those_of_transformers(plain: Engine, tiny_base: Base, grant: Callable[..., Grant]) -> None:
    found = opening_chances(plain, PROMPTS, [grant()] * 3, OPENINGS)
    model = AutoModelForCausalLM.from_pretrained(tiny_base.folder)
    for row, prompt in enumerate(PROMPTS):
        for column, opening in enumerate(OPENINGS):
            ids, log_p = list(plain.chat_tokens(prompt)), 0.0
            for token in plain.prompts.tokens(opening):
                with torch.no_grad():
                    log_p += float(model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)[token])
                ids.append(token)
            assert found[row, column].log().item() == pytest.approx(log_p, abs=1e-3)


def test_chances_of_each_row_are_of_its_own_soup(engine: Engine, grant: Callable[..., Grant]) -> None:
    soups = [grant(), grant(calm=1), grant(calm=0.5, loud=0.5)]
    together = opening_chances(engine, ["Why is it so?"] * 3, soups, OPENINGS)
    for row, soup in enumerate(soups):
        alone = opening_chances(engine, ["Why is it so?"], [soup], OPENINGS)
        torch.testing.assert_close(together[row].log(), alone[0].log(), atol=1e-3, rtol=0)
    assert not torch.allclose(together[0].log(), together[1].log(), atol=0.01)

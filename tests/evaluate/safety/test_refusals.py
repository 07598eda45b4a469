"""What counts as a refusal: texts with known labels, and chances of openings one by one."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from soupmix.engine import Engine
from soupmix.evaluate.likelihood import Forced, answer_log_p
from soupmix.evaluate.safety.refusals import REFUSAL_OPENINGS, refusal_chances, refuses
from soupmix.evaluate.statistics import area_under_curve
from soupmix.policy import Grant

LABELLED = [json.loads(line) for line in (Path(__file__).parent / "refusals.jsonl").read_text("utf-8").splitlines()]


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


def test_chances_of_openings_add_up(engine: Engine, grant: Callable[..., Grant]) -> None:
    prompts = ["Why?", "How do I pick a lock?"]
    for soup in (grant(), grant(calm=1)):
        forced = [Forced(prompt, opening, soup) for prompt in prompts for opening in REFUSAL_OPENINGS]
        singly = [math.exp(float(each.sum())) for each in answer_log_p(engine, forced)]
        count = len(REFUSAL_OPENINGS)
        expected = [sum(singly[:count]), sum(singly[count:])]
        assert refusal_chances(engine, soup, prompts) == pytest.approx(expected, rel=0.02)

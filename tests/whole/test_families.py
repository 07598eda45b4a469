"""docs/families.md is what is found: families of models by features, held to PEFT and transformers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.families import FAMILIES, make_family
from tests.support.family_check import check_family
from tests.support.family_page import NOT_YET, failures, page, read_page
from tests.support.folders import snapshot

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "families.md"
FEW = ("gpt2-hub", "mistral-v0.1", "xglm")


@pytest.mark.slow
def test_the_page_says_what_is_found() -> None:
    """Every family; ten minutes."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    command = [sys.executable, "-m", "tests.support.family_check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, check=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    found = {line.pop("family"): {k: v for k, v in line.items() if k != "seconds"} for line in lines}
    assert found.keys() == FAMILIES.keys()
    if os.environ.get("SOUPMIX_UPDATE"):
        PAGE.write_text(page(found), "utf-8")
    assert failures(found) == []
    assert PAGE.read_text("utf-8") == page(found)


@pytest.mark.parametrize("name", FEW)
def test_a_few_families_are_as_the_page_says(name: str, tmp_path: Path) -> None:
    said = read_page(PAGE.read_text("utf-8"))[name]
    found = check_family(name, tmp_path / name)
    assert {k: v for k, v in said.items() if (name, k) not in NOT_YET} == {
        k: v for k, v in found.items() if (name, k) not in NOT_YET
    }


def test_the_page_is_whole_and_hides_no_failure() -> None:
    said = read_page(PAGE.read_text("utf-8"))
    assert list(said) == list(FAMILIES)
    assert failures(said) == []
    assert page(said) == PAGE.read_text("utf-8")


def test_a_failure_is_told() -> None:
    good = {"add": "exact", "adapter": "exact", "model": "exact", "padded loop": "exact", "running batch": "exact"}
    bad = {"llama3": good | {"serve": "WRONG: 1 of 6 answers are those of transformers"}}
    bad |= {"gpt2": good | {"serve": "crash: KeyError: a | b"}}
    assert len(failures(bad)) == 2
    assert read_page(page(bad)) == bad


def test_a_family_is_the_same_bytes_each_time(tmp_path: Path) -> None:
    made = [snapshot(make_family("deepseek-v3-hub", tmp_path / name)) for name in "ab"]
    assert made[0] == made[1]
    assert len(made[0]) > 4

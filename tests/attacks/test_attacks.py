"""Every attack, each in a forked process with little memory and time, ends in its own refusal and in nothing else."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from soupmix.store import Store, read_adapter
from tests.attacks import every
from tests.attacks.on_bases import base, use
from tests.attacks.on_stores import store
from tests.support.adapter_folder import SHAPES, adapter
from tests.support.cage import MEMORY, caged

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def outcomes() -> dict[str, dict[str, Any]]:
    """How every attack ended."""
    command = [sys.executable, "-m", "tests.attacks"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=ROOT, env=os.environ | {"GOMP_SPINCOUNT": "0"}
    )
    assert done.returncode == 0, done.stderr
    return {said["name"]: said for said in map(json.loads, done.stdout.splitlines())}


def test_the_sound_folder_the_sound_store_and_the_sound_base_are_read(tmp_path: Path) -> None:
    assert set(read_adapter(adapter(tmp_path / "adapter"), SHAPES)) == set(SHAPES)
    opened = Store(store(tmp_path))
    assert set(opened.load("expert", opened["expert"].digest).modules) == set(SHAPES)
    assert use(base(tmp_path / "base"), tmp_path / "cache") == "hi"


@pytest.mark.parametrize("attack", every.ATTACKS, ids=lambda attack: attack.name)
def test_attack_is_refused(attack: every.Attack, outcomes: dict[str, dict[str, Any]]) -> None:
    said = outcomes[attack.name]
    assert "crash" not in said, said
    assert (said["error"], said["reason"]) == (attack.error.__name__, attack.reason), said.get("trace")
    assert said["message"].isprintable(), said["message"]
    assert 0 < len(said["message"]) <= 1000
    assert said["grown"] < MEMORY
    assert said["seconds"] < 10


def test_names_are_unique_and_many() -> None:
    counted = Counter(attack.name for attack in every.ATTACKS)
    assert [name for name, count in counted.items() if count > 1] == []
    assert len(counted) >= 60
    assert all(attack.reason for attack in every.ATTACKS)


def test_the_document_lists_them_all() -> None:
    assert (ROOT / "docs" / "attacks.md").read_text("utf-8") == every.document()


def test_a_cage_holds() -> None:
    """The control: what eats memory, ends the process or passes is seen as such."""
    eater = caged(lambda: bytearray(2 * MEMORY))
    assert eater["error"] == "MemoryError"
    assert "crash" in caged(lambda: os.kill(os.getpid(), 9))
    assert caged(lambda: None)["error"] is None

"""`soupmix adapters extract`, as a shell sees it."""

import json
import re
from collections.abc import Callable
from pathlib import Path

from soupmix.base import Base
from tests.support.tuned import Tuned

Run = Callable[..., tuple[int, str, str]]


def test_extract_and_add(run: Run, adapter_of: Callable[[str], Tuned], tiny_base: Base, tmp_path: Path) -> None:
    source, out = adapter_of("loha").folder, tmp_path / "out"
    code, said, told = run("adapters", "extract", source, out, "--base", tiny_base.folder)
    assert (code, "rank 9, misses" in said) == (0, True)
    header, *rows = told.splitlines()
    assert re.split("  +", header) == [
        "layer",
        "norm",
        "rank for 1e-05",
        "rank for 0.01",
        "rank for 0.1",
        "missed at rank 16",
    ]
    assert len(rows) == 7
    assert rows[-1].split()[:2] == ["in", "all"]
    assert rows[-1].split()[3] == "9"
    code, _, told = run(
        "adapters", "add", out, "--dimension", "tone", "--pole", "calm", "--base", tiny_base.folder, "--store", tmp_path / "s"
    )  # fmt: skip
    assert code == 0, told


def test_a_refusal_comes_with_the_table(
    run: Run, adapter_of: Callable[[str], Tuned], tiny_base: Base, tmp_path: Path
) -> None:
    source, out = adapter_of("oft").folder, tmp_path / "out"
    code, said, told = run("adapters", "extract", source, out, "--base", tiny_base.folder, "--rank", 1)
    assert (code, said) == (1, "")
    assert "in all" in told
    assert "soupmix: a LoRA of rank 1 misses" in told
    assert not out.exists()
    code, said, told = run(
        "adapters", "extract", source, out, "--base", tiny_base.folder, "--rank", 1, "--error", 1, "--json"
    )  # fmt: skip
    assert code == 0
    assert "soupmix: warning: the adapter misses" in told
    facts = json.loads(said)
    assert (facts["rank"], facts["source"]["method"]) == (1, "OFT")
    assert facts["error"]["total"] > 0.5
    assert set(facts["digests"]) == {path.name for path in out.iterdir()}


def test_nothing_is_computed_for_a_place_that_is_taken(
    run: Run, adapter_of: Callable[[str], Tuned], tiny_base: Base, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    code, _, told = run("adapters", "extract", adapter_of("oft").folder, tmp_path / "out", "--base", tiny_base.folder)
    assert code == 1
    assert told.startswith("soupmix: ")
    assert "exists already" in told

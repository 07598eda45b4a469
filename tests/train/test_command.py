"""`soupmix train`: options that do nothing together are refused before any work."""

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--mode", "answer"], "--mode goes with --together or --with DIR"),
        (["--skip", "4"], "--skip goes with --together or --with DIR"),
        (["--more", "expert"], "--more goes with --together or --with DIR"),
        (["--freeze-others"], "--freeze-others goes with --together or --with DIR"),
        (["--dimension", "humour"], "--dimension goes with --pairs FILE"),
        (["--pairs", "x.jsonl"], "--pairs FILE goes with one --pole NAME"),
        (["--poles", "x.yaml", "--dimension", "humour"], "leave out --pairs and --dimension"),
        (["--poles", "x.yaml", "--pairs", "x.jsonl"], "leave out --pairs and --dimension"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_would_do_nothing_is_refused(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path, options: list[str], why: str
) -> None:
    code, _, said = run("train", tmp_path / "out", *options)
    assert code == 2
    assert why in said
    assert not (tmp_path / "out").exists()


def test_more_of_a_pole_that_is_in_no_mixture_is_refused(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    code, _, said = run("train", tmp_path / "out", "--together", "--more", "rude")
    assert code == 1
    assert "pole 'rude' cannot be in more mixtures, as it is in none; choose from concise, elementary" in said
    assert not (tmp_path / "out").exists()

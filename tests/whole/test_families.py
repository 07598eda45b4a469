"""Families of models as transformers builds them."""

from pathlib import Path

from tests.support.families import make_family
from tests.support.folders import snapshot


def test_a_family_is_the_same_bytes_each_time(tmp_path: Path) -> None:
    made = [snapshot(make_family("deepseek-v3-hub", tmp_path / name)) for name in "ab"]
    assert made[0] == made[1]
    assert len(made[0]) > 4

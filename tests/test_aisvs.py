"""Every test that docs/aisvs.md and docs/threats.md name exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NAMED = re.compile(r"\btests/[a-z_/]+(?:\.py)?(?:::\w+)?")


@pytest.mark.parametrize("page", ["aisvs.md", "threats.md"])
def test_what_is_named_exists(page: str) -> None:
    named = set(NAMED.findall((ROOT / "docs" / page).read_text("utf-8")))
    assert len(named) > 6
    for each in sorted(named):
        path, _, test = each.partition("::")
        assert (ROOT / path).exists(), each
        assert not test or f"def {test}(" in (ROOT / path).read_text("utf-8"), each


def test_every_control_is_listed_once() -> None:
    rows = re.findall(r"^\| (\d+\.\d+\.\d+) \|", (ROOT / "docs" / "aisvs.md").read_text("utf-8"), re.MULTILINE)
    assert len(rows) == len(set(rows)) >= 14

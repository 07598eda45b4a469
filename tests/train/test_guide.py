"""docs/train.md is followed: a new dimension from a file, trained, added to a store, and heard."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from soupmix.files import strict_json
from soupmix.store import Store

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_guide_gives_a_dimension(tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    block = re.findall(r"^```sh\n(.*?)^```", (ROOT / "docs/train.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)[0]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    made = subprocess.run(
        ["bash", "-e"],
        input=block,
        cwd=tmp_path,
        env=os.environ | {"PATH": path, "SOUPMIX_DATA": str(tmp_path / "data")},
        text=True,
        capture_output=True,
        check=True,
    )
    assert made.stdout.strip().splitlines()[-1]
    (manifest,) = (tmp_path / "data").rglob("manifest.json")
    mine = Store(manifest.parent)  # the user's own, over the shipped one
    assert set(mine.names) - set(Store.shipped().names) == {"dry"}
    effect = strict_json((tmp_path / "out/humour/dry/effect.json").read_bytes())
    assert effect["margin"]["adapter"] > effect["margin"]["base"] + 0.15
    words = {arm: effect[arm]["metrics"]["words"]["mean"] for arm in ("base", "adapter")}
    assert words["adapter"] < words["base"] / 3  # the examples' length is learned too, as the guide says

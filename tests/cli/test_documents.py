"""What README and docs/batch.md show on a command line is what a reader gets: every `$ soupmix` line runs, output is compared."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)


def commands(document: str) -> list[tuple[str, list[str]]]:
    """(command, lines of output shown) of every console block of a document, in order."""
    found: list[tuple[str, list[str]]] = []
    for block in BLOCK.findall((ROOT / document).read_text("utf-8")):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            else:
                found[-1][1].append(line)
    return [(command, shown) for command, shown in found if command.startswith("soupmix ")]


@pytest.mark.parametrize(("document", "least"), [("README.md", 4), ("docs/batch.md", 2)])
def test_commands_run_as_shown(tmp_path: Path, document: str, least: int) -> None:
    shown = commands(document)
    assert len(shown) >= least
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    for command, expected in shown:
        words = [str(Path(sys.executable).parent / "soupmix"), *shlex.split(command)[1:]]
        done = subprocess.run(
            words,
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env={**os.environ, "COLUMNS": "120"},
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        for line in filter(str.strip, expected):
            if line.strip() != "...":
                assert line.strip() in done.stdout + done.stderr, (
                    f"{command}\nmissing: {line}\n{done.stdout}{done.stderr}"
                )


@pytest.mark.parametrize("path", sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")]), ids=lambda p: p.name)
def test_links_inside_the_documents_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)\)", path.read_text("utf-8")):
        if not target.startswith(("http:", "https:")):
            assert (path.parent / target).exists(), f"{path.name} links to {target}, which does not exist"

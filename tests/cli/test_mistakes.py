"""What is said of mistakes: one rule of exit codes for every command, and the page that lists what they say.

`SOUPMIX_UPDATE=1 .venv/bin/pytest -m slow tests/cli/test_mistakes.py` writes `docs/mistakes.md`.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., tuple[int, str, str]]

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "mistakes.md"
NOWHERE = [
    "adapters add nowhere --dimension d --pole p",
    "adapters list --store nowhere",
    "ask grade=8 --store nowhere",
    "audit verify nowhere",
    "audit export nowhere",
    "batch nowhere.jsonl out.jsonl",
    "batch nowhere.csv out.csv",
    "chat hi --base ./nowhere",
    "chat hi --store nowhere",
    "chat hi --lora dry=nowhere",
    "clamp -w friendly=0.5 --policy nowhere.yaml",
    "clamp -w friendly=0.5 --store nowhere",
    "merge nowhere.yaml out",
    "merge -w friendly=0.5 --policy nowhere.yaml out",
    "merge -w friendly=0.5 --sign nowhere.pem out",
    "merge -w friendly=0.5 --sign-model nowhere.pem out",
    "policy check nowhere.yaml",
    "policy explain nowhere.yaml",
    "policy diff nowhere.yaml nowhere.yaml",
    "policy test nowhere.yaml nowhere.yaml",
    "serve --policy nowhere.yaml --allow-unsigned --no-auth --port 0",
    "serve --trust organisation=nowhere,root.json --no-auth --port 0",
    "serve --open --no-auth --store nowhere --port 0",
    "serve --open --no-auth --chat-template nowhere.jinja --port 0",
    "serve --open --no-auth --shared-prefix nowhere.txt --port 0",
    "trust verify nowhere nowhere.json",
    "verify nowhere",
]
"""A file or a folder that is not there: exit code 1, whatever it is for."""

SENSELESS = [
    "adapters show freindly",
    "clamp -w freindly=0.5",
    "clamp -w friendly=1,5",
    "clamp -w friendly=much",
    "clamp -w friendly=0.5 --attribute minor",
    "merge -w friendly=0.5 --method best out",
    "merge -w friendly=0.5",
    "serve",
    "serve --open --no-auth --host 0.0.0.0",
    "serve --policy nowhere.yaml --no-auth",
    "policy test nowhere.yaml",
    "verify",
    "taste",
]
"""What cannot be meant: exit code 2."""

HEAD = """\
# Mistakes, and what is said of them

Written by `SOUPMIX_UPDATE=1 .venv/bin/pytest -m slow tests/cli/test_mistakes.py`, which runs every line in an empty
folder. A file that is missing is exit code 1, whatever it is for; what makes no sense 2; a refusal by a policy 3
([deploy.md](deploy.md#scripts)). Over HTTP: [serving.md](serving.md#errors).

| `soupmix` | code | what is said |
|---|---|---|
"""


@pytest.fixture
def said(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], tuple[int, str]]:
    """Run a line in an empty folder: its exit code, and the last line of what it says."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SOUPMIX_BASE", raising=False)

    def call(line: str) -> tuple[int, str]:
        code, out, err = run(*line.split())
        assert out == ""
        assert "Traceback" not in err
        assert list(tmp_path.iterdir()) == [], line
        return code, err.strip().splitlines()[-1]

    return call


QUICK = ("adapters list", "audit", "clamp", "policy", "verify")


def test_whatever_is_not_there_is_exit_code_one(said: Callable[[str], tuple[int, str]]) -> None:
    lines = [line for line in NOWHERE if line.startswith(QUICK)]
    assert {line: said(line)[0] for line in lines} == dict.fromkeys(lines, 1)


@pytest.mark.slow
def test_every_mistake_is_a_sentence_with_its_code(said: Callable[[str], tuple[int, str]]) -> None:
    made = {line: said(line) for line in (*NOWHERE, *SENSELESS)}
    assert {line: code for line, (code, _) in made.items()} == {
        **dict.fromkeys(NOWHERE, 1),
        **dict.fromkeys(SENSELESS, 2),
    }
    for line, (_, text) in made.items():
        assert re.match(r"(soupmix|Error): .", text), (line, text)
    rows = (f"| `{line}` | {code} | {_cell(text)} |\n" for line, (code, text) in made.items())
    page = HEAD + "".join(rows)
    if os.environ.get("SOUPMIX_UPDATE"):
        PAGE.write_text(page, "utf-8")
    assert PAGE.read_text("utf-8") == page


def _cell(text: str) -> str:
    return re.sub(r"^(soupmix|Error): ", "", text).replace("|", r"\|")

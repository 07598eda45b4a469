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

UNREADABLE = [
    "adapters add folder --dimension d --pole p",
    "adapters add empty --dimension d --pole p",
    "adapters add null --dimension d --pole p",
    "adapters add nan --dimension d --pole p",
    "adapters list --store null-store",
    "adapters list --store empty",
    "audit verify folder",
    "audit verify folder --key empty",
    "chat hi --base empty",
    "chat hi --chat-template empty",
    "chat hi --chat-template folder",
    "clamp -w friendly=0.5 --policy folder",
    "clamp -w friendly=0.5 --policy empty.yaml",
    "clamp -w friendly=0.5 --policy latin.yaml",
    "clamp -w friendly=0.5 --policy deep.yaml",
    "clamp -w friendly=0.5 --policy nan-policy.yaml",
    "clamp -w friendly=0.5 --policy null-policy.yaml",
    "clamp -w friendly=0.5 --policy twice.yaml",
    "merge folder out",
    "merge -w friendly=0.5 empty",
    "merge -w friendly=0.5 folder",
    "merge -w friendly=0.5 /proc/out",
    "merge -w friendly=0.5 --sign folder out",
    "policy init folder",
    "policy explain folder",
    "policy explain empty.yaml",
    "serve --open --no-auth --port 0 --database folder",
    "serve --open --no-auth --port 0 --audit empty",
    "serve --open --no-auth --port 0 --shared-prefix folder",
    "trust verify folder empty",
    "verify folder",
    "verify empty",
    "verify null-result",
]
"""What is there and is not what it should be, or a place where nothing can be written: exit code 1."""

SENSELESS = [
    "adapters show freindly",
    "clamp -w freindly=0.5",
    "clamp -w friendly=1,5",
    "clamp -w friendly=much",
    "clamp -w friendly=nan",
    "clamp -w friendly=1e400",
    "clamp -w friendly=٠.٥",
    "clamp -w frіendly=0.5",
    "clamp -w friendly=0.5,friendly=0.6",
    "clamp -w =1",
    "clamp",
    "clamp -w friendly=0.5 --attribute age=3",
    "clamp -w friendly=0.5 --attribute audience=",
    "adapters remove freindly",
    "ask colour=3",
    "batch empty.csv out.csv",
    "batch empty.csv out.txt",
    "chat hi --temperature nan",
    "chat hi --device gpu",
    "chat hi --lora dry",
    "chat hi --max-new-tokens 0",
    "learn forget",
    "merge empty.yaml out",
    "merge latin.yaml out",
    "merge nan.yaml out",
    "merge null.yaml out",
    "merge deep.yaml out",
    "merge -w friendly=0 out",
    "merge -w friendly=0.5 --rank 0 out",
    "merge -w friendly=0.5 --density 0.5 out",
    "serve --open --no-auth --port 99999",
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

REFUSED = ["clamp -w friendly=0.5 --policy refusing.yaml", "merge -w friendly=0.5 --policy refusing.yaml out"]
"""What a policy refuses: exit code 3."""

CODES: dict[int, tuple[str, ...]] = {1: (*NOWHERE, *UNREADABLE), 2: tuple(SENSELESS), 3: tuple(REFUSED)}

_POLICY = "tier: law\nissuer: me\nversion: 1\nrules: [{rule: bounds, adapter: friendly, at_most: %s, mode: refuse}]\n"
FILES = {
    "empty": b"",
    "empty.csv": b"",
    "empty.yaml": b"",
    "latin.yaml": b"weights: {fr\xe9: 1}\n",
    "deep.yaml": b"weights: " + b"[" * 5000 + b"]" * 5000,
    "nan.yaml": b"weights: {friendly: .nan}\n",
    "null.yaml": b"weights: null\n",
    "nan-policy.yaml": (_POLICY % ".nan").encode(),
    "refusing.yaml": (_POLICY % "0.1").encode(),
    "null-policy.yaml": b"tier: law\nissuer: null\nversion: 1\nrules: null\n",
    "twice.yaml": b"tier: law\ntier: user\nissuer: me\nversion: 1\nrules: []\n",
    "null/adapter_config.json": b"null",
    "nan/adapter_config.json": b'{"peft_type": "LORA", "r": 4, "lora_alpha": NaN}',
    "null-store/manifest.json": b"null",
    "null-result/soupmix_digests.json": b"null",
}
"""What lies in the folder in which every line is run, beside an empty `folder`."""

HEAD = """\
# Mistakes, and what is said of them

Written by `SOUPMIX_UPDATE=1 .venv/bin/pytest -m slow tests/cli/test_mistakes.py`, which runs every line in a
folder with files that are empty or damaged, and no line leaves anything behind. A file that is missing or is not what
it should be is exit code 1, whatever it is for; what makes no sense 2; a refusal by a policy 3
([deploy.md](deploy.md#scripts)). Over HTTP: [serving.md](serving.md#errors).

| `soupmix` | code | what is said |
|---|---|---|
"""


@pytest.fixture
def said(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], tuple[int, str]]:
    """Run a line among these files: its exit code, and the last line of what it says."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SOUPMIX_BASE", raising=False)
    monkeypatch.setenv("SOUPMIX_DATA", str(tmp_path / "folder" / "data"))
    (tmp_path / "folder").mkdir()
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    before = sorted(tmp_path.rglob("*"))

    def call(line: str) -> tuple[int, str]:
        code, out, err = run(*line.split())
        assert out == ""
        assert "Traceback" not in err
        assert sorted(tmp_path.rglob("*")) == before, line
        assert all((tmp_path / name).read_bytes() == content for name, content in FILES.items()), line
        return code, err.strip().splitlines()[-1].replace(str(tmp_path), "...")

    return call


QUICK = ("adapters", "audit", "clamp", "policy", "verify", "merge")
"""What loads no model."""


def test_the_page_is_what_is_said_now(said: Callable[[str], tuple[int, str]]) -> None:
    written = PAGE.read_text("utf-8")
    assert re.findall(r"^\| `(.*?)` \|", written.removeprefix(HEAD), re.MULTILINE) == [*sum(CODES.values(), ())]
    for code, lines in CODES.items():
        for line in lines:
            if line.startswith(QUICK):
                assert _row(line, said, code) in written


@pytest.mark.slow
def test_every_mistake_is_a_sentence_with_its_code(said: Callable[[str], tuple[int, str]]) -> None:
    page = HEAD + "".join(_row(line, said, code) for code, lines in CODES.items() for line in lines)
    if os.environ.get("SOUPMIX_UPDATE"):
        PAGE.write_text(page, "utf-8")
    assert PAGE.read_text("utf-8") == page


def _row(line: str, said: Callable[[str], tuple[int, str]], expected: int) -> str:
    code, text = said(line)
    assert code == expected, (line, text)
    assert re.match(r"(soupmix|Error): .", text), (line, text)
    cell = re.sub(r"^(soupmix|Error): ", "", text).replace("|", r"\|")
    return f"| `{line}` | {code} | {cell} |\n"

"""docs/first_hour.md is what a newcomer sees: every command is run, and every line that is shown is compared."""

import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from soupmix.base import Base, resolve
from tests.support.families import make_family

DOCUMENT = Path(__file__).parents[2] / "docs" / "first_hour.md"
BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
TYPO = "tier: law\nissuer: me\nversion: 1\nrules: [{rule: deny, adapter: dri}]\n"


def shown() -> Iterator[tuple[str, list[str]]]:
    """(command, lines shown) in the order of the document."""
    for block in BLOCK.findall(DOCUMENT.read_text("utf-8")):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, *lines = part.splitlines()
            yield command, [line for line in lines if line.strip() and line != "..."]


def test_a_newcomer_sees_what_is_shown(
    run: Callable[..., tuple[int, str, str]],
    tiny_adapter: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    session_cache: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOUPMIX_DATA", str(tmp_path / "data"))
    base: Base = resolve(make_family("qwen3", tmp_path / "my-model", dtype=torch.bfloat16), cache=session_cache)
    (tmp_path / "loras").mkdir()
    for seed, name in enumerate(("dry", "brief")):
        tiny_adapter(base=base, seed=seed, scale=0.03).rename(tmp_path / "loras" / name)
    count = 0
    for command, expected in shown():
        word, *rest = shlex.split(command)
        if word == "export":
            name, _, value = rest[0].partition("=")
            monkeypatch.setenv(name, value)
        elif word == "sed":
            (tmp_path / "policy" / "typo.yaml").write_text(TYPO)
        else:
            count += 1
            code, out, err = run(*rest)
            refused = [line.removeprefix("! ") for line in expected if line.startswith("! ")]
            assert code == (1 if refused else 0), f"{command}\n{out}{err}"
            for line in refused or expected:
                assert line.strip() in re.sub(r" +", " ", out + err) or line.strip() in out + err, (
                    f"{command}\n{out}{err}"
                )
    assert count == 15

"""Nothing that lies in or beside a model is ever run."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from soupmix.base import cache, resolve
from soupmix.engine import Engine
from soupmix.errors import BaseModelError

ROOT = Path(__file__).parents[2]
SOURCES = sorted(path for room in ("src", "kernels", "benchmarks", "examples") for path in (ROOT / room).rglob("*.py"))
EVIL = """import pathlib; pathlib.Path({mark!r}).touch()
from transformers import LlamaConfig as Config, LlamaForCausalLM as Model
"""
HUB = {"from_pretrained", "from_config"}
CLASSES = {"PeftModel", "GenerationConfig"}  # a model that is loaded already and safetensors; numbers in JSON, no code


def _hostile(folder: Path, mark: Path) -> Path:
    """Files that ask for code of their own, as a folder of downloads may hold."""
    folder.mkdir(exist_ok=True)
    mapped = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model", "AutoTokenizer": ["evil.T", "evil.T"]}
    (folder / "evil.py").write_text(EVIL.format(mark=str(mark)))
    for name in ("config.json", "tokenizer_config.json", "generation_config.json"):
        path = folder / name
        before = json.loads(path.read_bytes()) if path.exists() else {"model_type": "unheard-of"}
        path.write_text(json.dumps(before | {"auto_map": mapped}))
    return folder


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_call_that_could_run_code_says_that_it_must_not(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or node.func.attr not in HUB:
            continue
        if isinstance(node.func.value, ast.Name) and node.func.value.id in CLASSES:
            continue
        said = [word.value for word in node.keywords if word.arg == "trust_remote_code"]
        assert [isinstance(each, ast.Constant) and each.value is False for each in said] == [True], node.lineno


def test_what_lies_beside_a_gguf_file_is_not_seen(tiny_gguf: Path, tmp_path: Path) -> None:
    """With a terminal or a pipe of yeses as standard input: transformers asks, and takes `y` for consent."""
    folder = _hostile(tmp_path / "downloads", tmp_path / "mark")
    os.link(tiny_gguf, folder / "model.gguf")
    code = "import sys; from pathlib import Path; from soupmix.base import resolve; resolve(sys.argv[1], cache=Path(sys.argv[2]))"
    command = [sys.executable, "-c", code, str(folder / "model.gguf"), str(tmp_path / "cache")]
    done = subprocess.run(command, input="y\n" * 20, capture_output=True, text=True, check=False)
    assert not (tmp_path / "mark").exists()
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "cache" / "bases").iterdir())


def test_conversion_has_no_standard_input(tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}

    def ran(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        seen.update(options)
        return subprocess.CompletedProcess(command, 1, "", "no")

    monkeypatch.setattr(cache.subprocess, "run", ran)
    with pytest.raises(BaseModelError):
        resolve(tiny_gguf, cache=tmp_path)
    assert seen["stdin"] == subprocess.DEVNULL


def test_a_folder_with_code_of_its_own_is_read_as_what_it_is(tiny_model, tmp_path: Path, session_cache: Path) -> None:
    folder = _hostile(tiny_model(tmp_path / "model"), tmp_path / "mark")
    Engine.load(resolve(folder, cache=session_cache), None)
    assert not (tmp_path / "mark").exists()


def test_what_is_converted_is_what_was_hashed(tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who can write to the file exchanges its bytes between the check and the conversion."""
    source, seen = tmp_path / "x.gguf", []
    source.write_bytes(tiny_gguf.read_bytes())

    def convert(program: str, copy: Path, folder: Path) -> str:
        source.write_bytes(b"evil")
        seen.append((copy.read_bytes(), sorted(path.name for path in copy.parent.iterdir())))
        raise BaseModelError("enough", reason="enough")

    monkeypatch.setattr(cache, "_run", convert)
    with pytest.raises(BaseModelError, match="enough"):
        resolve(source, cache=tmp_path / "cache")
    assert seen == [(tiny_gguf.read_bytes(), ["x.gguf"])]
    assert list((tmp_path / "cache" / "bases").iterdir()) == []

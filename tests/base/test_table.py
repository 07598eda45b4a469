"""What is remembered of a base's layers: the same table without transformers, and never that of another model."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from soupmix.base import Base, LayerTable, resolve, table
from soupmix.store import Store
from tests.support.families import make_family
from tests.support.random_adapter import save_random_adapter

Builds = list[Path]


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> Builds:
    """Folders whose model transformers has built."""
    found: Builds = []
    real = table.empty_model

    def counting(folder: Path) -> Any:
        found.append(folder)
        return real(folder)

    monkeypatch.setattr(table, "empty_model", counting)
    return found


@pytest.fixture
def again(tiny_base: Base, tmp_path: Path) -> Callable[[], LayerTable]:
    """The table as another process has it, with a cache of its own."""
    base = replace(tiny_base, cache=tmp_path / "cache")

    def ask() -> LayerTable:
        table._tables.clear()
        return base.layers()

    return ask


def _record(tmp_path: Path) -> Path:
    (path,) = (tmp_path / "cache" / "layers").iterdir()
    return path


@pytest.mark.parametrize("name", ["llama3.2-tied", "gpt2-hub", "mixtral", "deepseek-v3-hub", "gpt-oss", "phi3"])
def test_a_remembered_table_is_the_one_that_was_made(name: str, tmp_path: Path, builds: Builds) -> None:
    folder = make_family(name, tmp_path / name)
    base = resolve(folder, cache=tmp_path / "cache")
    made, tensors = base.layers(), load_file(folder / "model.safetensors")
    table._tables.clear()
    read = base.layers()
    assert len(builds) == 1
    assert dict(read) == dict(made)
    assert read.unused == made.unused
    for layer in made.values():
        held = {each: tensors[each] for each in layer.tensors}
        one, other = (each.parameters(layer, held) for each in (made, read))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)
    converted = any(layer.lies != "whole" for layer in made.values())
    assert len(builds) == 1 + converted  # only a conversion needs the model


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{}", b'{"layers": [], "groups": [], "unused": 3}', b"\xff", b"[" * 4000]
)
def test_a_damaged_record_is_made_again(
    again: Callable[[], LayerTable], tmp_path: Path, builds: Builds, text: bytes
) -> None:
    made = again()
    whole = _record(tmp_path).read_bytes()
    _record(tmp_path).write_bytes(text)
    assert dict(again()) == dict(made)
    assert len(builds) == 2
    assert _record(tmp_path).read_bytes() == whole


def test_a_record_that_others_can_have_written_is_not_believed(
    again: Callable[[], LayerTable], tmp_path: Path, builds: Builds
) -> None:
    made = again()
    lie = json.loads(_record(tmp_path).read_bytes())
    lie["layers"][0]["outputs"] = 1
    _record(tmp_path).write_text(json.dumps(lie), "utf-8")
    _record(tmp_path).chmod(0o666)
    assert dict(again()) == dict(made)
    assert len(builds) == 2


def test_another_transformers_is_asked_again(
    again: Callable[[], LayerTable], tmp_path: Path, builds: Builds, monkeypatch: pytest.MonkeyPatch
) -> None:
    again()
    monkeypatch.setattr(table, "version", lambda name: "99.0")
    again()
    assert len(builds) == 2
    assert len(list((tmp_path / "cache" / "layers").iterdir())) == 2


def test_a_transformers_in_the_making_is_asked_every_time(
    again: Callable[[], LayerTable], tmp_path: Path, builds: Builds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "version", lambda name: "99.0.dev0")
    again(), again()
    assert len(builds) == 2
    assert not (tmp_path / "cache" / "layers").exists()


def test_other_tensors_are_another_record(tiny_base: Base, tmp_path: Path, builds: Builds) -> None:
    """Even under the digest of before: a folder may change after it was named."""
    folder = tmp_path / "base"
    folder.mkdir()
    for file in tiny_base.folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    base = replace(tiny_base, folder=folder, cache=tmp_path / "cache")
    assert not base.layers().unused
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | {"more": torch.ones(3)}, folder / "model.safetensors", metadata={"format": "pt"})
    table._tables.clear()
    assert base.layers().unused == ("more",)
    assert len(builds) == 2


def test_a_second_merge_into_a_model_needs_no_transformers(tiny_base: Base, tmp_path: Path) -> None:
    store = Store(tmp_path / "store", create=True)
    folder = save_random_adapter(tiny_base, tmp_path / "one", layers=["model.layers.0.mlp.up_proj"])
    store.add(folder, dimension="a", pole="a", base=tiny_base)
    code = (
        "import sys, soupmix; from pathlib import Path\n"
        "store = soupmix.Store(sys.argv[1]); grant = soupmix.Policy.open(store).clamp({'a': 1})\n"
        "soupmix.merge(store, grant).save_model(Path(sys.argv[2]), base=sys.argv[3])\n"
        "print('transformers' in sys.modules)"
    )
    said = []
    for number in range(2):
        args = [sys.executable, "-c", code, store.folder, tmp_path / f"out{number}", tiny_base.folder]
        env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path), "SOUPMIX_CACHE": str(tmp_path / "cache")}
        said.append(subprocess.run(args, env=env, capture_output=True, text=True, check=True).stdout.strip())
    assert said == ["True", "False"]
    one, other = ((tmp_path / f"out{n}" / "model.safetensors").read_bytes() for n in range(2))
    assert one == other

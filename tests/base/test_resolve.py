"""Names, folders, hub ids, and the digest."""

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from soupmix.base import Base, cache, cache_root, read_tensors, resolve, tensors_digest
from soupmix.errors import BaseModelError


def _copy(base: Base, folder: Path) -> Path:
    shutil.copytree(base.folder, folder)
    return folder


def _reference_digest(folder: Path) -> str:
    """The digest as its documentation reads, from the library's own view of the tensors."""
    parts = {}
    for path in folder.glob("*.safetensors"):
        for name, tensor in load_file(path).items():
            dtype = {torch.float32: "F32", torch.bfloat16: "BF16"}[tensor.dtype]
            raw = tensor.contiguous().view(torch.uint8).numpy().tobytes()
            parts[name] = f"{dtype} {'x'.join(map(str, tensor.shape))} {hashlib.sha256(raw).hexdigest()}"
    digest = hashlib.sha256()
    for item in ["soupmix.base.v1", *(text for pair in sorted(parts.items()) for text in pair)]:
        digest.update(len(item.encode()).to_bytes(8, "big") + item.encode())
    return f"sha256:{digest.hexdigest()}"


def test_importing_the_room_imports_nothing_heavy() -> None:
    code = (
        "import sys, soupmix.base; print([m for m in ('torch', 'transformers', 'huggingface_hub') if m in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


def test_the_digest_is_what_its_documentation_says(tiny_base: Base) -> None:
    assert tiny_base.digest == _reference_digest(tiny_base.folder)


def test_the_digest_does_not_see_the_config_or_the_sharding(tiny_base: Base, tmp_path: Path) -> None:
    folder = _copy(tiny_base, tmp_path / "sharded")
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    halves = {"b.safetensors": sorted(tensors)[::2], "a.safetensors": sorted(tensors)[1::2]}
    for file, names in halves.items():
        save_file({name: tensors[name] for name in reversed(names)}, folder / file, metadata={"format": "pt"})
    index = {"weight_map": {name: file for file, names in halves.items() for name in names}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    config = json.loads((folder / "config.json").read_bytes())
    (folder / "config.json").write_text(json.dumps(config | {"transformers_version": "99"}))
    assert resolve(folder, cache=tmp_path / "cache").digest == tiny_base.digest


@pytest.mark.parametrize("change", ["value", "dtype", "shape", "name", "less"])
def test_the_digest_sees_every_other_change(tiny_base: Base, tmp_path: Path, change: str) -> None:
    folder = _copy(tiny_base, tmp_path / "changed")
    tensors = load_file(folder / "model.safetensors")
    name = "model.norm.weight"
    tensor = tensors.pop(name)
    replaced = {
        "value": {name: tensor.nextafter(torch.tensor(2.0))},
        "dtype": {name: tensor.bfloat16()},
        "shape": {name: tensor[None]},
        "name": {"model.norm.wEight": tensor},
        "less": {},
    }[change]
    save_file(tensors | replaced, folder / "model.safetensors", metadata={"format": "pt"})
    assert tensors_digest(folder) != tiny_base.digest


def test_a_foreign_folder_is_hashed_once_and_again_when_touched(
    tiny_base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, hashed = _copy(tiny_base, tmp_path / "model"), []
    monkeypatch.setattr(cache, "tensors_digest", lambda path: hashed.append(path) or tensors_digest(path))
    first = resolve(folder, cache=tmp_path / "cache")
    assert resolve(str(folder), cache=tmp_path / "cache").digest == first.digest == tiny_base.digest
    assert len(hashed) == 1
    os.utime(folder / "model.safetensors", ns=(1, 1))
    assert resolve(folder, cache=tmp_path / "cache").digest == first.digest
    assert len(hashed) == 2
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in tiny_base.folder.iterdir())


def test_tensors_and_linear_shapes_are_those_of_the_model(tiny_base: Base) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_base.folder)
    linear = {
        name: tuple(module.weight.shape)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name != "lm_head"
    }
    assert dict(tiny_base.layers().linear_shapes()) == linear
    for name, tensor in load_file(tiny_base.folder / "model.safetensors").items():
        info = tiny_base.tensors()[name]
        assert (info.shape, info.dtype) == (tuple(tensor.shape), "F32")
        assert info.file.read_bytes()[info.start : info.end] == tensor.contiguous().numpy().tobytes()


def test_a_label_never_holds_a_path(tiny_base: Base) -> None:
    assert tiny_base.label == "tiny-llama"
    assert str(tiny_base.folder.parent) not in tiny_base.source


@pytest.mark.parametrize(
    "name",
    [
        "smollm3",
        "",
        "a\0b",
        "~nobody-here/x",
        "x" * 5000,
        "no/such/folder",
        "missing.gguf",
        "org/missing.gguf",
        "../escape",
        Path("org/name"),
    ],
)
def test_a_name_that_is_nothing_says_what_is_possible(
    name: str | Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BaseModelError) as caught:
        resolve(name, cache=tmp_path / "cache")
    assert caught.value.reason == "unknown-base"
    assert "smollm2-135m-instruct" in str(caught.value)


def _pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _half(folder: Path) -> None:
    os.truncate(folder / "model.safetensors", 5000)


def _stub(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"abc")


def _no_shard(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"x": "gone.safetensors"}}')


def _outside(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"x": "../model.safetensors"}}')


def _deep(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text("[" * 100_000)


@pytest.mark.parametrize(
    ("breakage", "reason"),
    [
        (_pickled, "pickle"),
        (lambda folder: (folder / "model.safetensors").unlink(), "no-weights"),
        (lambda folder: (folder / "config.json").unlink(), "no-config"),
        (_half, "truncated"),
        (_stub, "truncated"),
        (_no_shard, "incomplete"),
        (_outside, "bad-index"),
        (_deep, "bad-index"),
    ],
)
def test_a_damaged_folder_is_refused(tiny_base: Base, tmp_path: Path, breakage, reason: str) -> None:
    folder = _copy(tiny_base, tmp_path / "model")
    breakage(folder)
    with pytest.raises(BaseModelError) as caught:
        resolve(folder, cache=tmp_path / "cache")
    assert caught.value.reason == reason


def test_a_tensor_in_two_shards_is_refused(tiny_base: Base, tmp_path: Path) -> None:
    folder = _copy(tiny_base, tmp_path / "model")
    for file in ("a.safetensors", "b.safetensors"):
        save_file({"x": torch.ones(2)}, folder / file)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}')
    with pytest.raises(BaseModelError, match="twice"):
        read_tensors(folder)


def test_the_cache_moves_with_its_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SOUPMIX_CACHE", str(tmp_path))
    assert cache_root() == tmp_path


@pytest.fixture
def hub_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty hub cache, and a network on which every connection fails."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))

    def refused(*args: object, **kwargs: object) -> None:
        raise OSError("no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", refused)
    return tmp_path / "hub"


@pytest.mark.parametrize("name", ["someone/some-model", "someone/some-model@v1.0"])
def test_a_hub_id_without_a_network_is_one_sentence_at_once(hub_cache: Path, tmp_path: Path, name: str) -> None:
    started = time.monotonic()
    with pytest.raises(BaseModelError, match="is not cached and the hub cannot be reached") as caught:
        resolve(name, cache=tmp_path / "cache")
    assert caught.value.reason == "offline"
    assert "hf download someone/some-model" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert time.monotonic() - started < 20


def test_a_cached_hub_model_needs_no_network(hub_cache: Path, tiny_base: Base, tmp_path: Path) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    model = hub_cache / "models--someone--some-model"
    _copy(tiny_base, model / "snapshots" / commit)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(commit)
    found = resolve("someone/some-model", cache=tmp_path / "cache")
    assert (found.digest, found.revision, found.source) == (tiny_base.digest, None, "hub:someone/some-model")
    pinned = resolve(f"someone/some-model@{commit}", cache=tmp_path / "cache")
    assert (pinned.digest, pinned.revision) == (tiny_base.digest, commit)
    (model / "snapshots" / commit / "model.safetensors").unlink()
    with pytest.raises(BaseModelError) as caught:
        resolve("someone/some-model", cache=tmp_path / "cache")
    assert caught.value.reason == "incomplete"

"""Corners of the forms that adapters come in, and of what lies beside them."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from soupmix.base import Base, TensorInfo
from soupmix.errors import AdapterError, BaseModelError
from soupmix.store import convert, read_adapter
from soupmix.store.beside import beside
from soupmix.store.folder import source_folder
from soupmix.store.importing import open_source
from soupmix.store.reader import AdapterFiles, load_tensors, sealed_bytes
from soupmix.store.unchanged import unchanged

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
LAYER = "model.layers.0.self_attn.q_proj"
ALPHA = f"base_model.model.{LAYER}.alpha"
A0 = f"base_model.model.{LAYER}.lora_A.weight"
SHAPES = {f"model.layers.{layer}.self_attn.q_proj": (32, 32) for layer in range(2)}
Handmade = Callable[..., Path]
Tensors = dict[str, torch.Tensor]


# --- alphas in tensors


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({ALPHA: torch.full((), float("nan"))}, "not-finite"),
        ({ALPHA: torch.tensor(-4.0)}, "bad-config"),
        ({ALPHA: torch.tensor(64.0)}, "bad-config"),
        ({ALPHA: torch.ones(2)}, "shape"),
        ({"model.x.alpha": torch.tensor(4.0)}, "missing-factor"),
        ({A0: None, ALPHA: torch.tensor(4.0)}, "missing-factor"),
        ({A0: torch.ones(64), ALPHA: torch.tensor(4.0)}, "shape"),
        ({A0: torch.ones(2, 32, dtype=torch.float64), ALPHA: torch.tensor([4], dtype=torch.int64)}, None),
        ({ALPHA: torch.tensor(4.0, dtype=torch.bfloat16)}, None),
    ],
)
def test_an_alpha_beside_is_one_number_that_the_config_says_too(
    handmade: Handmade, q_proj: Callable[..., Tensors], more: Mapping[str, torch.Tensor | None], reason: str | None
) -> None:
    folder = handmade({key: tensor for key, tensor in (q_proj() | dict(more)).items() if tensor is not None})
    if reason is None:
        assert {each.scaling for each in read_adapter(folder, SHAPES).values()} == {2.0}
    else:
        with pytest.raises(AdapterError) as caught:
            read_adapter(folder, SHAPES)
        assert caught.value.reason == reason


def test_alphas_without_a_config_are_each_their_own(handmade: Handmade, q_proj: Callable[..., Tensors]) -> None:
    down = {key.replace("lora_A", "lora_down").replace("lora_B", "lora_up"): each for key, each in q_proj().items()}
    folder = handmade(down | {ALPHA: torch.tensor(3.0)})
    (folder / CONFIG).unlink()
    first, second = read_adapter(folder, SHAPES).values()
    assert (first.scaling, second.scaling) == (1.5, 1.0)
    for key in [key for key in down if "layers.1" in key]:
        down[key] = down[key][:1] if "down" in key else down[key][:, :1].contiguous()
    save_file(down, folder / TENSORS)
    first, second = read_adapter(folder, SHAPES).values()
    assert ((first.rank, first.scaling), (second.rank, second.scaling)) == ((2, 1.0), (1, 1.0))


def test_several_files_are_no_one_adapter(handmade: Handmade) -> None:
    folder = handmade()
    (folder / TENSORS).rename(folder / "one.safetensors")
    assert read_adapter(folder, SHAPES)
    shutil.copy(folder / "one.safetensors", folder / "two.safetensors")
    with pytest.raises(AdapterError, match=TENSORS) as caught:
        read_adapter(folder, SHAPES)
    assert caught.value.reason == "missing"


# --- what lies beside


def _said(folder: Path, base: Base) -> list[tuple[str, str]]:
    with source_folder(folder) as opened:
        return [(note.kind, note.message) for note in beside(opened, None, base)]


def _written(folder: Path, **files: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / f"{name}.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def _decoder(*tokens: str) -> dict[str, Any]:
    return {"added_tokens_decoder": {str(number): {"content": token} for number, token in enumerate(tokens)}}


TEMPLATES = [{"name": "tool_use", "template": "x"}, {"name": "default", "template": " {{ messages }} "}]


@pytest.mark.parametrize(
    ("theirs", "own", "kinds", "word"),
    [
        ({}, {}, [], ""),
        ({"tokenizer_config": _decoder("a", "b")}, {"tokenizer_config": _decoder("a", "b")}, [], ""),
        ({"tokenizer_config": _decoder("a", "c")}, {"tokenizer_config": _decoder("a", "b")}, ["tokenizer"], "'b'"),
        ({"tokenizer_config": {"added_tokens_decoder": []}}, {"tokenizer_config": _decoder("a")}, [], ""),
        ({"added_tokens": {"a": 5}}, {"added_tokens": {"a": 6}}, ["tokenizer"], "'a'"),
        ({"added_tokens": {"a": 5}}, {}, [], ""),
        ({"added_tokens": "[]"}, {}, ["tokenizer"], "not a JSON object"),
        ({"added_tokens": '{"a": 1, "a": 2}'}, {}, ["tokenizer"], "not strict JSON"),
        ({"tokenizer": {"model": {}}}, {"tokenizer": {"added_tokens": [{"content": "a", "id": 1}]}}, [], ""),
        ({"tokenizer": {"added_tokens": [1, {"content": "a", "id": 2}]}},
         {"tokenizer": {"added_tokens": [{"content": "a", "id": 1}]}}, ["tokenizer"], "'a'"),
        ({"tokenizer_config": {"chat_template": TEMPLATES}},
         {"tokenizer_config": {"chat_template": "{{ messages }}"}}, [], ""),
        ({"tokenizer_config": {"chat_template": TEMPLATES[:1]}}, {"tokenizer_config": {"chat_template": "y"}}, [], ""),
        ({"tokenizer_config": {"chat_template": "x"}}, {}, ["template"], "not the base's"),
    ],
)  # fmt: skip
def test_what_lies_beside_is_compared_like_with_like(
    tmp_path: Path, theirs: dict[str, Any], own: dict[str, Any], kinds: list[str], word: str
) -> None:
    base = Base("b", _written(tmp_path / "b", **own), "sha256:0", None, "test")
    found = _said(_written(tmp_path / "a", **theirs), base)
    assert [kind for kind, _ in found] == kinds
    assert all(word in message for _, message in found)


# --- weights of the base's own


class _Cut(Base):
    """A base whose head and embeddings lie where a test says."""

    def tensors(self) -> Mapping[str, TensorInfo]:
        return {name: replace(info, file=self.folder / "cut.safetensors") for name, info in super().tensors().items()}


def _own(base: Base, name: str, tensor: torch.Tensor) -> bool:
    from safetensors.torch import save

    key = f"base_model.model.{name}"
    return key in unchanged([key], sealed_bytes(save({key: tensor})), base, "x")


def test_only_a_weight_of_the_base_is_its_own(tiny_base: Base, tmp_path: Path) -> None:
    embeddings = load_file(tiny_base.folder / "model.safetensors")["model.embed_tokens.weight"]
    assert _own(tiny_base, "model.embed_tokens.weight", embeddings)
    assert _own(tiny_base, "lm_head.base_layer.weight", embeddings)
    for name, tensor in {
        "model.embed_tokens.bias": embeddings,
        "model.other.weight": embeddings,
        "model.norm.weight": load_file(tiny_base.folder / "model.safetensors")["model.norm.weight"],
        "lm_head.weight": embeddings.to(torch.int8),
        "lm_head.base_layer.weight": embeddings.to(torch.float8_e5m2),
        "model.embed_tokens.weight": embeddings[:0],
    }.items():
        assert not _own(tiny_base, name, tensor), name
    shutil.copytree(tiny_base.folder, tmp_path / "base")
    (tmp_path / "base" / "cut.safetensors").write_bytes(b"short")
    cut = _Cut("b", tmp_path / "base", tiny_base.digest, None, "test")
    with pytest.raises(BaseModelError, match="cut short"):
        _own(cut, "model.embed_tokens.weight", embeddings)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e8m0fnu])
def test_a_tensor_of_one_byte_is_refused_in_a_sentence(
    handmade: Handmade, q_proj: Callable[..., Tensors], tiny_base: Base, dtype: torch.dtype
) -> None:
    embeddings = load_file(tiny_base.folder / "model.safetensors")["model.embed_tokens.weight"]
    own = {"base_model.model.model.embed_tokens.weight": embeddings}
    for tensors in (own | {"x\x1b[2J": embeddings.to(dtype)}, {key: each.to(dtype) for key, each in own.items()}):
        with pytest.raises(AdapterError) as caught, open_source(handmade(q_proj() | tensors), SHAPES, tiny_base):
            pass
        assert caught.value.reason in ("bad-key", "dtype")
        assert str(caught.value).isprintable()


def test_a_name_in_a_message_is_printable(handmade: Handmade, q_proj: Callable[..., Tensors]) -> None:
    key = "x\x1b[2J" + "y" * 1000
    content = handmade(q_proj() | {key: torch.full((1,), torch.nan)}) / TENSORS
    with pytest.raises(AdapterError, match="NaN") as caught:
        load_tensors(sealed_bytes(content.read_bytes()), "x")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


def test_one_layer_by_two_names_is_refused(handmade: Handmade, q_proj: Callable[..., Tensors]) -> None:
    """A pattern could mean one of them only, and so would the scaling."""
    two = {key.replace(LAYER, LAYER[6:]) if key == A0 else key: each for key, each in q_proj().items()}
    with pytest.raises(AdapterError, match="both") as caught:
        read_adapter(handmade(two, alpha_pattern={r"model\.layers\.0.*": 100}), SHAPES)
    assert caught.value.reason == "bad-key"


# --- pickles


def test_what_a_process_tells_without_end_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"a": torch.ones(2000)}, tmp_path / "a.bin")
    monkeypatch.setattr(convert, "_MOST", 100)
    with pytest.raises(AdapterError, match="too much time or memory") as caught:
        convert.convert_pickle(tmp_path / "a.bin", tmp_path / "cut")
    assert caught.value.reason == "not-converted"


def test_a_pickle_alone_has_no_config(tmp_path: Path) -> None:
    with source_folder(tmp_path) as folder:
        assert folder.read_object(CONFIG, cap=9, reason="bad-json") == {}


def test_a_store_s_file_without_tensors_is_refused(tmp_path: Path) -> None:
    config = json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 4}).encode()
    empty = sealed_bytes(len(b"{}").to_bytes(8, "little") + b"{}")
    with pytest.raises(AdapterError, match="no LoRA factors") as caught:
        AdapterFiles(tmp_path, config, "", empty).factors()
    assert caught.value.reason == "empty"

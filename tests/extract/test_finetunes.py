"""Full fine-tunes: tuned minus base, tensor by tensor."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from soupmix.base import Base, resolve, tensors_digest
from soupmix.errors import AdapterError
from soupmix.extract import extract_adapter

Q0 = "model.layers.0.self_attn.q_proj"


@pytest.fixture
def edited(tiny_base: Base, tmp_path: Path) -> Callable[..., Path]:
    """A copy of the base with other tensors; None takes one away."""

    def make(change: dict[str, Tensor | None], **config: Any) -> Path:
        folder = tmp_path / "tuned"
        shutil.copytree(tiny_base.folder, folder)
        tensors = load_file(folder / "model.safetensors") | change
        save_file({name: t for name, t in tensors.items() if t is not None}, folder / "model.safetensors")
        said = json.loads((folder / "config.json").read_text()) | config
        (folder / "config.json").write_text(json.dumps(said))
        return folder

    return make


@pytest.fixture(scope="module")
def trained(tiny_base: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few real steps of all weights."""
    model = AutoModelForCausalLM.from_pretrained(tiny_base.folder, dtype=torch.float32)
    torch.manual_seed(0)
    tokens = torch.randint(5, 200, (4, 24))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(4):
        optimizer.zero_grad()
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
    folder = tmp_path_factory.mktemp("trained") / "model"
    model.save_pretrained(folder)
    return folder


def tensors_of(folder: Path) -> dict[str, Tensor]:
    return {name: tensor.double() for name, tensor in load_file(folder / "model.safetensors").items()}


def test_a_trained_model_is_taken_apart(trained: Path, tiny_base: Base) -> None:
    """Every changed tensor is in the extraction, with its norm: layers by their singular values, the rest by name."""
    extraction = extract_adapter(trained, base=tiny_base)
    before, after = tensors_of(tiny_base.folder), tensors_of(trained)
    norms = {name: float((after[name] - before[name]).norm()) for name in before}
    found = {f"{path}.weight": layer.norm for path, layer in extraction.layers.items()} | dict(extraction.left_out)
    assert found == {name: pytest.approx(norm, rel=1e-9) for name, norm in norms.items() if norm}
    assert "model.embed_tokens.weight" in extraction.left_out
    assert "model.norm.weight" in extraction.left_out
    assert extraction.norm == pytest.approx(math.hypot(*norms.values()))
    for path, layer in extraction.layers.items():
        delta = after[f"{path}.weight"] - before[f"{path}.weight"]
        assert torch.allclose(layer.values, torch.linalg.svdvals(delta), rtol=1e-9, atol=1e-12)
    assert extraction.digest == tensors_digest(trained)
    assert (extraction.method, extraction.warnings) == ("full fine-tune", ())


def test_what_no_lora_carries_counts_in_the_error(trained: Path, tiny_base: Base, tmp_path: Path) -> None:
    extraction = extract_adapter(trained, base=tiny_base)
    left = math.hypot(*extraction.left_out.values()) / extraction.norm
    assert extraction.error(10**6) == pytest.approx(left)
    with pytest.raises(AdapterError, match=r"0\.\d+ is in \d+ tensors that no LoRA carries, such as model") as refused:
        extraction.save(tmp_path / "out", error=left / 2)
    assert refused.value.reason == "inexact"
    assert not (tmp_path / "out").exists()
    saved = extraction.save(tmp_path / "out", rank=32, error=1.0)
    assert saved.errors.total == pytest.approx(left, abs=1e-6)
    assert any("left out" in each for each in saved.warnings)


def test_equal_tensors_are_passed_over(edited: Callable[..., Path], tiny_base: Base) -> None:
    weight = load_file(tiny_base.folder / "model.safetensors")[f"{Q0}.weight"]
    delta = torch.outer(torch.arange(32.0), torch.ones(32))
    extraction = extract_adapter(edited({f"{Q0}.weight": weight + delta}), base=tiny_base)
    assert list(extraction.layers) == [Q0]
    assert dict(extraction.left_out) == {}
    assert extraction.needed(1e-5) == 1


def test_the_base_itself_changes_nothing(edited: Callable[..., Path], tiny_base: Base) -> None:
    with pytest.raises(AdapterError, match="changes no linear layer") as refused:
        extract_adapter(edited({}), base=tiny_base)
    assert refused.value.reason == "no-change"


def test_only_a_norm_changed(edited: Callable[..., Path], tiny_base: Base) -> None:
    with pytest.raises(AdapterError, match=r"such as model\.norm\.weight, no LoRA can carry") as refused:
        extract_adapter(edited({"model.norm.weight": torch.full((32,), 2.0)}), base=tiny_base)
    assert refused.value.reason == "no-change"


def test_a_resized_vocabulary_counts(edited: Callable[..., Path], tiny_base: Base) -> None:
    table = load_file(tiny_base.folder / "model.safetensors")["model.embed_tokens.weight"]
    weight = load_file(tiny_base.folder / "model.safetensors")[f"{Q0}.weight"]
    longer = torch.cat([table, torch.full((3, 32), 2.0)])
    folder = edited({"model.embed_tokens.weight": longer, f"{Q0}.weight": weight + 1}, vocab_size=len(longer))
    extraction = extract_adapter(folder, base=tiny_base)
    assert extraction.left_out["model.embed_tokens.weight"] == pytest.approx(math.sqrt(3 * 32 * 4))
    assert any("vocab_size" in each for each in extraction.warnings)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({f"{Q0}.weight": None}, "incomplete"),
        ({f"{Q0}.weight": torch.zeros(32, 16)}, "wrong-base"),
        ({f"{Q0}.weight": torch.full((32, 32), torch.nan)}, "not-finite"),
        ({f"{Q0}.weight": torch.zeros(32, 32, dtype=torch.int8)}, "dtype"),
    ],
)
def test_what_is_no_fine_tune_of_the_base_is_refused(
    change: dict[str, Tensor | None], reason: str, edited: Callable[..., Path], tiny_base: Base
) -> None:
    with pytest.raises(AdapterError) as refused:
        extract_adapter(edited(change), base=tiny_base)
    assert refused.value.reason == reason


def test_a_second_copy_of_tied_weights_is_compared_with_the_first(edited: Callable[..., Path], tiny_base: Base) -> None:
    tensors = load_file(tiny_base.folder / "model.safetensors")
    table = tensors["model.embed_tokens.weight"].clone()
    extraction = extract_adapter(
        edited({"lm_head.weight": table, f"{Q0}.weight": tensors[f"{Q0}.weight"] + 1}), base=tiny_base
    )
    assert dict(extraction.left_out) == {}


def test_tensors_that_the_model_does_not_use_are_said(edited: Callable[..., Path], tiny_base: Base) -> None:
    tensors = load_file(tiny_base.folder / "model.safetensors")
    folder = edited({"value_head.weight": torch.ones(1, 32), f"{Q0}.weight": tensors[f"{Q0}.weight"] + 1})
    assert any("value_head.weight" in each for each in extract_adapter(folder, base=tiny_base).warnings)


def test_other_dtypes_and_another_rope_are_said(edited: Callable[..., Path], tiny_base: Base) -> None:
    tensors = load_file(tiny_base.folder / "model.safetensors")
    half = {name: tensor.bfloat16() for name, tensor in tensors.items()}
    extraction = extract_adapter(edited(half, max_position_embeddings=1024), base=tiny_base)
    assert set(extraction.layers) == set(tiny_base.layers().linear_shapes())
    assert any("max_position_embeddings" in each for each in extraction.warnings)


def test_renamed_checkpoints_are_the_same_model(tmp_path: Path, session_cache: Path) -> None:
    """GPT-2 as its hub has it, without `transformer.`, against GPT-2 as transformers saves it."""
    from tests.support.families import make_family

    base = resolve(make_family("gpt2", tmp_path / "base"), cache=session_cache)
    hub = make_family("gpt2-hub", tmp_path / "hub")
    tensors = load_file(hub / "model.safetensors")
    name = next(each for each in tensors if each.endswith("h.0.attn.c_proj.weight"))
    tensors[name] = tensors[name] + torch.outer(torch.arange(64.0), torch.ones(64))
    save_file(tensors, hub / "model.safetensors", metadata={"format": "pt"})
    extraction = extract_adapter(hub, base=base)
    assert list(extraction.layers) == ["transformer.h.0.attn.c_proj"]
    assert dict(extraction.left_out) == {}
    left = extraction.layers["transformer.h.0.attn.c_proj"].left[:, 0].abs()  # outputs, which the file has in columns
    assert torch.allclose(left, left[0].expand(64), atol=1e-6)

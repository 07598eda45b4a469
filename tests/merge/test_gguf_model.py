"""A GGUF model holds what the Hugging Face model holds: read back by transformers, which knows llama.cpp's names and rows."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGUFReader
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from soupmix.base import Base, resolve
from soupmix.errors import BaseModelError, RecipeError
from soupmix.merge import Soup, merge
from soupmix.merge.gguf_layout import gguf_layout, rope_factors
from soupmix.policy import Grant
from soupmix.store.store import Store
from tests.support.families import make_family

Run = Callable[..., tuple[int, str, str]]
FAMILIES = ["llama3", "llama3.2-tied", "llama-bias", "falcon3", "mistral-v0.3", "qwen2.5", "qwen3"]
ENDS = ["q_proj", "k_proj", "down_proj"]


@pytest.fixture
def soup_of(
    make_store: Callable[..., Store], grant: Callable[..., Grant], tiny_adapter: Callable[..., Path]
) -> Callable[[Base], Soup]:
    """A soup of two adapters for a base."""

    def make(base: Base) -> Soup:
        folders = {name: tiny_adapter(rank=3, seed=n, targets=ENDS, base=base) for n, name in enumerate(("one", "two"))}
        store = make_store(folders, base)
        return merge(store, grant(store, one=0.5, two=0.75))

    return make


def fields(file: Path) -> Mapping[str, Any]:
    return {name: field.contents() for name, field in GGUFReader(file).fields.items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_transformers_reads_what_a_model_folder_holds(
    family: str, family_base: Callable[[str], Base], soup_of: Callable[[Base], Soup], tmp_path: Path
) -> None:
    base = family_base(family)
    soup = soup_of(base)
    soup.save_gguf(tmp_path / "gguf", base=base)
    soup.save_model(tmp_path / "folder", base=base)
    config = AutoConfig.from_pretrained(base.folder)  # of what GGUF says, transformers reads less than llama.cpp
    said = {"gguf_file": "model.gguf", "config": config, "dtype": torch.float32}
    if config.model_type == "mistral":  # it is a Llama there
        said.pop("config")
    read = AutoModelForCausalLM.from_pretrained(tmp_path / "gguf", **said)
    ours, theirs = read.state_dict(), load_file(tmp_path / "folder/model.safetensors")
    assert theirs.keys() <= ours.keys()
    stored = {tensor.name for tensor in GGUFReader(tmp_path / "gguf/model.gguf").tensors} - {"rope_freqs.weight"}
    assert len(stored) == len(theirs)
    for name, tensor in theirs.items():
        if (
            not name.endswith(("q_proj.bias", "k_proj.bias")) or family == "qwen2.5"
        ):  # transformers leaves these as they lie
            assert torch.equal(ours[name], tensor), name
    before = load_file(base.folder / "model.safetensors")
    changed = [name for name in theirs if not torch.equal(theirs[name], before[name])]
    assert {name.split(".")[-2] for name in changed} == set(ENDS)


@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16"])
def test_matrices_are_rounded_once_and_vectors_are_not(dtype: str, soup: Soup, tiny_base: Base, tmp_path: Path) -> None:
    saved = soup.save_gguf(tmp_path / "gguf", base=tiny_base, dtype=dtype)
    same = soup.save_model(tmp_path / "folder", base=tiny_base, dtype=dtype)
    assert saved.errors["rounding_loss"] == same.errors["rounding_loss"]
    assert saved.identity != same.identity
    made = {tensor.name: tensor for tensor in GGUFReader(tmp_path / "gguf/model.gguf").tensors}
    kinds = {len(tensor.shape): tensor.tensor_type.name for tensor in made.values()}
    assert kinds == {1: "F32", 2: {"fp32": "F32", "fp16": "F16", "bf16": "BF16"}[dtype]}
    theirs = load_file(tmp_path / "folder/model.safetensors")["model.layers.1.mlp.down_proj.weight"]
    stored = made["blk.1.ffn_down.weight"].data.tobytes()
    assert stored == theirs.contiguous().view(torch.uint8).numpy().tobytes()


def test_settings_and_record_are_inside(soup: Soup, tiny_base: Base, tmp_path: Path) -> None:
    saved = soup.save_gguf(tmp_path / "out", base=tiny_base)
    found = fields(tmp_path / "out/model.gguf")
    assert (found["general.architecture"], found["general.type"], found["llama.block_count"]) == ("llama", "model", 2)
    assert found["soupmix.identity"] == saved.identity
    assert json.loads(found["soupmix.grant"]) == json.loads((tmp_path / "out/soupmix_grant.json").read_text())
    assert found["tokenizer.ggml.tokens"][:2] == ["<pad>", "<|end|>"]
    assert found["tokenizer.chat_template"] == (tiny_base.folder / "chat_template.jinja").read_text()
    assert not found["tokenizer.ggml.add_bos_token"]
    assert (tmp_path / "out/Modelfile").read_text().startswith("FROM ./model.gguf\n")


def test_the_command_writes_it_and_verify_repeats_it(three: Store, tiny_base: Base, run: Run, tmp_path: Path) -> None:
    asked = ["-w", "friendly=0.5", "-w", "expert=0.25", "--store", three.folder, "--base", tiny_base.folder]
    code, out, err = run("merge", *asked, "--as", "gguf", "--dtype", "bf16", "--workers", "1", tmp_path / "out")
    assert code == 0, err
    assert out.strip() == str(tmp_path / "out")
    assert run("verify", tmp_path / "out")[0] == 0
    code, _, err = run("merge", tmp_path / "out/soupmix_recipe.yaml", "--workers", "3", tmp_path / "again")
    assert code == 0, err
    assert (tmp_path / "out/model.gguf").read_bytes() == (tmp_path / "again/model.gguf").read_bytes()
    with (tmp_path / "out/model.gguf").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x7f")
    code, out, _ = run("verify", tmp_path / "out")
    assert code != 0
    assert "model.gguf is not" in out
    assert run("merge", *asked, "--as", "gguf", "--rank", "3", tmp_path / "three")[0] != 0


def test_a_model_of_nothing_is_the_base(
    three: Store, grant: Callable[..., Grant], tiny_base: Base, tmp_path: Path
) -> None:
    merge(three, grant(three)).save_gguf(tmp_path / "out", base=tiny_base)
    read = AutoModelForCausalLM.from_pretrained(tmp_path / "out", gguf_file="model.gguf", dtype=torch.float32)
    for name, tensor in load_file(tiny_base.folder / "model.safetensors").items():
        assert torch.equal(read.state_dict()[name], tensor), name


def test_frequencies_are_those_of_transformers(family_base: Callable[[str], Base]) -> None:
    base = family_base("llama3")
    made = rope_factors(gguf_layout(base), base)
    config = AutoConfig.from_pretrained(base.folder)
    width = config.head_dim
    plain = config.rope_parameters["rope_theta"] ** -(torch.arange(0, width, 2) / width)
    slowed, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    assert made is not None
    torch.testing.assert_close(made, plain / slowed)
    assert rope_factors(gguf_layout(family_base("llama-bias")), family_base("llama-bias")) is None


def test_a_window_bounds_the_context(
    family_base: Callable[[str], Base], soup_of: Callable[[Base], Soup], tmp_path: Path
) -> None:
    base = family_base("mistral-v0.1")
    soup_of(base).save_gguf(tmp_path / "out", base=base)
    assert fields(tmp_path / "out/model.gguf")["llama.context_length"] == 8


@pytest.mark.parametrize(
    ("family", "settings", "reason", "said"),
    [
        ("gemma2", {}, "no-gguf-layout", "Gemma2ForCausalLM.*convert_hf_to_gguf"),
        ("llama-bias", {"hidden_act": "gelu"}, "no-gguf-layout", "hidden_act"),
        (
            "llama-bias",
            {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
            "no-gguf-layout",
            "dynamic",
        ),
        (
            "llama-bias",
            {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0, "beta_fast": 16.0}},
            "no-gguf-layout",
            "beta_fast",
        ),
    ],
)
def test_what_llama_cpp_is_not_known_to_have_is_refused(
    family: str, settings: Mapping[str, Any], reason: str, said: str, soup_of: Callable[[Base], Soup], tmp_path: Path
) -> None:
    base = resolve(make_family(family, tmp_path / "base", **settings), cache=tmp_path / "cache")
    with pytest.raises(BaseModelError, match=said) as caught:
        soup_of(base).save_gguf(tmp_path / "out", base=base)
    assert caught.value.reason == reason
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pre_tokenizer": {"type": "Whitespace"}}, "Whitespace"),
        ({"normalizer": {"type": "Lowercase"}}, "Lowercase"),
        ({"pre_tokenizer": None}, "splits text"),
    ],
)
def test_a_tokenizer_that_llama_cpp_is_not_known_to_have_is_refused(
    change: Mapping[str, Any], said: str, soup_of: Callable[[Base], Soup], tmp_path: Path
) -> None:
    folder = make_family("llama-bias", tmp_path / "base")
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    base = resolve(folder, cache=tmp_path / "cache")
    with pytest.raises(BaseModelError, match=said) as caught:
        soup_of(base).save_gguf(tmp_path / "out", base=base)
    assert caught.value.reason == "no-gguf-tokenizer"
    assert not (tmp_path / "out").exists()


def test_no_workers_make_nothing(soup: Soup, tiny_base: Base, tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        soup.save_gguf(tmp_path / "out", base=tiny_base, workers=0)
    assert caught.value.reason == "bad-workers"

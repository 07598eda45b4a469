"""Weights that a GGUF file holds in 8 or 4 bits are computed with as they are, and with no others."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from soupmix.base import Base, read_held, resolve
from soupmix.base.held import HELD_FILE
from soupmix.engine import Engine
from soupmix.engine.few_bits import FewBits
from soupmix.engine.layers import BaseLinear
from soupmix.policy import Policy
from soupmix_kernels.compiled import Blocks
from tests.support.tiny_gguf import write_gguf

pytestmark = pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="no C++ compiler here")
OF_FILE = 13  # q, k, v, o, gate and up of two layers, and the output layer; `down` has rows of 48 numbers


@pytest.fixture(scope="module")
def based(tiny_base: Base, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Base]:
    folder = tmp_path_factory.mktemp("files")

    def make(kind: str) -> Base:
        file = folder / f"{kind}.gguf"
        return resolve(file if file.exists() else write_gguf(tiny_base, file, kind), cache=folder / "cache")

    return make


def by_path(engine: Engine) -> dict[str, torch.Tensor]:
    """Path of the first layer of a group -> what its rows are multiplied by."""
    found = {}
    for paths, group in engine._groups.items():
        assert isinstance(group.base, BaseLinear)
        assert group.base.blocks is not None
        found[paths[0]] = group.base.blocks.decoded(torch.float32)
    return found


def of_file(base: Base, kind: str) -> torch.Tensor:
    """gate and up of the first layer, one below the other, by gguf's own dequantisation."""
    which, truth = gguf.GGMLQuantizationType[kind], load_file(base.folder / "model.safetensors")
    parts = [truth[f"model.layers.0.mlp.{name}_proj.weight"].float().numpy() for name in ("gate", "up")]
    return torch.from_numpy(
        np.concatenate([gguf.quants.dequantize(gguf.quants.quantize(each, which), which) for each in parts])
    )


@pytest.mark.parametrize(("kind", "dtype"), [("Q8_0", "int8"), ("Q4_0", "int4"), ("Q4_0", "int8"), ("Q4_1", "int4")])
def test_what_is_multiplied_is_what_the_file_says(
    kind: str, dtype: str, based: Callable[[str], Base], tiny_base: Base
) -> None:
    base = based(kind)
    engine = Engine.load(base, None, dtype=dtype)
    assert engine.step.why.endswith(f"from weights in {dtype}, {OF_FILE} of its layers as its GGUF file has them")
    assert torch.equal(by_path(engine)["model.layers.0.mlp.gate_proj"], of_file(tiny_base, kind))
    group = engine._groups["model.layers.0.mlp.gate_proj", "model.layers.0.mlp.up_proj"].base
    assert isinstance(group, BaseLinear)
    assert group.blocks is not None
    assert group.blocks.kind == kind
    nobody = Policy.open(()).clamp({})
    rounded = Engine.load(base, None, dtype="bf16", compiled=True)
    assert torch.allclose(*(each.logits(torch.tensor([[3, 4, 5]]), [nobody]) for each in (engine, rounded)), atol=0.05)


def test_fewer_bits_than_the_file_has_are_made_of_it(based: Callable[[str], Base]) -> None:
    engine = Engine.load(based("Q8_0"), None, dtype="int4")
    assert engine.step.why.endswith("from weights in int4")


def test_an_identity_says_whose_bits_they_are(based: Callable[[str], Base], tmp_path: Path) -> None:
    base = based("Q8_0")
    copied = tmp_path / "copied"
    shutil.copytree(base.folder, copied)
    mine, other = Engine.load(base, None, dtype="int8"), Engine.load(replace(base, folder=copied), None, dtype="int8")
    assert other.step.why.endswith("from weights in int8")  # what lies in any folder is not believed
    assert mine.base_digest == other.base_digest
    assert mine.base_identity() != other.base_identity()
    assert mine.identity(Policy.open(()).clamp({}), "delta") != other.identity(Policy.open(()).clamp({}), "delta")


def test_whoever_takes_every_file_of_weights_in_the_folder_gets_the_model(based: Callable[[str], Base]) -> None:
    """As vLLM does."""
    folder = based("Q8_0").folder
    assert (folder / HELD_FILE).exists()
    names = [name for file in folder.glob("*.safetensors") for name in safe_open(file, "pt").keys()]  # noqa: SIM118
    known = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    assert len(set(names)) == len(names)
    assert set(names) <= set(known)


def test_damaged_blocks_are_made_again(tiny_base: Base, tmp_path: Path) -> None:
    file, cache = write_gguf(tiny_base, tmp_path / "x.gguf", "Q8_0"), tmp_path / "cache"
    base = resolve(file, cache=cache)
    held, truth = base.folder / HELD_FILE, by_path(Engine.load(base, None, dtype="int8"))
    data = bytearray(held.read_bytes())
    data[-100] ^= 1
    held.write_bytes(data)
    again = by_path(Engine.load(resolve(file, cache=cache), None, dtype="int8"))
    assert all(torch.equal(again[path], truth[path]) for path in truth)


def test_layers_that_are_computed_together_and_of_no_one_kind_are_held_in_the_nearest() -> None:
    weights = [torch.randn(16, 64, generator=torch.Generator().manual_seed(seed)) for seed in range(2)]
    shifted = Blocks.of_data(torch.ones(1, 2, 320, dtype=torch.uint8), (16, 64))
    for other in ({}, {"up": Blocks.of(weights[1], 4)}):
        few = FewBits(4, {"gate": shifted, **other})
        made = few.blocks(("gate", "up"), weights)
        assert torch.equal(made.decoded(), Blocks.of(torch.cat(weights), 4).decoded())
        assert not few.taken
    few = FewBits(8, {"gate": Blocks.of(weights[0], 4)})  # without shifts nothing is lost
    assert few.blocks(("gate", "up"), weights).kind == "Q8_0"
    assert few.taken == {"gate"}


def test_a_file_without_such_weights_has_none(based: Callable[[str], Base]) -> None:
    assert not read_held(based("F32"))
    assert len(read_held(based("Q8_0"))) == OF_FILE

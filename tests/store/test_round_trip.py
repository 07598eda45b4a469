"""What PEFT writes is read as PEFT means it: PEFT's own delta and float64 are the oracles."""

import json
import math
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from soupmix.base import Base
from soupmix.store import Adapter, ManifestEntry, Store, read_adapter

CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "rank 1": {"rank": 1, "alpha": 1},
    "float alpha": {"alpha": 2.5},
    "two targets": {"targets": ["q_proj", "down_proj"]},
    "one layer": {"targets": ["layers.1.self_attn.v_proj"]},
    "pattern targets": {"targets": r".*\.self_attn\.[qk]_proj"},
    "all-linear": {"targets": "all-linear"},
    "rslora": {"rslora": True, "rank": 8},
    "rank_pattern": {"rank_pattern": {"q_proj": 2, "layers.1.mlp.up_proj": 7}},
    "alpha_pattern": {"alpha_pattern": {"v_proj": 3, "o_proj": 32}},
    # The first pattern that matches wins, and PEFT saves patterns in alphabetical order.
    "order": {
        "rank_pattern": {"q_proj": 6, r"self_attn\..*": 2},
        "alpha_pattern": {r"layers\.\d+\.mlp.*": 1, "up_proj": 9},
    },
    "all at once": {
        "rslora": True,
        "rank_pattern": {"q_proj": 2, r"model\.layers\.0\.mlp\.(up|gate)_proj": 3},
        "alpha_pattern": {"^model.layers.1.*": 5},
    },
    "bf16": {"dtype": torch.bfloat16},
    "fp16": {"dtype": torch.float16},
}


@pytest.fixture(scope="module", params=CASES, ids=str)
def folder(request: pytest.FixtureRequest, tiny_adapter: Callable[..., Path]) -> Path:
    return tiny_adapter(**CASES[request.param])


def _peft_deltas(base: Base, folder: Path) -> dict[str, torch.Tensor]:
    """Module path -> PEFT's delta, with the factors brought to float64 first."""
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base.folder), folder).double()
    return {
        name.removeprefix("base_model.model."): module.get_delta_weight("default").detach()
        for name, module in model.named_modules()
        if hasattr(module, "get_delta_weight")
    }


def test_deltas_are_those_of_peft(folder: Path, tiny_base: Base) -> None:
    ours, theirs = read_adapter(folder, tiny_base.layers().linear_shapes()), _peft_deltas(tiny_base, folder)
    assert list(ours) == sorted(theirs)
    for module, factors in ours.items():
        delta = factors.scaling * (factors.B.double() @ factors.A.double())
        torch.testing.assert_close(delta, theirs[module], rtol=1e-12, atol=1e-14)
        assert theirs[module].abs().max() > 0


def test_factors_keep_bits_and_dtype(folder: Path, tiny_base: Base) -> None:
    raw = load_file(folder / "adapter_model.safetensors")
    for module, factors in read_adapter(folder, tiny_base.layers().linear_shapes()).items():
        for side in "AB":
            tensor = raw[f"base_model.model.{module}.lora_{side}.weight"]
            assert torch.equal(getattr(factors, side), tensor)
            assert getattr(factors, side).dtype == tensor.dtype


def test_a_store_gives_back_what_was_added(folder: Path, tiny_base: Base, tmp_path: Path) -> None:
    entry = Store(tmp_path, create=True).add(
        folder, dimension="style", pole="friendly", base=tiny_base, tags=("mild",), licence="Apache-2.0"
    )
    adapter = Store(tmp_path).load("friendly", entry.digest)
    assert (adapter.name, adapter.digest, adapter.base_digest) == ("friendly", entry.digest, tiny_base.digest)
    expected = read_adapter(folder)
    assert list(adapter.modules) == list(expected)
    assert not isinstance(adapter.modules, MutableMapping)  # the store keeps it
    for module, factors in adapter.modules.items():
        assert torch.equal(factors.A, expected[module].A)
        assert torch.equal(factors.B, expected[module].B)
        assert factors.scaling == expected[module].scaling
    for name in ("adapter_config.json", "adapter_model.safetensors", "README.md"):
        assert (Store(tmp_path).path("friendly") / name).read_bytes() == (folder / name).read_bytes()


def test_an_entry_states_the_config(tiny_adapter: Callable[..., Path], tiny_base: Base, tmp_path: Path) -> None:
    store = Store(tmp_path, create=True)
    entry = store.add(
        tiny_adapter(rank=3, alpha=6, rslora=True, targets=["v_proj", "q_proj"]),
        name="e",
        dimension="expertise",
        pole="expert",
        base=tiny_base,
        training={"seed": 3},
        effect={"grade": [1.5, None]},
    )
    assert Store(tmp_path)["e"] == entry
    assert (entry.rank, entry.alpha, entry.scaling, entry.target_modules) == (3, 6.0, "rslora", ("q_proj", "v_proj"))
    assert (entry.base, entry.base_digest) == ("tiny-llama", tiny_base.digest)
    assert (entry.training, entry.effect) == ({"seed": 3}, {"grade": [1.5, None]})
    norms = [(f.scaling * f.B.double() @ f.A.double()).square().sum() for f in store.load("e").modules.values()]
    assert math.isclose(entry.delta_norm, math.sqrt(sum(norms)), rel_tol=1e-9)


def test_the_config_that_peft_writes_is_wholly_known(tiny_adapter: Callable[..., Path]) -> None:
    """A field that a new PEFT adds must be looked at before it is let through; this is where it shows."""
    from peft import LoraConfig

    folder = tiny_adapter()
    written = json.loads((folder / "adapter_config.json").read_bytes())
    assert set(LoraConfig(task_type="CAUSAL_LM").to_dict()) <= set(written)
    read_adapter(folder)


def test_entries_are_values() -> None:
    assert ManifestEntry.model_config["frozen"]
    assert Adapter.__dataclass_params__.frozen

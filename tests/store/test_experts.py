"""Factors of all experts of a layer at once, as a store takes them in: expert by expert, or refused by name."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from soupmix.base import Base, resolve
from soupmix.errors import AdapterError
from soupmix.findings import Finding
from soupmix.store import Store
from tests.support.experts import CONFIGS, EXPERTS, Case, of_one_expert, one_expert, save_by_peft
from tests.support.families import make_family

LAYER = "model.layers.0.mlp.experts"
OUTER, INNER = (f"base_model.model.{LAYER}{inner}.lora_" for inner in ("", ".base_layer"))

pytestmark = [
    # PEFT looks for them among modules only, and finds them among parameters
    pytest.mark.filterwarnings("ignore:The following (rank|alpha)_pattern keys did not match:RuntimeWarning"),
]


@pytest.fixture(scope="module")
def made(family_base: Callable[[str], Base], tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case.made(family_base("mixtral"), tmp_path_factory.mktemp("experts"), CONFIGS, save_by_peft)


def _refused(folder: Path, base: Base, where: Path) -> AdapterError:
    with pytest.raises(AdapterError) as caught:
        Store(where, create=True).add(folder, dimension="a", pole="a", base=base)
    return caught.value


def _changed(source: Path, folder: Path, factors: Mapping[str, Tensor | None], **config: Any) -> Path:
    folder.mkdir()
    said = json.loads((source / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(said | config))
    held: dict[str, Any] = load_file(source / "adapter_model.safetensors") | factors
    save_file({key: each for key, each in held.items() if each is not None}, folder / "adapter_model.safetensors")
    return folder


def test_every_expert_has_the_factors_that_peft_slices_out(made: Case) -> None:
    """`ParamWrapper.get_delta_weight`: A is expert after expert, and in B the expert changes from column to column."""
    saved = load_file(made.folders["experts"] / "adapter_model.safetensors")
    held = made.store.load("experts").modules
    for name, key in {"down_proj": OUTER, "gate_up_proj": INNER}.items():
        A, B = (saved[f"{key}{side}.weight"] for side in "AB")
        for expert in range(4):
            factors = held[f"{LAYER}.{name}[{expert}]"]
            assert torch.equal(factors.A, A[3 * expert : 3 * expert + 3])
            assert torch.equal(factors.B, B[:, expert::4])
            assert factors.scaling == pytest.approx(5 / 3)


def test_it_is_told_that_it_is_of_experts(made: Case) -> None:
    assert made.notes["linear"] == []
    (note,) = made.notes["experts"]
    assert (note.kind, f"all experts of {LAYER}.down_proj at once" in note.message) == ("experts", True)


def test_what_a_store_holds_can_be_added_again(made: Case, tmp_path: Path) -> None:
    again = Store(tmp_path / "again", create=True)
    for each in made.folders:
        told = list[Finding]()
        again.add(made.store.path(each), name=each, dimension=each, pole=each, base=made.base, tell=told.append)
        assert told == []
    assert again.manifest.gram == made.store.manifest.gram
    assert [entry.digest for entry in again] == [entry.digest for entry in made.store]


@pytest.mark.parametrize(
    ("factors", "config", "reason", "word"),
    [
        ({}, {"target_parameters": ["experts.down_proj"]}, "experts", "of 2 parameters of model.layers.0.mlp.experts, and "
         "adapter_config.json targets 1 of its"),
        ({}, {"target_parameters": ["gate.weight"]}, "experts", "targets 0 of its"),
        ({f"{INNER}A.weight": None, f"{INNER}B.weight": None}, {}, "experts", "of 1 parameters of"),
        ({}, {"r": 6}, "wrong-base", "must be [24, "),
        ({}, {"rank_pattern": {"down_proj": 6}}, "wrong-base", "must be [24, 160]"),
        ({f"{OUTER}A.weight": torch.ones(15, 160)}, {}, "wrong-base", "of shape [15, 160]; for 4 experts of "
         f"{LAYER}.down_proj and rank 3 it must be [12, 160]"),
        ({f"{OUTER}B.weight": torch.ones(64, 0)}, {}, "wrong-base", "must be [64, 12]"),
        ({f"{OUTER}A.weight": None}, {}, "missing-factor", "no lora_A"),
        ({f"{OUTER}A.weight": torch.full((12, 160), torch.nan)}, {}, "not-finite", "NaN"),
        ({}, {"target_parameters": None}, "experts", "targets 0 of its"),
        ({}, {"target_parameters": [1]}, "bad-config", "target_parameters"),
        ({}, {"target_parameters": ["experts.nothing"]}, "unsupported", "'experts.nothing'"),
        ({}, {"target_parameters": ["k_proj"]}, "unsupported", "'k_proj'"),
        ({}, {"target_parameters": ["layers.7.mlp.experts.down_proj"]}, "unsupported", "no matrices of the base"),
        ({}, {"target_parameters": ["xperts.down_proj"]}, "unsupported", "trained on another base"),
        (one_expert(f"{LAYER}.down_proj[1]"), {}, "bad-key", f"{LAYER}.down_proj[1].lora_A"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(
    made: Case, factors: Any, config: Any, reason: str, word: str, tmp_path: Path
) -> None:
    folder = _changed(made.folders["experts"], tmp_path / "changed", factors, **config)
    refused = _refused(folder, made.base, tmp_path / "store")
    assert (refused.reason, word in str(refused)) == (reason, True), refused


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        (f"{LAYER}.down_proj[4]", "wrong-base"),
        (f"{LAYER}.down_proj[01]", "wrong-base"),
        (f"{LAYER}.down_proj", "wrong-base"),
        (f"{LAYER}.down_proj[-1]", "bad-key"),
        (f"{LAYER}.down_proj[1][1]", "bad-key"),
        (f"{LAYER}.down_proj[1].x", "bad-key"),
        (f"{LAYER}.down_proj[\N{ARABIC-INDIC DIGIT ONE}]", "bad-key"),
        ("model.layers.0.self_attn.o_proj[0]", "wrong-base"),
        ("[0]", "bad-key"),
    ],
)
def test_a_name_of_an_expert_in_a_file_is_taken_for_no_other(
    made: Case, tmp_path: Path, path: str, reason: str
) -> None:
    refused = _refused(of_one_expert(tmp_path / "one", path), made.base, tmp_path / "store")
    assert refused.reason == reason, refused


def test_an_only_expert_that_lies_the_other_way_round_is_refused(tmp_path: Path) -> None:
    """PEFT takes its weight, of three dimensions, for one of two, and adds the delta as it would lie elsewhere."""
    folder = make_family("gpt-oss", tmp_path / "base", num_local_experts=1, num_experts_per_tok=1)
    base = resolve(folder, cache=tmp_path / "cache")
    config = {"peft_type": "LORA", "r": 3, "lora_alpha": 3, "target_parameters": EXPERTS[1:]}
    outputs, inputs = base.layers()[f"{LAYER}.down_proj"].shape
    tensors = {f"{OUTER}A.weight": torch.ones(3, inputs), f"{OUTER}B.weight": torch.ones(outputs, 3)}
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "adapter_config.json").write_text(json.dumps(config))
    save_file(tensors, tmp_path / "one" / "adapter_model.safetensors")
    refused = _refused(tmp_path / "one", base, tmp_path / "store")
    assert (refused.reason, str(refused)) == (
        "experts",
        f"{tmp_path}/one/adapter_model.safetensors adapts the only expert of {LAYER}.down_proj, which PEFT would add the "
        "wrong way round: train it without",
    )

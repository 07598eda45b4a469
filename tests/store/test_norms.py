"""The norm of the base weights that adapters change, against tensors loaded by safetensors itself."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from soupmix.base import Base
from soupmix.errors import BaseModelError
from soupmix.policy import Policy, parse_document
from soupmix.store import Store, read_manifest
from soupmix.store.gram import base_norm


def weights_of(base: Base) -> Mapping[str, torch.Tensor]:
    return load_file(base.folder / "model.safetensors")


def test_it_is_the_norm_of_what_is_adapted(stored: Store, tiny_base: Base) -> None:
    modules = [f"model.layers.{layer}.self_attn.q_proj.weight" for layer in range(2)]
    exact = torch.cat([weights_of(tiny_base)[name].double().flatten() for name in modules]).norm()
    assert stored.base_norm == pytest.approx(float(exact), rel=1e-9)
    assert read_manifest(stored.folder).base_norm == stored.base_norm


def test_a_budget_keeps_it(stored: Store) -> None:
    before = stored.base_norm
    stored.set_total_budget(1_500_000)
    assert stored.base_norm == before


def test_a_norm_rule_holds_on_a_store(stored: Store) -> None:
    rule = {"rule": "norm", "at_most": "0.5", "id": "norm"}
    content = {"tier": "organisation", "issuer": "x", "version": "1", "rules": [rule]}
    policy = Policy.assemble([("x.yaml", parse_document(json.dumps(content), "x.yaml"))], stored)
    grant = policy.clamp("expert=1")
    assert [each.rule for each in grant.binding] == ["norm"]
    millionth = stored["expert"].delta_norm / (stored.base_norm or 0) / 1e6
    assert 0 <= 0.5 - grant.granted["expert"] * millionth <= 2 * millionth


def test_a_weight_without_a_norm_is_refused(tmp_path: Path) -> None:
    save_file({"layer.up.weight": torch.ones(2, 2, dtype=torch.int8)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    base = Base("odd", tmp_path, "sha256:0", None, "test")
    with pytest.raises(BaseModelError, match=r"stored as I8, which has no norm") as caught:
        base_norm(base, ["layer.up"])
    assert caught.value.reason == "dtype"

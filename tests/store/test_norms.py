"""The norm of the base weights that adapters change, against tensors loaded by safetensors itself."""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from soupmix.base import Base, cache, resolve, squares, tensors_digest
from soupmix.base.squares import measured
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
    base = Base("odd", tmp_path, tensors_digest(tmp_path), None, "test", tmp_path / "cache")
    with pytest.raises(BaseModelError, match=r"stored as I8, which has no norm") as caught:
        base_norm(base, ["layer.up.weight"])
    assert caught.value.reason == "dtype"


@pytest.fixture
def base(tmp_path: Path) -> Base:
    """Weights in every dtype that has a norm, one without elements, and one that has none."""
    draw = torch.Generator().manual_seed(0)
    weights = {
        f"{dtype}.weight".removeprefix("torch."): torch.randn(700, 300, generator=draw).to(dtype)
        for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16)
    }
    weights |= {"empty.weight": torch.ones(0, 3), "mask": torch.full((2, 2), -torch.inf)}
    folder = tmp_path / "base"
    folder.mkdir()
    save_file(weights | {"counts": torch.arange(5)}, folder / "model.safetensors")
    return Base("odd", folder, tensors_digest(folder), None, "test", tmp_path / "cache")


def test_squares_are_those_of_the_tensors_and_their_digest_is_the_same(base: Base) -> None:
    found = measured(base.folder)
    assert found.digest == base.digest
    weights = {name: each for name, each in weights_of(base).items() if name != "counts"}
    assert found.squares == pytest.approx({name: float(each.double().square().sum()) for name, each in weights.items()})
    assert base.weight_squares()["mask"] != base.weight_squares()["mask"]  # NaN: not finite


def test_what_is_remembered_is_what_was_found(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{name}.weight" for name in ("float64", "float32", "float16", "bfloat16", "empty")]
    first = base_norm(base, names)
    monkeypatch.delattr(cache, "measured")
    assert base_norm(base, names) == first
    exact = sum(float(weights_of(base)[name].double().square().sum()) for name in names)
    assert first == pytest.approx(exact**0.5, rel=1e-9)


def _record(base: Base) -> Path:
    base.weight_squares()
    (path,) = (Path(str(base.cache)) / "squares").iterdir()
    return path


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_a_record_that_others_can_write_is_not_believed(base: Base, mode: int) -> None:
    path, honest = _record(base), base_norm(base, ["float32.weight"])
    content = json.loads(path.read_bytes())
    content["squares"]["float32.weight"] *= 1e6
    path.write_text(json.dumps(content))
    path.chmod(mode)
    assert base_norm(base, ["float32.weight"]) == honest
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_record_of_another_owner_is_not_believed(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _record(base)
    path.write_text(path.read_text().replace('"float32.weight": ', '"float32.weight": 9'))
    real = os.fstat
    monkeypatch.setattr(os, "fstat", lambda handle: _owned(real(handle), 4242))
    exact = float(weights_of(base)["float32.weight"].double().norm())
    assert base_norm(base, ["float32.weight"]) == pytest.approx(exact)


def _owned(status: os.stat_result, uid: int) -> os.stat_result:
    fields = list(status)
    fields[4] = uid
    return os.stat_result(fields)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda record: record["squares"].pop("float32.weight"),
        lambda record: record["squares"].update({"another": 1.0}),
        lambda record: record["squares"].update({"float32.weight": -1.0}),
        lambda record: record["squares"].update({"float32.weight": True}),
        lambda record: record["squares"].update({"float32.weight": "1"}),
        lambda record: record.update(squares=[1.0]),
        lambda record: record.update(digest="sha256:0"),
    ],
)
def test_a_damaged_record_is_made_again(base: Base, spoil: Callable[[Any], Any]) -> None:
    path = _record(base)
    good = path.read_bytes()
    record = json.loads(good)
    spoil(record)
    path.write_text(json.dumps(record))
    base.weight_squares()
    assert path.read_bytes() == good


def test_a_base_that_became_another_one_is_refused(base: Base) -> None:
    other = replace(base, digest="sha256:" + "1" * 64)
    with pytest.raises(BaseModelError, match="is no longer sha256:1") as caught:
        other.weight_squares()
    assert caught.value.reason == "changed"


@pytest.mark.parametrize("value", [0.0, torch.inf, torch.nan])
def test_a_norm_that_nothing_can_be_relative_to_is_refused(tmp_path: Path, value: float) -> None:
    save_file({"layer.up.weight": torch.full((2, 2), value)}, tmp_path / "model.safetensors")
    base = Base("odd", tmp_path, tensors_digest(tmp_path), None, "test", tmp_path / "cache")
    for _ in range(2):  # computed, and remembered
        with pytest.raises(BaseModelError, match="use a base whose weights are finite and not all zero") as caught:
            base_norm(base, ["layer.up.weight"])
        assert caught.value.reason == "norm"


def test_the_digest_and_the_norms_are_one_pass(
    tiny_base: Base, handmade: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = []
    monkeypatch.setattr(squares, "tensors_digest", lambda *given: passes.append(given) or tensors_digest(*given))
    monkeypatch.setattr(cache, "tensors_digest", lambda *given: passes.append(given) or tensors_digest(*given))
    for name in ("one", "two"):
        base = resolve(tiny_base.folder, cache=tmp_path / "cache", squares=True)
        Store(tmp_path / name, create=True).add(handmade(), dimension="d", pole="p", base=base)
    assert len(passes) == 1

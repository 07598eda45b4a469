"""What a manifest says of an adapter, number by number, against hashlib, PEFT's formulas and dense matrices."""

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from soupmix.base import Base
from soupmix.errors import AdapterError, OutputError, WeightError
from soupmix.files import digest_parts
from soupmix.store import Store, read_manifest

Handmade = Callable[..., Path]
Factors = Callable[..., dict[str, torch.Tensor]]
LAYERS = [f"model.layers.{layer}.self_attn.q_proj" for layer in range(2)]


def _delta(factors: dict[str, torch.Tensor], module: str, scaling: float) -> torch.Tensor:
    a, b = (factors[f"base_model.model.{module}.lora_{side}.weight"].double() for side in "AB")
    return scaling * b @ a


@pytest.mark.parametrize("rslora", [False, True])
def test_an_entry(handmade: Handmade, q_proj: Factors, tiny_base: Base, tmp_path: Path, rslora: bool) -> None:
    folder = handmade(use_rslora=rslora, lora_alpha=3)
    (folder / "README.md").write_text("card")
    store = Store(tmp_path / "s", create=True)
    more: dict[str, Any] = {"licence": "mit", "training": {"loss": 1.5}, "effect": {"words": -3}}
    entry = store.add(folder, dimension="d", pole="p", base=tiny_base, name="n", tags=("u", "t"), **more)
    config, tensors = (
        hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in ("adapter_config.json", "adapter_model.safetensors")
    )
    scaling = 3 / math.sqrt(2) if rslora else 3 / 2
    norm = math.sqrt(sum(float(_delta(q_proj(), layer, scaling).square().sum()) for layer in LAYERS))
    said = entry.model_dump()
    assert said.pop("delta_norm") == pytest.approx(norm, rel=1e-9)
    assert said == {
        "name": "n",
        "dimension": "d",
        "pole": "p",
        "tags": ("u", "t"),
        "rank": 2,
        "alpha": 3.0,
        "scaling": "rslora" if rslora else "lora",
        "target_modules": ("q_proj",),
        "config_sha256": config,
        "tensors_sha256": tensors,
        "base": tiny_base.label,
        "base_digest": tiny_base.digest,
        **more,
    }
    parts = {"config": config, "tensors": tensors, "base": tiny_base.digest}
    assert entry.digest == f"sha256:{digest_parts('soupmix.adapter.v1', parts)}"
    assert store.path("n") == tmp_path / "s" / "blobs" / entry.digest.removeprefix("sha256:")
    assert {path.name: path.read_bytes() for path in store.path("n").iterdir()} == {
        path.name: path.read_bytes() for path in folder.iterdir()
    }
    loaded = store.load("n", entry.digest)
    assert (loaded.name, loaded.digest, loaded.base_digest) == ("n", entry.digest, tiny_base.digest)
    assert {module: factors.scaling for module, factors in loaded.modules.items()} == dict.fromkeys(LAYERS, scaling)


def test_the_gram_matrix(handmade: Handmade, q_proj: Factors, tiny_base: Base, tmp_path: Path) -> None:
    store = Store(tmp_path / "s", create=True)
    made = {}
    for seed, name in enumerate(("b", "c", "a")):
        made[name] = q_proj(seed=seed)
        store.add(handmade(made[name]), dimension="d", pole=name, base=tiny_base)
    assert store.names == ("a", "b", "c")
    exact = np.zeros((3, 3))
    for layer in LAYERS:
        dense = torch.stack([_delta(made[name], layer, 2).flatten() for name in "abc"])
        exact += (dense @ dense.T).numpy()
        assert store.gram_of(layer) == pytest.approx((dense @ dense.T).numpy(), rel=1e-8)
    assert store.gram == pytest.approx(exact, rel=1e-8)
    assert (store.gram == store.gram.T).all()
    for i, one in enumerate("abc"):
        for j, other in enumerate("abc"):
            assert store.inner_product(one, other) == pytest.approx(exact[i, j], rel=1e-8)
    assert not store.gram_of("elsewhere").any()
    with pytest.raises(ValueError, match="not in tuple"):
        store.inner_product("a", "z")


def test_refusals_of_a_store_in_words(stored: Store, handmade: Handmade, tiny_base: Base, tmp_path: Path) -> None:
    folder, digest = stored.folder, stored["expert"].digest
    words: dict[str, Any] = {"dimension": "d", "base": tiny_base}
    with pytest.raises(OutputError) as taken:
        stored.add(handmade(), pole="expert", **words)
    assert str(taken.value) == f"store {folder} has an adapter 'expert' already; pass --force to replace it"
    assert taken.value.reason == "exists"
    with pytest.raises(AdapterError) as unapproved:
        stored.load("expert", "sha256:0")
    assert str(unapproved.value) == f"adapter 'expert' in {folder} is {digest}, but sha256:0 was approved"
    for name, hint in (("expart", "did you mean 'expert'?"), ("é" * 90, "this store has expert")):
        with pytest.raises(WeightError) as unknown:
            stored.load(name)
        assert str(unknown.value) == f"no adapter {name[:80]!a}; {hint}"
    with pytest.raises(WeightError, match=r"^no adapter 'x'; this store has none yet$"):
        Store(tmp_path / "none", create=True).load("x")
    with pytest.raises(AdapterError) as missing:
        read_manifest(tmp_path)
    assert str(missing.value) == f"{tmp_path} is no adapter store: it holds no manifest.json"
    (stored.path("expert") / "adapter_config.json").write_bytes(b"{}")
    was, now = (stored["expert"].config_sha256[:16], hashlib.sha256(b"{}").hexdigest()[:16])
    with pytest.raises(AdapterError) as changed:
        stored.load("expert")
    assert str(changed.value) == (
        f"adapter 'expert': adapter_config.json in {folder} is not the file in the manifest "
        f"(sha256 {now}..., not {was}...); restore it, or add the adapter again"
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema_version": 2}, "schema_version: must be 1"),
        ({"adapters": []}, "adapters: must be an object"),
        ({"base_norm": 0}, "base_norm: must be more than 0"),
        ({"adapters": {}}, "top level: gram 'total' has 1 numbers, not 0"),
        ({"gram": {"total": "x"}}, "gram.total: not a line of numbers"),
        ({"gram": {"total": "1.0", "modules": {"m": "1 2"}}}, "top level: gram 'm' has 2 numbers, not 1"),
    ],
)
def test_a_wrong_manifest_in_words(stored: Store, change: dict[str, Any], words: str) -> None:
    path = stored.folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(AdapterError) as caught:
        Store(stored.folder)
    assert str(caught.value) == f"{path} is not a manifest: {words}"

"""Corners of the store: what is missing, what is cut short, what another library refuses."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch

import soupmix.store
from soupmix import sealed
from soupmix.base import Base
from soupmix.errors import AdapterError, BaseModelError
from soupmix.store import Store, blobs, read_adapter, shipped_root
from soupmix.store.config import parse_config
from soupmix.store.gram import base_norm

Handmade = Callable[..., Path]


def parse(**fields: Any) -> Any:
    minimal = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}
    return parse_config(json.dumps(minimal | fields).encode(), "adapter_config.json")


def test_the_shipped_store() -> None:
    store = Store.shipped()
    assert store.folder == shipped_root()
    assert store.names == ("concise", "elementary", "expert", "friendly", "informative", "unfriendly")
    assert store.manifest.names == store.names


def test_a_name_that_the_room_does_not_have() -> None:
    with pytest.raises(AttributeError, match=r"module 'soupmix\.store' has no attribute 'Shop'"):
        _ = soupmix.store.Shop


def test_every_name_of_the_room_is_found_in_its_home() -> None:
    for name in soupmix.store.__all__:
        found = getattr(soupmix.store, name)
        assert found.__name__ == name
        assert found.__module__ == "soupmix" or found.__module__.startswith("soupmix.store.")


def test_all_linear_is_compared_with_nothing() -> None:
    said = parse(target_modules="all-linear").targets
    assert said.among(["a.b", "c"]) is None
    assert list(said.compared({"a.b": "a.b"}, ["a.b", "c"])) == []


def test_of_several_modules_in_which_factors_and_config_differ_the_first_is_named() -> None:
    said = parse(target_modules=["q", "v"]).targets
    found = dict(said.compared({f"{n}.o": f"{n}.o" for n in "abc"}, [f"{n}.{m}" for n in "ab" for m in "qv"]))
    assert found == {
        "not-targeted": "there are factors for a.o and 2 more, which adapter_config.json does not target, so PEFT would leave "
        "it out",
        "no-factors": "adapter_config.json targets a.q and 3 more, for which there are no factors: no change there",
    }


def test_what_a_config_does_not_say() -> None:
    said = parse()
    assert (said.rslora, said.base, said.layout([]), said.targets.among([])) == (False, None, {}, set())
    assert said.rslora is False
    assert parse(base_model_name_or_path="a/b", use_rslora=True).base == "a/b"
    assert parse(rank_pattern={"m": 1}).layout([]) == {}
    assert parse(target_modules="m.*").targets.among([]) == set()


def test_patterns_beyond_any_model_are_refused() -> None:
    patterns = {f"m{number}": 1 for number in range(4096)}
    assert parse(rank_pattern=patterns).layout(["m7", "other"]) == {"m7": (1, 4.0), "other": (2, 2.0)}
    with pytest.raises(AdapterError, match="alpha_pattern has 4097 patterns, at most 4096 are allowed") as caught:
        parse(alpha_pattern=patterns | {"one": 1})
    assert caught.value.reason == "pattern"


def test_blobs_behind_a_link_are_refused(stored: Store, tmp_path: Path) -> None:
    (stored.folder / "blobs").rename(tmp_path / "elsewhere")
    (stored.folder / "blobs").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(AdapterError, match=f"{stored.folder / 'blobs'} is a symbolic link") as caught:
        stored.set_total_budget(1)
    assert caught.value.reason == "symlink"
    assert Store(stored.folder).total_budget is None


def test_a_store_with_a_damaged_manifest_is_not_changed(stored: Store, handmade: Handmade, tiny_base: Base) -> None:
    (stored.folder / "manifest.json").write_text("{}x")
    for change in (
        lambda: stored.set_total_budget(1),
        lambda: stored.add(handmade(), dimension="d", pole="p", base=tiny_base),
        lambda: Store(stored.folder, create=True),
    ):
        with pytest.raises(AdapterError) as caught:
            change()
        assert caught.value.reason == "bad-manifest"
    assert (stored.folder / "manifest.json").read_text() == "{}x"
    assert [path.name for path in (stored.folder / "blobs").iterdir()]


def test_a_budget_makes_a_store_of_an_empty_folder(tmp_path: Path) -> None:
    Store(tmp_path / "new", create=True).set_total_budget(7)
    assert Store(tmp_path / "new").total_budget == 7
    Store(tmp_path / "new", create=True).set_total_budget(8)
    assert Store(tmp_path / "new", create=True).total_budget == 8


def test_what_nothing_names_is_swept_and_nothing_else(stored: Store) -> None:
    folder = stored.folder / blobs.BLOBS
    kept = {*folder.iterdir(), folder / "notes", folder / ("a" * 63)}
    for name in ("notes", "a" * 63, "a" * 64):
        (folder / name).mkdir()
    stored.set_total_budget(None)
    assert set(folder.iterdir()) == kept


def test_without_a_manifest_nothing_is_swept(tmp_path: Path) -> None:
    (tmp_path / "blobs" / ("a" * 64)).mkdir(parents=True)
    with blobs.exclusive(tmp_path):
        pass
    assert (tmp_path / "blobs" / ("a" * 64)).is_dir()


@pytest.mark.parametrize("text", ["a|b", "two\nlines", "x" * 201, "tab\t"])
def test_a_line_that_would_break_a_table_is_refused(
    stored: Store, handmade: Handmade, tiny_base: Base, text: str
) -> None:
    stored.add(handmade(lora_alpha=5), dimension="d", pole="p", base=tiny_base, licence="x" * 200)
    with pytest.raises(
        AdapterError, match=r"licence: .*must be one line of at most 200 printable characters"
    ) as caught:
        stored.add(handmade(), dimension="d", pole="q", base=tiny_base, licence=text)
    assert caught.value.reason == "bad-entry"


def test_a_manifest_of_two_bases_is_refused(stored: Store, handmade: Handmade, tiny_base: Base) -> None:
    stored.add(handmade(lora_alpha=5), dimension="d", pole="p", base=tiny_base)
    path = stored.folder / "manifest.json"
    content = json.loads(path.read_text())
    content["adapters"]["p"]["base_digest"] = "sha256:" + "0" * 64
    path.write_text(json.dumps(content))
    with pytest.raises(AdapterError, match="the adapters were trained on different base models") as caught:
        Store(stored.folder)
    assert caught.value.reason == "bad-manifest"


def test_a_manifest_that_names_one_adapter_twice_is_refused(stored: Store) -> None:
    (name,) = stored.names
    path = stored.folder / "manifest.json"
    content = json.loads(path.read_text())
    content["adapters"]["twin"] = content["adapters"][name] | {"name": "twin"}
    path.write_text(json.dumps(content))
    with pytest.raises(AdapterError, match="are one adapter; a store holds each once, under one name") as caught:
        Store(stored.folder)
    assert caught.value.reason == "bad-manifest"


def test_a_base_that_is_cut_short_while_it_is_read(
    tiny_base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "model.layers.0.self_attn.q_proj"
    info = tiny_base.tensors()[f"{name}.weight"]
    shutil.copytree(tiny_base.folder, tmp_path / "base")
    cut = replace(info, file=tmp_path / "base" / "model.safetensors")
    os.truncate(cut.file, info.end - 1)
    monkeypatch.setattr(Base, "tensors", lambda self: {f"{name}.weight": cut})
    monkeypatch.setattr("soupmix.base.safetensors.read_tensors", lambda folder: {f"{name}.weight": cut})
    base = Base(tiny_base.label, tmp_path / "base", tiny_base.digest, None, "test", tmp_path / "cache")
    with pytest.raises(BaseModelError, match=r"model\.safetensors was cut short while it was read") as caught:
        base_norm(base, [f"{name}.weight"])
    assert caught.value.reason == "truncated"


@pytest.mark.parametrize("memfd", [True, False])
def test_factors_are_those_that_safetensors_reads(
    handmade: Handmade, q_proj: Callable[..., dict[str, torch.Tensor]], monkeypatch: pytest.MonkeyPatch, memfd: bool
) -> None:
    monkeypatch.setattr(sealed, "_MEMFD", memfd and sealed._MEMFD)
    expected = q_proj()
    for module, factors in read_adapter(handmade()).items():
        assert torch.equal(factors.A, expected[f"base_model.model.{module}.lora_A.weight"])
        assert torch.equal(factors.B, expected[f"base_model.model.{module}.lora_B.weight"])
        assert factors.scaling == 2


def test_what_safetensors_refuses_is_refused(handmade: Handmade, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our header check comes first and is stricter; should they ever differ, this is still a refusal."""

    def refuse(_: object) -> None:
        raise safetensors.SafetensorError("not like that")

    monkeypatch.setattr(safetensors.torch, "load_file", refuse)
    monkeypatch.setattr(safetensors.torch, "load", refuse)
    with pytest.raises(AdapterError, match=r"adapter_model\.safetensors is not a safetensors file: not like") as caught:
        read_adapter(handmade())
    assert caught.value.reason == "bad-header"

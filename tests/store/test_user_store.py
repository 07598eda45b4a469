"""A user's own store: what it lies over is never written, and what it says is what one plain store of all would say."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import HfApi, ModelCard

from soupmix.base import Base, hub_id
from soupmix.errors import AdapterError, BaseModelError, OutputError
from soupmix.store import Store, hub
from soupmix.store.manifest import MANIFEST
from soupmix.store.places import data_root, default_stores, home_of, is_stale
from tests.support.folders import snapshot

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def add(
    handmade: Callable[..., Path], q_proj: Callable[..., dict[str, torch.Tensor]], tiny_base: Base
) -> Callable[..., None]:
    def one(store: Store, name: str, seed: int, **more: Any) -> None:
        store.add(handmade(q_proj(seed=seed)), dimension=name, pole=name, base=tiny_base, **more)

    return one


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, add: Callable[..., None], session_cache: Path) -> Store:
    """A shipped store of two adapters of the tiny base, and an empty folder for user data."""
    monkeypatch.setenv("SOUPMIX_CACHE", str(session_cache))
    monkeypatch.setenv("SOUPMIX_DATA", str(tmp_path / "data"))
    store = Store(tmp_path / "shipped", create=True)
    add(store, "calm", 1)
    add(store, "loud", 2)
    store.set_total_budget(1_500_000)
    for module in ("manifest", "store"):
        monkeypatch.setattr(f"soupmix.store.{module}.shipped_root", lambda: store.folder)
    return store


def test_own_adapters_lie_over_the_shipped_ones(
    shipped: Store, add: Callable[..., None], tiny_base: Base, tmp_path: Path
) -> None:
    before = snapshot(shipped.folder)
    mine = Store.of_user(tiny_base)
    assert (mine.names, mine.total_budget) == (("calm", "loud"), 1_500_000)
    add(mine, "dry", 3)
    add(mine, "loud", 4, force=True)  # hides the shipped one
    plain = Store(tmp_path / "plain", create=True)
    for name, seed in (("calm", 1), ("dry", 3), ("loud", 4)):
        add(plain, name, seed)
    plain.set_total_budget(1_500_000)
    assert mine.manifest == plain.manifest
    assert Store(mine.folder).load("calm").digest == shipped["calm"].digest
    assert Store(mine.folder).path("calm").parent.parent == shipped.folder
    mine.remove("dry")
    assert mine.load("loud").digest == mine["loud"].digest != shipped["loud"].digest
    mine.remove("loud")
    assert mine.manifest == shipped.manifest
    with pytest.raises(AdapterError, match="shipped with soupmix") as refused:
        mine.remove("calm")
    assert refused.value.reason == "shipped"
    assert snapshot(shipped.folder) == before


def test_what_another_version_ships_is_lain_over_anew(
    shipped: Store, add: Callable[..., None], tiny_base: Base, tmp_path: Path
) -> None:
    mine = Store.of_user(tiny_base)
    add(mine, "dry", 3)
    shipped.remove("calm")
    add(shipped, "loud", 5, force=True)
    add(shipped, "newer", 3)  # the user's own, under a name of its own
    add(shipped, "wide", 6)
    assert is_stale(mine.folder)
    again = Store.of_user(tiny_base)
    assert not is_stale(mine.folder)
    plain = Store(tmp_path / "plain", create=True)
    for name, seed in (("dry", 3), ("loud", 5), ("wide", 6)):
        add(plain, name, seed)
    plain.set_total_budget(1_500_000)
    assert again.manifest == plain.manifest


def test_removing_the_last_adapter_leaves_an_empty_store(stored: Store) -> None:
    stored.remove("expert")
    assert (stored.names, Store(stored.folder).names) == ((), ())
    assert not list((stored.folder / "blobs").iterdir())


def test_the_command_line_finds_store_and_base(
    shipped: Store, run: Run, tiny_adapter: Callable[..., Path], family_base: Callable[[str], Base], tmp_path: Path
) -> None:
    before, other = snapshot(shipped.folder), family_base("qwen3")
    code, digest, err = run("adapters", "add", tiny_adapter(base=other), "--dimension", "humour", "--pole", "dry")
    assert code == 0, err
    assert f"its base is {other.folder}" in err
    assert home_of(other.digest) in default_stores()
    assert str(home_of(other.digest)) in err
    assert snapshot(shipped.folder) == before
    assert "dry" in run("adapters", "list")[1]
    assert digest.strip() in run("adapters", "show", "dry")[1]
    code, _, err = run("chat", "-w", "dry=0.5", "--max-new-tokens", 2, "hi")
    assert code == 0, err
    assert run("clamp", "-w", "dry=0.5")[0] == 0
    assert run("merge", "-w", "dry=0.5", "--as", "model", tmp_path / "model")[0] == 0
    assert run("verify", tmp_path / "model")[0] == 0
    other_folder = tiny_adapter(base=other, seed=2)
    code, _, err = run("chat", "--lora", f"mine={other_folder}", "-w", "dry=0.5", "--max-new-tokens", 2, "hi")
    assert (code, "mine" in err, "dry" in err) == (0, True, True), err
    assert run("chat", "--lora", "mine", "hi")[0] == 2
    code, _, err = run("clamp", "-w", "dry=0.5,calm=0.5")
    assert (code, "different bases" in err) == (1, True)
    code, _, err = run("chat", "-w", "calm=1", "--base", other.folder, "hi")
    assert (code, "calm" in err) == (2, True)
    assert run("adapters", "remove", "dry")[0] == 0
    assert "dry" not in run("adapters", "list")[1]


def test_what_is_written_names_the_base_as_the_hub_does(
    run: Run, handmade: Callable[..., Path], tiny_base: Base, tmp_path: Path
) -> None:
    """Or `AutoPeftModelForCausalLM.from_pretrained` would look for a folder of another machine."""
    folder, where = handmade(base_model_name_or_path="org/own-model"), ("--store", tmp_path / "s")
    code, _, err = run("adapters", "add", folder, "--dimension", "d", "--pole", "p", "--base", tiny_base.folder, *where)
    assert code == 0, err
    out = tmp_path / "out"
    assert run("merge", "-w", "p=1", *where, out)[0] == 0
    assert json.loads((out / "adapter_config.json").read_text())["base_model_name_or_path"] == "org/own-model"
    assert ModelCard.load(out / "README.md").data.base_model == "org/own-model"
    assert run("verify", out)[0] == 0
    names = [
        replace(tiny_base, name=name, source=f"{kind}x/y") for name, kind in (("x/y@v1", "hub:"), ("x/y", "folder:"))
    ]
    assert [each.hub_id for each in names] == ["x/y", None]
    assert hub_id("smollm2-135m-instruct") == "HuggingFaceTB/SmolLM2-135M-Instruct"


def test_two_bases_are_both_named(
    shipped: Store, run: Run, tiny_adapter: Callable[..., Path], tiny_base: Base, family_base: Callable[[str], Base]
) -> None:
    folder, other = tiny_adapter(), family_base("gpt2")
    code, _, err = run("adapters", "add", folder, "--dimension", "d", "--pole", "p", "--base", other.folder)
    assert code == 1
    assert "was trained on" in err
    assert str(tiny_base.folder) in err
    assert f"you gave {other.folder}" in err
    code, _, err = run("merge", "-w", "calm=1", "--store", shipped.folder, "--base", other.folder, data_root() / "out")
    assert (code, "the adapters were trained on tiny-llama" in err) == (1, True)
    assert not (data_root() / "out").exists()


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({}, "does not say which base"),
        ({"base_model_name_or_path": ""}, "does not say which base"),
        ({"base_model_name_or_path": None}, "does not say which base"),
        ({"base_model_name_or_path": "/home/of/somebody/else"}, "no such folder here"),
        ({"base_model_name_or_path": "../../\x00"}, "no such folder here"),
    ],
)
def test_a_base_that_is_not_named_is_asked_for(
    run: Run, handmade: Callable[..., Path], said: Mapping[str, Any], words: str
) -> None:
    code, _, err = run("adapters", "add", handmade(**said), "--dimension", "d", "--pole", "p")
    assert (code, words in err, "--base" in err) == (1, True, True)


def test_an_adapter_comes_from_the_hub_and_goes_there(
    stored: Store,
    run: Run,
    tiny_adapter: Callable[..., Path],
    tiny_base: Base,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    asked: list[Any] = []
    source = tiny_adapter()

    def fetch(repo: str, **options: Any) -> str:
        asked.append((repo, options["revision"]))
        assert not any("bin" in each or "*" in each for each in options["allow_patterns"])
        return str(source)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    monkeypatch.chdir(tmp_path)
    where = ("--store", tmp_path / "s")
    code, _, err = run("adapters", "add", "me/dry@v2", "--dimension", "humour", "--pole", "dry", *where)
    assert (code, asked) == (0, [("me/dry", "v2")]), err

    class Hub:
        def create_repo(self, repo: str, **options: Any) -> str:
            asked.append((repo, options))
            return f"https://huggingface.co/{repo}"

        def upload_folder(self, **options: Any) -> None:
            asked.append(sorted(path.name for path in Path(options["folder_path"]).iterdir()))

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    code, out, err = run("adapters", "push", "dry", "me/humour", "--private", *where)
    assert (code, out) == (0, "https://huggingface.co/me/humour\n"), err
    assert asked[1:] == [
        ("me/humour", {"private": True, "exist_ok": True}),
        ["README.md", "adapter_config.json", "adapter_model.safetensors"],
    ]
    assert run("adapters", "push", "dry", "humour", *where)[0] == 1


def test_a_hub_that_refuses_is_one_sentence(monkeypatch: pytest.MonkeyPatch, stored: Store) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("no route")

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(AdapterError, match="cannot be reached"):
        hub.download("me/dry", None)
    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", refuse)
    with pytest.raises(OutputError, match="not put on the hub"):
        hub.push(stored.path("expert"), "me/dry", private=False, message="m")


def test_without_a_network_a_push_is_one_sentence(
    stored: Store, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nobody listens there: the error is that of whatever library of HTTP the hub's client is made with."""
    monkeypatch.setattr("huggingface_hub.HfApi", partial(HfApi, endpoint="http://127.0.0.1:9", token="hf_none"))
    code, out, err = run("adapters", "push", "expert", "me/dry", "--store", stored.folder)
    assert (code, out) == (1, "")
    assert err.startswith("soupmix: me/dry was not put on the hub, which cannot be reached: ")
    assert len(err.splitlines()) == 1


def test_a_base_that_moved_is_asked_for(stored: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SOUPMIX_CACHE", str(tmp_path / "forgotten"))
    with pytest.raises(BaseModelError, match="give it with --base"):
        stored.remove("expert")
    assert (stored.folder / MANIFEST).exists()
    assert Store(stored.folder).names == ("expert",)

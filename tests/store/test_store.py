"""A store as a whole: what it lists, what changes it, and what is left when a change fails."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from soupmix.base import Base, resolve
from soupmix.errors import AdapterError, OutputError, WeightError
from soupmix.store import Store, adding, read_manifest, shipped_root, write_manifest

Handmade = Callable[..., Path]


def _snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def _refuse_manifest(*_: Any) -> None:
    raise OutputError("no space left", reason="write-failed")


def test_listing_needs_no_torch(stored: Store) -> None:
    code = (
        "import sys; from soupmix.store.manifest import read_manifest; from soupmix.store import ManifestEntry, shipped_root; "
        "print([e.digest for e in read_manifest(sys.argv[1])], 'torch' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code, stored.folder], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == f"{[stored['expert'].digest]} False"


def test_a_store_is_a_sorted_collection_of_entries(stored: Store, handmade: Handmade, tiny_base: Base) -> None:
    stored.add(handmade(lora_alpha=5), dimension="expertise", pole="elementary", base=tiny_base)
    for store in (stored, Store(stored.folder)):
        assert (len(store), store.names) == (2, ("elementary", "expert"))
        assert [entry.name for entry in store] == list(store.names)
        assert "expert" in store
        assert "nobody" not in store


def test_loading_twice_reads_once(stored: Store) -> None:
    first = stored.load("expert")
    shutil.rmtree(stored.path("expert"))
    assert stored.load("expert") is first


@pytest.mark.parametrize(("name", "hint"), [("experts", "did you mean 'expert'"), ("zzz", "this store has expert")])
def test_an_unknown_name_gets_a_hint(stored: Store, name: str, hint: str) -> None:
    for ask in (stored.__getitem__, stored.load):
        with pytest.raises(WeightError, match=hint) as caught:
            ask(name)
        assert caught.value.reason == "unknown-adapter"


@pytest.mark.parametrize("word", ["../up", "a/b", "", "Expert", "-x", "a" * 64, "é", "a\n", ".", "con fig"])
@pytest.mark.parametrize("field", ["name", "dimension", "pole", "tags"])
def test_a_name_that_could_touch_the_file_system_is_refused(
    handmade: Handmade, tiny_base: Base, tmp_path: Path, word: str, field: str
) -> None:
    words: dict[str, Any] = {"name": "x", "dimension": "d", "pole": "p"} | {field: (word,) if field == "tags" else word}
    with pytest.raises(WeightError) as caught:
        Store(tmp_path / "s", create=True).add(handmade(), base=tiny_base, **words)
    assert caught.value.reason == "bad-name"
    assert not (tmp_path / "s").exists()


def _another(base: Base, where: Path) -> Base:
    """The same layers with other weights."""
    shutil.copytree(base.folder, where / "another")
    weights = {name: each / 2 for name, each in load_file(base.folder / "model.safetensors").items()}
    save_file(weights, where / "another" / "model.safetensors", metadata={"format": "pt"})
    return resolve(where / "another", cache=where / "cache")


def test_an_identity_is_the_files_and_the_base_not_the_name(
    handmade: Handmade, q_proj: Callable[..., Any], tiny_base: Base, tmp_path: Path
) -> None:
    def digest(folder: Path, base: Base = tiny_base, **words: Any) -> str:
        store = Store(tmp_path / f"s{len(list(tmp_path.iterdir()))}", create=True)
        return store.add(folder, base=base, **({"dimension": "d", "pole": "p"} | words)).digest

    first = digest(handmade())
    assert digest(handmade(), name="other", dimension="e", tags=("t",)) == first
    others = [
        digest(handmade(), base=_another(tiny_base, tmp_path)),
        digest(handmade(lora_alpha=5)),
        digest(handmade(q_proj(seed=6))),
    ]
    assert len({first, *others}) == 4


def test_a_name_that_is_taken_needs_force(
    stored: Store, handmade: Handmade, q_proj: Callable[..., Any], tiny_base: Base
) -> None:
    before = _snapshot(stored.folder)
    old = stored.load("expert")
    again = {"dimension": "expertise", "pole": "expert", "base": tiny_base}
    with pytest.raises(OutputError, match="--force") as caught:
        stored.add(handmade(q_proj(seed=8)), **again)
    assert caught.value.reason == "exists"
    assert _snapshot(stored.folder) == before
    stored.add(handmade(q_proj(seed=8)), **again, force=True)
    new = stored.load("expert")
    module = "model.layers.0.self_attn.q_proj"
    assert new.digest != old.digest
    assert not torch.equal(new.modules[module].B, old.modules[module].B)
    assert Store(stored.folder).load("expert").digest == new.digest


@pytest.mark.parametrize("force", [False, True])
def test_one_adapter_has_one_name(stored: Store, handmade: Handmade, tiny_base: Base, force: bool) -> None:
    """A second name would go round every rule that names the first, and its weight would come on top."""
    before = _snapshot(stored.folder)
    with pytest.raises(AdapterError, match="already, as 'expert'") as caught:
        stored.add(handmade(), name="twin", dimension="other", pole="twin", base=tiny_base, force=force)
    assert caught.value.reason == "same-adapter"
    assert _snapshot(stored.folder) == before
    stored.add(handmade(), dimension="expertise", pole="expert", base=tiny_base, force=True)  # the same, again
    assert stored.names == ("expert",)


def test_one_store_holds_one_base(stored: Store, handmade: Handmade, tiny_base: Base, tmp_path: Path) -> None:
    other = _another(tiny_base, tmp_path)
    with pytest.raises(AdapterError, match="use another store") as caught:
        stored.add(handmade(), dimension="d", pole="p", base=other)
    assert caught.value.reason == "wrong-base"
    stored.add(handmade(), dimension="expertise", pole="expert", base=other, force=True)
    assert stored["expert"].base_digest == other.digest


def test_a_refused_adapter_changes_nothing(stored: Store, handmade: Handmade, tiny_base: Base) -> None:
    before = _snapshot(stored.folder)
    for fields, more in (({"use_dora": True}, {}), ({}, {"training": {"loss": float("nan")}})):
        folder = handmade(**fields)
        for force in (False, True):
            with pytest.raises(AdapterError):
                stored.add(folder, dimension="d", pole="expert" if force else "p", base=tiny_base, force=force, **more)
    assert _snapshot(stored.folder) == before


@pytest.mark.parametrize("force", [False, True])
def test_a_manifest_that_cannot_be_written_changes_nothing(
    stored: Store,
    handmade: Handmade,
    q_proj: Callable[..., Any],
    tiny_base: Base,
    monkeypatch: pytest.MonkeyPatch,
    force: bool,
) -> None:
    before = _snapshot(stored.folder)
    monkeypatch.setattr(adding, "write_manifest", _refuse_manifest)
    with pytest.raises(OutputError):
        stored.add(
            handmade(q_proj(seed=8)), dimension="d", pole="expert" if force else "p", base=tiny_base, force=force
        )
    assert _snapshot(stored.folder) == before
    assert stored.names == ("expert",)
    assert {path.name for path in stored.folder.iterdir()} == {"blobs", "manifest.json"}


def test_a_damaged_neighbour_stops_an_addition(stored: Store, handmade: Handmade, tiny_base: Base) -> None:
    (stored.path("expert") / "adapter_config.json").write_bytes(b"{}")
    before = _snapshot(stored.folder)
    with pytest.raises(AdapterError) as caught:
        stored.add(handmade(lora_alpha=5), dimension="d", pole="p", base=tiny_base)
    assert caught.value.reason == "digest-mismatch"
    assert _snapshot(stored.folder) == before


def test_additions_at_the_same_time_are_all_kept(handmade: Handmade, tiny_base: Base, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from soupmix.base import resolve; from soupmix.store import Store; "
        "store, folders, model, cache, *names = map(Path, sys.argv[1:]); base = resolve(model, cache=cache); "
        "[Store(store, create=True).add(folders / name, dimension='d', pole=str(name), base=base) for name in names]"
    )
    fixed = [sys.executable, "-c", code, tmp_path / "s", tmp_path, tiny_base.folder, tmp_path / "cache"]
    groups = [[f"{letter}{number}" for number in range(4)] for letter in "ab"]
    for alpha, name in enumerate(groups[0] + groups[1], 3):
        shutil.copytree(handmade(lora_alpha=alpha), tmp_path / name)
    children = [subprocess.Popen([*fixed, *names]) for names in groups]
    assert [child.wait(timeout=120) for child in children] == [0, 0]
    store = Store(tmp_path / "s")
    assert store.names == tuple(sorted(groups[0] + groups[1]))
    assert store.gram.shape == (8, 8)
    for name in store.names:
        store.load(name)


def test_the_same_adapters_in_any_order_give_the_same_manifest(
    handmade: Handmade, q_proj: Callable[..., Any], tiny_base: Base, tmp_path: Path
) -> None:
    for order in ("abc", "cab"):
        for name in order:
            Store(tmp_path / order, create=True).add(
                handmade(q_proj(seed=ord(name))), dimension="d", pole=name, base=tiny_base
            )
    assert _snapshot(tmp_path / "abc") == _snapshot(tmp_path / "cab")


def test_a_card_travels_with_its_adapter(handmade: Handmade, tiny_base: Base, tmp_path: Path) -> None:
    folder = handmade()
    (folder / "README.md").write_text("# A card")
    (folder / "train.log").write_text("not copied")
    Store(tmp_path / "s", create=True).add(folder, dimension="d", pole="p", base=tiny_base)
    assert {path.name for path in Store(tmp_path / "s").path("p").iterdir()} == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    }


def test_a_total_budget_is_kept(stored: Store, handmade: Handmade, tiny_base: Base) -> None:
    assert stored.total_budget is None
    stored.set_total_budget(1_500_000)
    stored.add(handmade(lora_alpha=5), dimension="d", pole="p", base=tiny_base)
    assert Store(stored.folder).total_budget == 1_500_000
    with pytest.raises(AdapterError):
        stored.set_total_budget(-1)
    assert Store(stored.folder).total_budget == 1_500_000


def test_a_folder_without_a_manifest_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match=r"holds no manifest\.json") as caught:
        Store(tmp_path)
    assert caught.value.reason == "no-manifest"


def _edited(edit: Callable[[dict[str, Any]], Any]) -> Callable[[bytes], bytes]:
    def change(raw: bytes) -> bytes:
        value = json.loads(raw)
        edit(value)
        return json.dumps(value).encode()

    return change


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: raw[:-20],
        lambda raw: b"[]",
        lambda raw: b"[" * 100_000,
        lambda raw: raw.replace(b'"pole"', b'"name"', 1),
        lambda raw: raw.replace(b'"rank": 2', b'"rank": NaN'),
        _edited(lambda m: m.update(schema_version=2)),
        _edited(lambda m: m.update(more=1)),
        _edited(lambda m: m["adapters"]["expert"].update(name="else")),
        _edited(lambda m: m["adapters"]["expert"].update(rank=True)),
        _edited(lambda m: m["adapters"]["expert"].update(rank="2")),
        _edited(lambda m: m["adapters"]["expert"].update(tensors_sha256="0" * 63)),
        _edited(lambda m: m["adapters"]["expert"].update(base_digest="0" * 64)),
        _edited(lambda m: m["adapters"].update({"../x": m["adapters"]["expert"] | {"name": "../x"}})),
        _edited(lambda m: m["gram"].update(total="")),
        _edited(lambda m: m["gram"].update(total="nan")),
        _edited(lambda m: m["gram"].update(total="1e999")),
        _edited(lambda m: m["gram"].update(total="1_0")),
        _edited(lambda m: m["gram"]["modules"].update(x="1 2")),
        _edited(lambda m: m.update(total_budget=1.5)),
    ],
)
def test_a_damaged_manifest_is_one_sentence(stored: Store, damage: Callable[[bytes], bytes]) -> None:
    path = stored.folder / "manifest.json"
    changed = damage(path.read_bytes())
    assert changed != path.read_bytes()
    path.write_bytes(changed)
    with pytest.raises(AdapterError, match="is not a manifest") as caught:
        Store(stored.folder)
    assert caught.value.reason == "bad-manifest"
    assert len(str(caught.value)) < 500


def test_a_manifest_is_written_as_it_was_read(stored: Store) -> None:
    before = (stored.folder / "manifest.json").read_bytes()
    write_manifest(stored.folder, read_manifest(stored.folder))
    assert (stored.folder / "manifest.json").read_bytes() == before


def test_a_manifest_behind_a_link_is_refused(stored: Store, tmp_path: Path) -> None:
    (stored.folder / "manifest.json").rename(tmp_path / "m")
    (stored.folder / "manifest.json").symlink_to(tmp_path / "m")
    with pytest.raises(AdapterError) as caught:
        Store(stored.folder)
    assert caught.value.reason == "symlink"


def test_a_store_that_cannot_be_written_says_so(handmade: Handmade, tiny_base: Base, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    addition = adding.Addition("x", "d", "p", (), "", {}, {})
    with pytest.raises(OutputError, match="cannot write"):
        adding.add_adapter(tmp_path / "file" / "s", handmade(), addition, tiny_base, print, force=False)


def test_the_shipped_store_is_beside_the_code() -> None:
    assert shipped_root().name == "adapters"
    assert os.path.isabs(shipped_root())  # noqa: PTH117

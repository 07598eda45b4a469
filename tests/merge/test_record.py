"""What travels inside a result, and that the same inputs give the same bytes."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
import yaml
from huggingface_hub import ModelCard

import soupmix
from soupmix.base import Base
from soupmix.errors import AdapterError, OutputError, PolicyError
from soupmix.files import sha256_file
from soupmix.merge import Soup, merge, merge_identity, read_recipe
from soupmix.merge.export import SigningKeys, produce, save
from soupmix.merge.fold import Work
from soupmix.merge.result import Export, Result, ingredients_of
from soupmix.merge.sink import Sink
from soupmix.merge.soup import mix
from soupmix.policy import Grant, Policy
from soupmix.policy.recorded import RecordedGrant, read_record
from soupmix.store.store import Store
from soupmix.weights import Weights

AGAIN = """
import sys, torch
from pathlib import Path
from soupmix.base import resolve
from soupmix.merge import merge
from soupmix.policy import Policy
from soupmix.store.store import Store

store_folder, base, out, cache, threads = sys.argv[1:]
torch.set_num_threads(int(threads))
store = Store(store_folder)
soup = merge(store, Policy.open(store).clamp({"expert": 0.25, "friendly": 0.5, "concise": 0.9}))
soup.save_adapter(Path(out) / "exact")
soup.save_adapter(Path(out) / "cut", rank=3, dtype="bf16")
soup.save_model(Path(out) / "model", base=resolve(Path(base), cache=Path(cache)), dtype="bf16", shard_size=30_000)
"""


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_same_bytes_in_another_process_with_another_hash_seed_and_more_threads(
    soup: Soup, three: Store, tiny_base: Base, tmp_path: Path
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    soup.save_adapter(here / "exact")
    soup.save_adapter(here / "cut", rank=3, dtype="bf16")
    soup.save_model(here / "model", base=tiny_base, dtype="bf16", shard_size=30_000)
    subprocess.run(
        [sys.executable, "-c", AGAIN, three.folder, tiny_base.folder, there, tmp_path / "cache", "2"],
        env=os.environ | {"PYTHONHASHSEED": "2", "OMP_NUM_THREADS": "2"},
        check=True,
    )
    assert contents(there) == contents(here)


def test_digests_name_every_input_and_every_other_file(soup: Soup, tiny_base: Base, tmp_path: Path) -> None:
    saved = soup.save_model(tmp_path / "out", base=tiny_base)
    recorded = json.loads((tmp_path / "out/soupmix_digests.json").read_text())
    present = {path.name: f"sha256:{sha256_file(path)}" for path in (tmp_path / "out").iterdir()}
    own = ("soupmix_digests.json", "soupmix_provenance.json")
    assert dict(saved.digests) == present
    assert recorded["outputs"] == {name: digest for name, digest in present.items() if name not in own}
    adapters = {f"adapter {name}": digest for name, digest in soup.grant.digests.items()}
    assert recorded["inputs"] == adapters | {
        "base": tiny_base.digest,
        "base files": tiny_base.files_digest(),
        "policy": soup.grant.policy_digest,
    }


def test_the_recipe_inside_can_be_read_again(soup: Soup, three: Store, tmp_path: Path) -> None:
    saved = soup.save_adapter(tmp_path / "a/b/out", rank=3)
    recipe = read_recipe(tmp_path / "a/b/out/soupmix_recipe.yaml")
    assert recipe.weights == soup.grant.requested == Weights("friendly=0.5,concise=0.9,expert=0.25")
    assert (recipe.method, recipe.kind, recipe.rank, recipe.dtype) == ("delta", "adapter", 3, "fp32")
    assert Path(recipe.store).resolve() == three.folder.resolve()
    assert recipe.record is not None
    assert recipe.record.identity == saved.identity
    assert recipe.record.soupmix == soupmix.__version__
    text = (tmp_path / "a/b/out/soupmix_recipe.yaml").read_text()
    assert yaml.safe_load(text)["store"] == "../../../store"
    assert str(tmp_path) not in text


def test_the_grant_inside_is_the_grant(soup: Soup, tmp_path: Path) -> None:
    soup.save_adapter(tmp_path / "out")
    written = json.loads((tmp_path / "out/soupmix_grant.json").read_text())
    assert read_record(written).to_dict() == soup.grant.to_dict()


@pytest.mark.parametrize(
    ("kind", "relation", "library"), [("adapter", "adapter", "peft"), ("model", "merge", "transformers")]
)
def test_the_card_says_what_was_asked_granted_and_lost(
    kind: str, relation: str, library: str, three: Store, tiny_base: Base, tmp_path: Path
) -> None:
    soup = merge(three, Policy.open(three).clamp({"friendly": 1.5, "concise": 0.25}))
    if kind == "adapter":
        soup.save_adapter(tmp_path / "out", rank=2)
    else:
        soup.save_model(tmp_path / "out", base=tiny_base, dtype="bf16")
    card = ModelCard.load(tmp_path / "out/README.md")
    assert card.data.base_model_relation == relation
    assert card.data.library_name == library
    assert card.data.license == "apache-2.0"
    assert {"lora", "soupmix"} <= set(card.data.tags)
    assert "| friendly | 1.5 | 1 | apache-2.0 |" in card.text
    assert "friendly: built-in: every weight at most 1" in card.text
    assert "expert" not in card.text
    assert "cutting the rank lost" in card.text if kind == "adapter" else "rounding to the dtype" in card.text
    assert str(tmp_path) not in card.text


def test_the_report_has_every_module(soup: Soup, tmp_path: Path) -> None:
    saved = soup.save_adapter(tmp_path / "out", rank=3)
    report = json.loads((tmp_path / "out/soupmix_report.json").read_text())
    assert set(report) == {"truncation", "total"}
    assert set(report["total"]["modules"]) == set(soup.modules)
    assert report["total"]["total"] == pytest.approx(saved.errors["total"].total, rel=1e-3)


def test_only_a_grant_is_merged(three: Store) -> None:
    with pytest.raises(TypeError, match=r"takes a Grant, not dict.*Policy\.clamp"):
        merge(three, {"friendly": 0.5})  # type: ignore[arg-type]


def _greedy(three: Store) -> RecordedGrant:
    """A record that fits itself, of weights that no policy grants."""
    record = Policy.open(three).clamp("friendly=1,concise=0.5").to_dict()
    weights = {"friendly": "1000", "concise": "-3", "expert": "0.25"}
    digests = {each.name: each.digest for each in three}
    changed = {"granted": weights, "requested": weights, "digests": digests, "clamped": False, "binding": []}
    return read_record(record | changed)


def test_a_record_of_a_grant_is_not_merged(three: Store) -> None:
    with pytest.raises(PolicyError, match="the record of one") as caught:
        merge(three, _greedy(three))  # type: ignore[arg-type]
    assert caught.value.reason == "not-granted"


def test_repeating_holds_every_weight_between_0_and_1(three: Store, grant: Callable[..., Grant]) -> None:
    """As the kernels do at request time: what is beyond counts as what is at the end."""
    again = mix(three, _greedy(three), "delta")
    assert {each.name: each.micro for each in again.ingredients} == {"expert": 250_000, "friendly": 1_000_000}
    sound = merge(three, grant(three, friendly=1, expert=0.25))
    for path, stack in again.modules.items():
        assert torch.equal(stack.c, sound.modules[path].c)
        assert torch.equal(stack.B, sound.modules[path].B)


@pytest.mark.parametrize("kind", ["adapter", "model"])
def test_what_was_repeated_reaches_no_disk(
    kind: Literal["adapter", "model"], three: Store, tiny_base: Base, tmp_path: Path
) -> None:
    again, base = mix(three, _greedy(three), "delta"), tiny_base if kind == "model" else None
    result = Result(_greedy(three), "delta", again.ingredients, Export(kind, str(three.folder), None), base)
    assert produce(result, again.modules, Sink(None), SigningKeys(), Work()).errors
    with pytest.raises(PolicyError, match="saving a soup"):
        produce(result, again.modules, Sink(tmp_path), SigningKeys(), Work())
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(PolicyError, match="saving a soup") as caught:
        save(result, again.modules, tmp_path / "out", SigningKeys(), force=True)
    assert caught.value.reason == "not-granted"
    assert sorted(tmp_path.rglob("*")) == before


def test_a_soup_is_what_merge_made_of_a_grant(soup: Soup, three: Store, tmp_path: Path) -> None:
    """Neither other tensors under a sound grant, nor another grant over the same tensors, nor a grant that was changed."""
    less = merge(three, Policy.open(three).clamp({"friendly": 0.1}))
    for change in ({"modules": less.modules}, {"grant": less.grant}, {}):
        with pytest.raises(TypeError, match=r"comes from soupmix\.merge"):
            replace(soup, **change)
    fields = {name: getattr(soup, name) for name in Soup.__slots__}
    with pytest.raises(TypeError, match=r"comes from soupmix\.merge"):
        Soup(**fields)
    object.__setattr__(soup.grant, "granted", less.grant.granted)
    with pytest.raises(PolicyError, match="made or changed by something else"):
        soup.save_adapter(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_identity_is_known_before_a_tensor_is_read(
    soup: Soup, three: Store, tiny_base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the manifest and the grant alone, it is the one that the result is saved under."""
    adapter, model = Export("adapter", "", None, dtype="F32"), Export("model", "", None, dtype="BF16")
    monkeypatch.setattr(Store, "load", None)
    monkeypatch.setattr(Base, "tensors", None)
    used = ingredients_of(three, soup.grant)
    early = [Result(soup.grant, "delta", used, *each).identity for each in ((adapter, None), (model, tiny_base))]
    monkeypatch.undo()
    saved = soup.save_adapter(tmp_path / "a"), soup.save_model(tmp_path / "m", base=tiny_base, dtype="bf16")
    assert early == [each.identity for each in saved]


def test_a_grant_for_another_adapter_of_the_same_name_is_refused(
    three: Store, make_store: Callable[..., Store], grant: Callable[..., Grant], tiny_adapter: Callable[..., Path]
) -> None:
    other = make_store({"friendly": tiny_adapter(seed=77)}, where="other")
    with pytest.raises(AdapterError) as caught:
        merge(other, grant(three, friendly=0.5))
    assert caught.value.reason == "digest-mismatch"


def test_adapters_of_two_bases_are_not_merged(three: Store, grant: Callable[..., Grant]) -> None:
    granted = grant(three, friendly=0.5, concise=0.25)
    three._loaded["friendly"] = replace(three.load("friendly"), base_digest="sha256:" + "0" * 64)
    with pytest.raises(AdapterError, match="trained on different base models") as caught:
        merge(three, granted)
    assert caught.value.reason == "base-mismatch"


def test_factor_warns_in_the_soup_the_log_the_recipe_and_the_card(
    make_store: Callable[..., Store],
    grant: Callable[..., Grant],
    tiny_adapter: Callable[..., Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = make_store({"a": tiny_adapter(seed=1), "b": tiny_adapter(seed=2)})
    soup = merge(store, grant(store, a=0.5, b=0.25), method="factor")
    soup.save_adapter(tmp_path / "out")
    assert len(soup.warnings) == 2
    for warning in soup.warnings:
        assert warning in caplog.messages
        recorded = read_recipe(tmp_path / "out/soupmix_recipe.yaml").record
        assert recorded is not None
        assert warning in recorded.warnings
        assert warning in (tmp_path / "out/README.md").read_text()
    assert merge(store, grant(store, a=0.5, b=0.25)).warnings == ()


def test_an_existing_folder_stays_unless_forced(soup: Soup, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").write_text("precious")
    with pytest.raises(OutputError) as caught:
        soup.save_adapter(tmp_path / "out")
    assert caught.value.reason == "exists"
    assert (tmp_path / "out/mine").read_text() == "precious"
    with pytest.raises(OutputError) as caught:
        soup.save_adapter(tmp_path / "out", force=True)
    assert caught.value.reason == "not-ours"
    assert (tmp_path / "out/mine").read_text() == "precious"
    (tmp_path / "out/mine").unlink()
    for _ in range(2):  # an empty folder, then a result
        soup.save_adapter(tmp_path / "out", force=True)
        assert (tmp_path / "out/adapter_config.json").exists()


def test_identity_changes_with_everything_that_matters_and_nothing_else() -> None:
    base = {
        "base_digest": "sha256:b",
        "weights": (("sha256:1", 500_000), ("sha256:2", 1)),
        "method": "delta",
        "dtype": "F32",
        "policy_digest": "sha256:p",
        "tenant_salt": "s",
    }
    first = merge_identity(**base)
    assert first == merge_identity(**base | {"weights": [("sha256:2", 1), ("sha256:1", 500_000), ("sha256:3", 0)]})
    changes = {
        "base_digest": "sha256:c",
        "weights": (("sha256:1", 500_001), ("sha256:2", 1)),
        "method": "factor",
        "dtype": "BF16",
        "policy_digest": "sha256:q",
        "tenant_salt": "",
    }
    others = {merge_identity(**base | {key: value}) for key, value in changes.items()}
    swapped = merge_identity(**base | {"weights": (("sha256:2", 500_000), ("sha256:1", 1))})
    assert len({first, swapped, *others}) == 2 + len(changes)


def test_an_identity_of_an_ordinary_soup_has_the_bytes_it_always_had() -> None:
    pairs = [("sha256:" + "1" * 64, 900_000), ("sha256:" + "2" * 64, 300_000)]
    told = {"base_digest": "sha256:" + "b" * 64, "method": "delta", "dtype": "BF16", "policy_digest": "sha256:" + "p"}
    golden = "sha256:3979ac5384041fba37141b51a878b50b8984dc9d4ab1a758eab35b6fa1759547"
    assert merge_identity(weights=pairs, **told, tenant_salt="acme") == golden
    assert merge_identity(weights=reversed(pairs), **told, tenant_salt="acme") == golden


def test_what_comes_twice_in_an_identity_counts_as_its_sum_and_is_never_lost() -> None:
    def identity(*pairs: tuple[str, int]) -> str:
        return merge_identity(base_digest="b", weights=pairs, method="delta", dtype="F32", policy_digest="p")

    assert (
        identity(("d", 900_000), ("d", 200_000)) == identity(("d", 1_100_000)) == identity(("d", 1), ("d", 1_099_999))
    )
    assert len({identity(("d", one), ("d", 200_000)) for one in (0, 100_000, 900_000)}) == 3
    with pytest.raises(TypeError, match="pairs"):
        merge_identity(base_digest="b", weights={"d": 1}, method="delta", dtype="F32", policy_digest="p")  # type: ignore[arg-type]


def test_cut_adapter_and_exact_adapter_have_different_identities(soup: Soup, tmp_path: Path) -> None:
    saved = [soup.save_adapter(tmp_path / str(rank), rank=rank).identity for rank in (None, 3, 4)]
    assert len(set(saved)) == 3

"""Approving: what the screen sees, what it does not, and that colluding adapters pass one by one but not together."""

import json
from collections.abc import Callable
from datetime import date
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import save_file

from soupmix import merge
from soupmix.approve import Approval, draft, screen
from soupmix.approve.draft import file_digest
from soupmix.approve.screening import check_screened
from soupmix.base import Base
from soupmix.cli import cli
from soupmix.errors import AdapterError, PolicyError, RecipeError, SoupmixError, WeightError
from soupmix.files import canonical_json
from soupmix.policy import Policy, parse_document
from soupmix.policy.inventory import inventory
from soupmix.projection import Choice
from soupmix.store import Store
from soupmix.trust import RoleKeys, SignedSource, create, generate_key, read_private, read_set
from soupmix.trust.layout import INVENTORY

PROBE = "model.layers.0.self_attn.q_proj"
SMALL = 1e-5  # of everything below, so that no delta is large beside the base
Shop = Callable[..., Store]


@pytest.fixture
def shop(tmp_path: Path, tiny_base: Base) -> Shop:
    """A store of handmade adapters: name -> B [32, 2]; all of them share A, on one layer."""

    def make(**factors: torch.Tensor) -> Store:
        store = Store(tmp_path / "store", create=True)
        for number, (name, B) in enumerate(factors.items()):
            folder = tmp_path / f"made-{name}"
            folder.mkdir()
            config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": [PROBE]}
            (folder / "adapter_config.json").write_text(json.dumps(config))
            prefix = f"base_model.model.{PROBE}"
            save_file(
                {f"{prefix}.lora_A.weight": shared(), f"{prefix}.lora_B.weight": SMALL * B.contiguous()},
                folder / "adapter_model.safetensors",
            )
            store.add(folder, dimension=f"d{number}", pole=name, base=tiny_base)
        return store

    return make


def shared() -> torch.Tensor:
    return torch.randn(2, 32, generator=torch.Generator().manual_seed(3))


def noise(seed: int) -> torch.Tensor:
    return torch.randn(32, 2, generator=torch.Generator().manual_seed(seed))


def colluders() -> dict[str, torch.Tensor]:
    """A large part that cancels in sum, and a small common one that stays: .6 of what it takes each, 1.2 together."""
    cover, common = noise(1), torch.zeros(32, 2)
    cover[0] = 0
    A = shared()
    common[0] = 0.6 * A[:, 0] / (A[:, 0] ** 2).sum()
    return {"left": cover + common, "right": common - cover}


def refuses(store: Store, granted: Any) -> bool:
    """An analytic head: the model refuses as long as the merged delta moves one entry of one matrix by less than 1."""
    soup = merge(store, granted)
    moved = torch.zeros(())
    for stack in [soup.modules[PROBE]] if soup.modules else []:
        moved = (stack.B.double() * stack.weights.double() * stack.scale.double() @ stack.A.double())[0, 0]
    return bool(moved < SMALL)


def report(tmp_path: Path) -> Path:
    path = tmp_path / "report.json"
    path.write_text('{"refusals": "as before"}')
    return path


def approval(tmp_path: Path, *combinations: tuple[str, ...], **more: Any) -> Approval:
    return Approval(combinations, file_digest(report(tmp_path)), date(2099, 12, 31), "Acme", "1", **more)


def test_colluding_adapters_pass_alone_and_not_together(shop: Shop, tmp_path: Path) -> None:
    store = shop(**colluders())
    listed = [{"name": entry.name, "digest": entry.digest} for entry in store]
    content = {
        "tier": "organisation",
        "issuer": "x",
        "version": "1",
        "rules": [{"rule": "approve", "adapters": listed}],
    }
    one_by_one = Policy.assemble([("x.yaml", parse_document(json.dumps(content), "x.yaml"))], store)
    assert refuses(store, one_by_one.clamp("left=1"))
    assert refuses(store, one_by_one.clamp("right=1"))
    assert not refuses(store, one_by_one.clamp("left=1,right=1")), "approving adapters one by one lets the pair through"
    _, document = draft(store, approval(tmp_path, ("left",), ("right",)))
    together = Policy.assemble([("acme.yaml", document)], store)
    assert refuses(store, together.clamp("left=1"))
    assert refuses(store, together.clamp("left=1,right=1"))


def test_the_screen_sees_the_simplest_pair(shop: Shop) -> None:
    store = shop(**colluders(), other=noise(7))
    kinds = {(remark.kind, remark.adapters) for remark in screen(store, store.names)}
    assert ("cancelling", ("left", "right")) in kinds
    assert ("aligned", ("left", "right")) in kinds
    assert not any("other" in adapters for _, adapters in kinds)


def test_an_honest_family_passes_and_an_amplified_member_does_not(shop: Shop) -> None:
    store = shop(a=noise(1), b=noise(2), c=noise(3), loud=100 * noise(4))
    assert screen(store, ("a", "b", "c")) == ()
    (remark,) = screen(store, store.names)
    assert (remark.kind, remark.adapters) == ("outlier", ("loud",))
    assert "times as large as the others" in str(remark)


def test_a_delta_as_large_as_the_base_is_remarked(shop: Shop) -> None:
    (remark,) = screen(shop(huge=noise(1) / SMALL / 10), ("huge",))
    assert remark.kind == "large"
    assert "of the base's norm" in remark.text


def test_a_zero_adapter_is_remarked(shop: Shop) -> None:
    store = shop(a=noise(1), nothing=torch.zeros(32, 2))
    assert [remark.kind for remark in screen(store, store.names)] == ["no-effect"]


def test_a_planted_adapter_of_almost_nothing_is_remarked(shop: Shop) -> None:
    """What is left of a colluding pair whose other half holds all: no training leaves so little."""
    store = shop(a=noise(1), b=noise(2), c=noise(3), planted=0.02 * noise(4), small=0.3 * noise(5))
    (remark,) = screen(store, store.names)
    assert (remark.kind, remark.adapters) == ("negligible", ("planted",))
    assert "0.022 of the others' and" in remark.text
    with pytest.raises(AdapterError, match="--accept negligible") as caught:
        check_screened([remark], accept=())
    assert caught.value.reason == "screened"
    check_screened([remark], accept=("negligible",))


def test_alone_it_is_told_by_the_norm_of_the_base(shop: Shop) -> None:
    (remark,) = screen(shop(planted=0.01 * noise(1)), ("planted",))
    assert remark.kind == "negligible"
    assert "of the base's: what is it for?" in remark.text
    assert screen(shop(), ()) == ()


def test_the_document_approves_what_was_evaluated(shop: Shop, tmp_path: Path) -> None:
    store = shop(a=noise(1), b=noise(2), c=noise(3))
    text, document = draft(store, approval(tmp_path, ("a", "b"), ("c",), total="1.2"))
    policy = Policy.assemble([("acme.yaml", document)], store)
    (choice,) = [
        each for each in policy._regions.constraints(policy._regions.kinds.kind({}, {})) if isinstance(each, Choice)
    ]
    assert [(len(support), most) for support, most in choice.supports] == [(2, 1_200_000), (1, 1_200_000)]
    assert policy.clamp("a=0.5,b=0.6").granted.decimals() == {"a": "0.5", "b": "0.6"}
    assert set(policy.clamp("a=0.5,c=0.6").granted) == {"c"}
    assert policy.last_day == date(2099, 12, 31)
    assert text.startswith("# Written by `soupmix approve`")
    with pytest.raises(RecipeError, match="say what was evaluated together"):
        draft(store, approval(tmp_path))
    with pytest.raises(WeightError, match="no adapter 'd'"):
        draft(store, approval(tmp_path, ("d",)))
    with pytest.raises(PolicyError, match="plain decimal"):
        draft(store, approval(tmp_path, ("a",), total="much"))


def run(store: Store, out: Path, tmp_path: Path, *more: str) -> Result:
    words = ["approve", str(out), "--report", str(report(tmp_path)), "--until", "2099-12-31", "--issuer", "Acme"]
    return CliRunner().invoke(cli, [*words, "--store", str(store.folder), *more])


def test_the_command_writes_only_what_passes(shop: Shop, tmp_path: Path) -> None:
    store, out = shop(**colluders(), other=noise(7)), tmp_path / "acme.yaml"
    refused = run(store, out, tmp_path, "--combination", "left+right")
    assert isinstance(refused.exception, AdapterError)
    assert refused.exception.reason == "screened"
    assert "--accept aligned" in str(refused.exception)
    assert not out.exists()
    accepted = run(store, out, tmp_path, "--combination", "left+right", "--accept", "aligned", "--accept", "cancelling")
    assert accepted.exit_code == 0, accepted.output
    assert Policy.load(out, adapters=store).clamp("left=0.5,right=0.5").granted.decimals() == {
        "left": "0.5",
        "right": "0.5",
    }
    again = run(store, out, tmp_path, "--combination", "other")
    assert isinstance(again.exception, SoupmixError)
    assert "pass --force" in str(again.exception)
    wrong = run(store, tmp_path / "y.yaml", tmp_path, "--combination", "other", "--until", "soon")
    assert "'soon' is not a date" in str(wrong.exception)


def test_a_scanner_is_asked(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    store, seen = shop(a=noise(1)), []

    def scan(folder: Path) -> list[str]:
        seen.append(sorted(path.name for path in folder.iterdir()))
        return ["looks odd"]

    class Fake(EntryPoint):
        def load(self) -> Any:
            return scan

    points = EntryPoints([Fake("sentry", "x:y", "soupmix.scanners")])
    monkeypatch.setattr("soupmix.approve.screening.entry_points", lambda group: points.select(group=group))
    (remark,) = screen(store, ("a",), scanners=("sentry",))
    assert str(remark) == "scanner sentry (a): looks odd"
    assert seen == [["adapter_config.json", "adapter_model.safetensors"]]
    with pytest.raises(RecipeError, match="no scanner 'other'"):
        screen(store, ("a",), scanners=("other",))


def test_the_command_signs_what_it_writes(shop: Shop, tmp_path: Path) -> None:
    store, out, folder = shop(a=noise(1), b=noise(2)), tmp_path / "acme.yaml", tmp_path / "set"
    keys = {name: tmp_path / f"{name}.pem" for name in ("root", "targets", "online")}
    for key in keys.values():
        generate_key(key)
    signers = {name: read_private(key) for name, key in keys.items()}
    create(
        folder,
        root_keys=[signers["root"].public_key],
        threshold=1,
        signers=[signers["root"]],
        keys=RoleKeys(signers["targets"], signers["online"]),
    )
    group = ("--combination", "a+b", "--publish", str(folder), "--targets-key", str(keys["targets"]))
    wrong = run(store, out, tmp_path, *group)
    assert wrong.exit_code == 2
    assert "--online-key" in wrong.output
    assert not out.exists()
    signed = run(store, out, tmp_path, *group, "--online-key", str(keys["online"]))
    assert signed.exit_code == 0, signed.output
    found = read_set(SignedSource.pinned(folder, folder / "metadata" / "1.root.json", state=tmp_path / "state"))
    assert dict(found.files) == {"acme.yaml": out.read_bytes(), INVENTORY: canonical_json(inventory(store))}
    assert run(store, tmp_path / "y.yaml", tmp_path, "--combination", "a", "--online-key", "x").exit_code == 2

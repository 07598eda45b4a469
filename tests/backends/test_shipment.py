"""What a worker of a cluster is sent: bytes, from which it makes the asker's policy and adapters, or refuses."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from soupmix.backends import Limits
from soupmix.backends.ray import Shipment
from soupmix.base import Base
from soupmix.errors import AdapterError, PolicyRefusal
from soupmix.policy import Policy
from soupmix.store import Store
from soupmix.trust import SignedSource, load_signed
from soupmix.vllm_plugin.checking import Checker
from soupmix.vllm_plugin.row import SoupRow
from soupmix.vllm_plugin.setup import read_setup
from tests.support.batch_shop import policy_text
from tests.support.signed_sets import Shop

KEY, PROMPT, LIMITS = bytes(range(32)), (5, 6, 7), Limits(rows=4, length=64)
LAW = b"tier: law\nissuer: A\nversion: 1\nrules: [{rule: bounds, id: b, adapter: plain, at_most: 0.25}]\n"
Packer = Callable[..., Shipment]


@pytest.fixture
def pack(tiny_base: Base, pico_store: Store) -> Packer:
    def make(*documents: Path, store: Store = pico_store, **trust: SignedSource) -> Shipment:
        return Shipment.pack(tiny_base, store, documents, KEY, dtype=None, limits=LIMITS, trust=trust)

    return make


@pytest.fixture
def org(pico_store: Store, tmp_path: Path) -> Path:
    (tmp_path / "org.yaml").write_text(policy_text(pico_store))
    return tmp_path / "org.yaml"


def published(folder: Path, now: datetime, **files: bytes) -> Shop:
    """A repository of today."""
    shop = Shop(folder, now)
    shop.create()
    shop.publish({f"{name}.yaml": text for name, text in files.items()}, now)
    return shop


def worker(shipment: Shipment, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Checker:
    """As on another machine: nothing is there but what was sent."""
    monkeypatch.setenv("SOUPMIX_STATE", str(folder / "state"))
    return Checker(read_setup(shipment.unpack(folder)))


def sealed(policy: Policy, checker: Checker, **weights: float) -> str:
    return SoupRow.of(policy.clamp(weights), checker.adapters, "s").seal(KEY, PROMPT)


def test_documents_and_adapters_are_the_same_on_a_worker(
    pack: Packer, org: Path, pico_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = worker(pack(org), tmp_path / "there", monkeypatch)
    here = Policy.load(org, adapters=pico_store)
    assert found.policy.digest == here.digest
    assert found.check(sealed(here, found, calm=0.9), PROMPT, "s").weights == (500_000, 0, 0)
    for entry in pico_store:
        assert found.setup.store.load(entry.name, entry.digest).digest == entry.digest


def test_signed_sets_are_checked_and_held_to_on_a_worker(
    pack: Packer, org: Path, pico_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.now(UTC)
    law = published(tmp_path / "law", now, law=LAW)
    acme = published(tmp_path / "acme", now, acme=org.read_bytes())
    sources = {"law": replace(law.source(), floor=1), "organisation": acme.source()}
    here = load_signed(**sources, adapters=pico_store).policy
    shipment = pack(**sources)
    for each in (tmp_path / "law", tmp_path / "acme"):
        shutil.rmtree(each)
    found = worker(shipment, tmp_path / "there", monkeypatch)
    assert found.policy.digest == here.digest
    assert found.check(sealed(here, found, plain=0.9), PROMPT, "s").weights == (0, 0, 250_000), "as the law says"
    with pytest.raises(PolicyRefusal) as caught:
        found.check(sealed(Policy.open(pico_store), found, plain=0.9), PROMPT, "s")
    assert caught.value.reason == "other-policy"


@pytest.mark.parametrize("what", ["changed", "expired", "other root", "below the floor"])
def test_a_signed_set_that_is_not_as_signed_serves_nobody_on_a_worker(
    what: str, pack: Packer, org: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    then = datetime.now(UTC) - timedelta(days=4000 if what == "expired" else 0)
    shop = published(tmp_path / "acme", then, acme=org.read_bytes())
    source = replace(shop.source(), floor=7 if what == "below the floor" else 0)
    if what == "other root":
        source = replace(source, root=published(tmp_path / "other", then, acme=org.read_bytes()).root)
    shipment = pack(organisation=source)
    if what == "changed":
        files = {name: data.replace(b"at_most: 0.5", b"at_most: 1.0") for name, data in shipment.files.items()}
        assert files != shipment.files
        shipment = replace(shipment, files=files)
    with pytest.raises(PolicyRefusal) as caught:
        worker(shipment, tmp_path / "there", monkeypatch)
    assert caught.value.reason == "no-policy"


def test_an_adapter_that_was_changed_on_its_way_is_not_loaded(
    pack: Packer, org: Path, pico_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipment = pack(org)
    (name,) = [each for each in shipment.files if f"{pico_store.path('calm').name}{os.sep}adapter_model" in each]
    data = bytearray(shipment.files[name])
    data[-1] ^= 1
    found = worker(replace(shipment, files={**shipment.files, name: bytes(data)}), tmp_path / "there", monkeypatch)
    with pytest.raises(AdapterError):
        found.setup.store.load("calm")

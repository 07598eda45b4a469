"""Every attack on a signed set, and its refusal. The attacker serves the folder, and sometimes holds a key."""

import copy
import json
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from securesystemslib.signer import CryptoSigner, Signature
from tuf.api.metadata import Delegations, Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp

from soupmix.errors import PolicyError
from soupmix.trust import RoleKeys, SignedSource, publish, read_set, renew, rotate
from tests.support.signed_sets import Shop

NOW = datetime(2027, 1, 1, 12, tzinfo=UTC)


def refused(shop: Shop, reason: str, **options: object) -> str:
    with pytest.raises(PolicyError) as caught:
        shop.read(**options)
    assert caught.value.reason == reason, str(caught.value)
    return str(caught.value)


def load(path: Path) -> Metadata:
    return Metadata.from_file(str(path))


def forge(folder: Path, targets: Metadata, online: CryptoSigner) -> None:
    """A whole new set around signed targets, as somebody with the online key can make it."""
    data = targets.to_bytes()
    version = targets.signed.version
    (folder / f"metadata/{version}.targets.json").write_bytes(data)
    pointer = MetaFile(version, len(data), {"sha256": sha256(data).hexdigest()})
    snapshot = Metadata(Snapshot(version=50, expires=NOW + timedelta(days=5), meta={"targets.json": pointer}))
    snapshot.sign(online)
    data = snapshot.to_bytes()
    (folder / "metadata/50.snapshot.json").write_bytes(data)
    pointer = MetaFile(50, len(data), {"sha256": sha256(data).hexdigest()})
    timestamp = Metadata(Timestamp(version=50, expires=NOW + timedelta(days=5), snapshot_meta=pointer))
    timestamp.sign(online)
    timestamp.to_file(str(folder / "metadata/timestamp.json"))


def evil_targets(signer: CryptoSigner, name: str = "law.yaml", data: bytes = b"x") -> Metadata:
    content = {name: TargetFile.from_data(name, data, ["sha256"])}
    made = Metadata(Targets(version=40, expires=NOW + timedelta(days=5), targets=content))
    made.sign(signer)
    return made


def test_the_happy_path(shop: Shop) -> None:
    found = shop.read()
    assert dict(found.files) == shop.files
    assert found.version == 2
    assert found.versions == {"root": 1, "snapshot": 2, "targets": 2, "timestamp": 2}
    assert found.expires == NOW + timedelta(days=7)
    assert found.root == sha256(shop.root).hexdigest()
    with pytest.raises(TypeError):
        found.files["law.yaml"] = b""  # type: ignore[index]


def test_rollback(shop: Shop) -> None:
    old, state = shop.copy(), shop.fresh()
    shop.publish({"law.yaml": b"newer"})
    assert shop.read(state=state).version == 3
    assert "older than what was seen" in refused(shop, "rollback", folder=old, state=state)
    assert shop.read(state=state).version == 3


def test_rollback_of_what_the_set_holds_with_the_online_key(shop: Shop) -> None:
    """A newer timestamp and snapshot that point to older targets."""
    state, old = shop.fresh(), shop.copy()
    shop.publish({"law.yaml": b"newer"})
    shop.read(state=state)
    forge(old, load(old / "metadata/2.targets.json"), shop.keys.online)
    refused(shop, "rollback", folder=old, state=state)


def test_freeze(shop: Shop) -> None:
    state = shop.fresh()
    shop.read(state=state)
    later = NOW + timedelta(days=7, seconds=1)
    refused(shop, "expired", state=state, now=later)
    renew(shop.folder, online=shop.keys.online, now=later)
    assert shop.read(state=state, now=later).version == 2


def test_an_expired_root(shop: Shop) -> None:
    later = NOW + timedelta(days=366)
    with pytest.raises(PolicyError) as caught:
        shop.publish(shop.files, now=later)
    assert caught.value.reason == "expired"
    rotate(shop.folder, signers=shop.roots[1:], now=later)
    shop.publish(shop.files, now=later)
    assert shop.read(now=later).versions["root"] == 2


@pytest.mark.parametrize("role", ["snapshot", "targets"])
def test_mix_and_match(shop: Shop, role: str) -> None:
    shop.publish({"law.yaml": shop.files["law.yaml"].replace(b"0.5", b"0.1")})
    folder = shop.copy()
    old, new = (folder / f"metadata/{version}.{role}.json" for version in (2, 3))
    new.write_bytes(old.read_bytes())
    refused(shop, "mix-and-match", folder=folder)


@pytest.mark.parametrize("name", ["timestamp", "2.snapshot", "2.targets"])
def test_wrong_key(shop: Shop, name: str) -> None:
    folder = shop.copy()
    path = folder / f"metadata/{name}.json"
    document = load(path)
    document.sign(CryptoSigner.generate_ed25519())
    document.to_file(str(path))
    refused(shop, "wrong-key" if name == "timestamp" else "mix-and-match", folder=folder)


def test_targets_by_a_stranger_who_stole_the_online_key(shop: Shop) -> None:
    folder = shop.copy()
    forge(folder, evil_targets(CryptoSigner.generate_ed25519()), shop.keys.online)
    refused(shop, "wrong-key", folder=folder)


def test_a_signature_that_names_a_known_key_is_still_a_strangers(shop: Shop) -> None:
    folder = shop.copy()
    document = load(folder / "metadata/timestamp.json")
    forged = document.sign(CryptoSigner.generate_ed25519())
    keyid = shop.keys.online.public_key.keyid
    document.signatures = {keyid: Signature(keyid, forged.signature)}
    document.to_file(str(folder / "metadata/timestamp.json"))
    refused(shop, "wrong-key", folder=folder)


def test_unsigned(shop: Shop) -> None:
    folder = shop.copy()
    path = folder / "metadata/timestamp.json"
    content = json.loads(path.read_bytes())
    path.write_text(json.dumps(content | {"signatures": []}))
    refused(shop, "unsigned", folder=folder)


@pytest.mark.parametrize("stolen", ["online", "targets"])
def test_revoked_key(shop: Shop, new_keys: Callable[[], RoleKeys], stolen: str) -> None:
    state, before = shop.fresh(), shop.keys
    shop.read(state=state)
    after = new_keys()
    shop.keys = RoleKeys(
        before.targets if stolen == "online" else after.targets, before.online if stolen == "targets" else after.online
    )
    rotate(shop.folder, signers=shop.roots[:2], keys=shop.keys, now=NOW)
    assert shop.read(state=state).version == 3
    folder = shop.copy()
    forge(folder, evil_targets(before.targets), before.online)
    refused(shop, "revoked-key", folder=folder, state=state)
    refused(shop, "revoked-key", folder=folder)


def test_a_root_by_one_of_three(shop: Shop) -> None:
    folder = shop.copy()
    root = load(folder / "metadata/1.root.json")
    root.signed.version = 2
    root.signed.add_key(CryptoSigner.generate_ed25519().public_key, "targets")
    root.sign(shop.roots[0])
    root.to_file(str(folder / "metadata/2.root.json"))
    refused(shop, "threshold", folder=folder)


def strangers_root(shop: Shop, folder: Path) -> None:
    """Version 2, rightly signed by itself; it names the genuine daily keys too."""
    strangers = [CryptoSigner.generate_ed25519() for _ in range(2)]
    root = Root(version=2, expires=NOW + timedelta(days=5), consistent_snapshot=True)
    for stranger in strangers:
        for role in ("root", "targets", "snapshot", "timestamp"):
            root.add_key(stranger.public_key, role)
    for role, signer in (
        ("targets", shop.keys.targets),
        ("snapshot", shop.keys.online),
        ("timestamp", shop.keys.online),
    ):
        root.add_key(signer.public_key, role)
    document = Metadata(root)
    for stranger in strangers:
        document.sign(stranger, append=True)
    document.to_file(str(folder / "metadata/2.root.json"))


def test_a_root_by_strangers(shop: Shop) -> None:
    folder = shop.copy()
    strangers_root(shop, folder)
    refused(shop, "wrong-key", folder=folder)


def test_a_strangers_root_in_the_publishers_folder_is_not_built_upon(shop: Shop) -> None:
    strangers_root(shop, shop.folder)
    before = sorted(path.name for path in shop.folder.rglob("*"))
    for act in (
        lambda: shop.publish(shop.files),
        lambda: renew(shop.folder, online=shop.keys.online, now=NOW),
        lambda: rotate(shop.folder, signers=shop.roots[:2], now=NOW),
    ):
        with pytest.raises(PolicyError) as caught:
            act()
        assert caught.value.reason == "threshold"
    assert before == sorted(path.name for path in shop.folder.rglob("*"))


def test_a_skipped_root(shop: Shop) -> None:
    """Root version 3, rightly signed, served as version 2."""
    rotate(shop.folder, signers=shop.roots[:2], now=NOW)
    rotate(shop.folder, signers=shop.roots[:2], now=NOW)
    folder = shop.copy()
    (folder / "metadata/3.root.json").rename(folder / "metadata/2.root.json")
    refused(shop, "mix-and-match", folder=folder)


def test_tampered_target(shop: Shop) -> None:
    folder = shop.copy()
    (path,) = (folder / "targets").iterdir()
    path.write_bytes(path.read_bytes().replace(b"0.5", b"1.0"))
    refused(shop, "tampered", folder=folder)


@pytest.mark.parametrize("size", [1, 10_000_000, 1 << 40])
@pytest.mark.parametrize(
    "pattern", ["targets/*", "metadata/timestamp.json", "metadata/2.snapshot.json", "metadata/2.root.json"]
)
def test_endless_data(shop: Shop, pattern: str, size: int) -> None:
    """A file that is longer than signed, or than any may be; the last size is a hole that no disk could hold."""
    rotate(shop.folder, signers=shop.roots[:2], now=NOW)
    folder = shop.copy()
    (path,) = folder.glob(pattern)
    os.truncate(path, path.stat().st_size + size)
    with pytest.raises(PolicyError) as caught:
        shop.read(folder=folder)
    assert caught.value.reason == (
        "damaged" if size == 1 and path.name in ("timestamp.json", "2.root.json") else "too-large"
    )


@pytest.mark.parametrize(
    "name", ["../../evil", "../../evil.yaml", "/etc/evil.yaml", "a/b.yaml", "Law.yaml", "law.txt", ".yaml"]
)
def test_names_that_leave_the_folder(shop: Shop, name: str, tmp_path: Path) -> None:
    folder = shop.copy()
    forge(folder, evil_targets(shop.keys.targets, name), shop.keys.online)
    (folder / "evil").write_bytes(b"x")
    before = {path for path in tmp_path.rglob("*") if "evil" in path.name}
    refused(shop, "bad-name", folder=folder)
    assert before == {path for path in tmp_path.rglob("*") if "evil" in path.name}
    with pytest.raises(PolicyError) as caught:
        shop.publish({name: b"x"})
    assert caught.value.reason == "bad-name"


def test_delegated_targets_are_not_followed(shop: Shop) -> None:
    folder = shop.copy()
    targets = evil_targets(shop.keys.targets)
    targets.signed.delegations = Delegations({}, {})
    targets.sign(shop.keys.targets)
    forge(folder, targets, shop.keys.online)
    refused(shop, "delegation", folder=folder)


def test_too_many_files(shop: Shop) -> None:
    folder = shop.copy()
    targets = evil_targets(shop.keys.targets)
    one = targets.signed.targets["law.yaml"]
    targets.signed.targets = {f"{number}.yaml": copy.copy(one) for number in range(65)}
    targets.sign(shop.keys.targets)
    forge(folder, targets, shop.keys.online)
    refused(shop, "too-large", folder=folder)


@pytest.mark.parametrize("text", ["", "{}", "[" * 100_000, "\0", '{"signed": {}, "signatures": []}', "\ud800"])
def test_damaged(shop: Shop, text: str) -> None:
    folder = shop.copy()
    (folder / "metadata/timestamp.json").write_bytes(text.encode("utf-8", "surrogatepass")[:16_000])
    refused(shop, "damaged", folder=folder)


def test_another_role_in_its_place(shop: Shop) -> None:
    folder = shop.copy()
    (folder / "metadata/timestamp.json").write_bytes((folder / "metadata/2.snapshot.json").read_bytes())
    refused(shop, "damaged", folder=folder)


@pytest.mark.parametrize("name", ["metadata/timestamp.json", "metadata/2.targets.json", "targets/*"])
def test_missing(shop: Shop, name: str) -> None:
    folder = shop.copy()
    (path,) = folder.glob(name)
    path.unlink()
    refused(shop, "missing", folder=folder)


@pytest.mark.parametrize("make", [lambda path: path.symlink_to("/dev/zero"), os.mkfifo, Path.mkdir])
def test_links_pipes_and_folders_are_not_read(shop: Shop, make: Callable[[Path], None]) -> None:
    folder = shop.copy()
    path = folder / "metadata/timestamp.json"
    path.unlink()
    make(path)
    refused(shop, "unreadable", folder=folder)


def test_a_wiped_state_forgets_and_the_floor_does_not(shop: Shop) -> None:
    old = shop.copy()
    shop.publish({"law.yaml": b"newer"})
    assert shop.read(folder=old).version == 2  # this is why there is a floor
    refused(shop, "below-floor", folder=old, floor=3)
    assert shop.read(floor=3).version == 3


def test_a_pinned_root_that_is_none(shop: Shop, make_shop: "Callable[[str], Shop]") -> None:
    for root in (
        b"",
        b"{}",
        (shop.folder / "metadata/timestamp.json").read_bytes(),
        shop.root.replace(b"2028", b"2029"),
    ):
        with pytest.raises(PolicyError) as caught:
            read_set(SignedSource(shop.folder, root, state=shop.fresh()), now=NOW)
        assert caught.value.reason == "bad-root"
    other = make_shop("other")
    with pytest.raises(PolicyError) as caught:
        read_set(SignedSource(shop.folder, other.root, state=shop.fresh()), now=NOW)
    assert caught.value.reason == "wrong-key"


def test_a_stolen_targets_key_is_not_enough(shop: Shop) -> None:
    """Without the online key nobody is shown what it signed."""
    folder = shop.copy()
    forge(folder, evil_targets(shop.keys.targets), CryptoSigner.generate_ed25519())
    refused(shop, "wrong-key", folder=folder)


def test_what_lies_in_the_folder_is_never_signed_by_renewing(shop: Shop, new_keys: Callable[[], RoleKeys]) -> None:
    """An attacker who can write to the publisher's folder gets no signature for what is put there."""
    (shop.folder / "metadata/2.targets.json").write_bytes(evil_targets(CryptoSigner.generate_ed25519()).to_bytes())
    for act in (
        lambda: renew(shop.folder, online=shop.keys.online, now=NOW),
        lambda: rotate(shop.folder, signers=shop.roots[:2], keys=new_keys(), now=NOW),
    ):
        with pytest.raises(PolicyError) as caught:
            act()
        assert caught.value.reason == "wrong-key"
    publish(shop.folder, shop.files, keys=shop.keys, now=NOW)
    assert dict(shop.read().files) == shop.files

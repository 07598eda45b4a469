"""Publishing, rotating, reading: what must hold without an attacker."""

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from securesystemslib.signer import CryptoSigner

from soupmix.errors import OutputError, PolicyError
from soupmix.trust import Lifetimes, RoleKeys, SignedSource, create, publish, read_set, renew, rotate, step
from tests.support.signed_sets import Shop

NOW = datetime(2027, 1, 1, 12, tzinfo=UTC)


def test_a_set_is_what_was_published_last(shop: Shop) -> None:
    state = shop.fresh()
    shop.publish({"a.yaml": b"1", "b.json": b"2"})
    assert dict(shop.read(state=state).files) == {"a.yaml": b"1", "b.json": b"2"}
    assert shop.publish({"b.json": b"3"}) == 4
    assert dict(shop.read(state=state).files) == {"b.json": b"3"}
    assert shop.read(state=state) == shop.read()


def test_rotation_is_followed_by_an_old_reader_and_by_one_pinned_to_the_first_root(
    shop: Shop, new_keys: Callable[[], RoleKeys]
) -> None:
    state = shop.fresh()
    shop.read(state=state)
    new = CryptoSigner.generate_ed25519()
    shop.keys = new_keys()
    version = rotate(
        shop.folder,
        signers=[shop.roots[0], shop.roots[1], new],
        add=[new.public_key],
        remove=[shop.roots[2].public_key],
        keys=shop.keys,
        now=NOW,
    )
    assert version == 2
    assert shop.read(state=state).versions["root"] == shop.read().versions["root"] == 2
    assert dict(shop.read(state=state).files) == shop.files
    rotate(shop.folder, signers=[shop.roots[0], new], remove=[shop.roots[1].public_key], now=NOW)
    assert shop.read(state=state).versions["root"] == shop.read().versions["root"] == 3
    with pytest.raises(PolicyError) as caught:
        rotate(shop.folder, signers=[shop.roots[0], shop.roots[2]], now=NOW)
    assert caught.value.reason == "wrong-key"


def test_the_threshold_holds_for_writers_too(shop: Shop, new_keys: Callable[[], RoleKeys], tmp_path: Path) -> None:
    names = sorted(path.name for path in shop.folder.rglob("*"))
    two = [signer.public_key for signer in shop.roots[:2]]
    stranger = CryptoSigner.generate_ed25519()
    for reason, act in {
        "threshold": [
            lambda: rotate(shop.folder, signers=shop.roots[:1], now=NOW),
            lambda: rotate(shop.folder, signers=[shop.roots[0], shop.roots[0]], now=NOW),
            lambda: rotate(shop.folder, signers=shop.roots, threshold=4, now=NOW),
            lambda: rotate(shop.folder, signers=shop.roots, threshold=0, now=NOW),
            lambda: rotate(shop.folder, signers=shop.roots, remove=two, now=NOW),
            lambda: rotate(shop.folder, signers=shop.roots[:2], threshold=3, now=NOW),
            lambda: create(tmp_path / "x", root_keys=two, threshold=2, signers=shop.roots[:1], keys=shop.keys),
            lambda: create(tmp_path / "x", root_keys=[], threshold=1, signers=[], keys=shop.keys),
        ],
        "wrong-key": [
            lambda: rotate(shop.folder, signers=[*shop.roots, stranger], now=NOW),
            lambda: rotate(shop.folder, signers=shop.roots, remove=[stranger.public_key], now=NOW),
            lambda: publish(shop.folder, shop.files, keys=new_keys(), now=NOW),
            lambda: renew(shop.folder, online=shop.keys.targets, now=NOW),
            lambda: renew(shop.folder, online=shop.roots[0], now=NOW),
        ],
    }.items():
        for each in act:
            with pytest.raises(PolicyError) as caught:
                each()
            assert caught.value.reason == reason, str(caught.value)
    assert names == sorted(path.name for path in shop.folder.rglob("*"))
    assert not (tmp_path / "x").exists()


def test_limits_of_a_set(shop: Shop, tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="at most 1048576") as caught:
        shop.publish({"a.yaml": bytes((1 << 20) + 1)})
    assert caught.value.reason == "too-large"
    with pytest.raises(PolicyError, match="at most 64") as caught:
        shop.publish({f"{number}.yaml": b"" for number in range(65)})
    assert caught.value.reason == "too-large"
    with pytest.raises(PolicyError) as caught:
        Lifetimes(timestamp=0)
    assert caught.value.reason == "bad-lifetime"
    with pytest.raises(PolicyError) as caught:
        publish(tmp_path, shop.files, keys=shop.keys)
    assert caught.value.reason == "missing"
    with pytest.raises(OutputError) as refused:
        shop.create()
    assert refused.value.reason == "exists"


def test_a_killed_publisher_leaves_the_old_set_or_the_new_one(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped before every single write in turn; an old reader and a fresh one always read a whole set."""
    write, state, new = step.write_file, shop.fresh(), {"law.yaml": b"newer", "more.json": b"{}"}
    for stop in range(20):
        left = iter(range(stop))

        def until(path: Path, data: bytes, left: "iter[int]" = left) -> None:  # type: ignore[valid-type]
            if next(left, None) is None:
                raise OutputError("killed")
            write(path, data)

        shop.publish(shop.files)
        monkeypatch.setattr(step, "write_file", until)
        try:
            shop.publish(new)
        except OutputError:
            expected = shop.files
        else:
            expected = new
        monkeypatch.setattr(step, "write_file", write)
        assert dict(shop.read(state=state).files) == dict(shop.read().files) == expected
        if expected == new:
            break
    assert stop == 5  # two files, targets, snapshot, timestamp


def test_a_rotation_killed_on_the_way_refuses_and_is_repaired_by_publishing(
    shop: Shop, new_keys: Callable[[], RoleKeys], monkeypatch: pytest.MonkeyPatch
) -> None:
    write, state = step.write_file, shop.fresh()
    shop.read(state=state)
    shop.keys = new_keys()

    def until(path: Path, data: bytes) -> None:
        if path.name == "timestamp.json":
            raise OutputError("killed")
        write(path, data)

    monkeypatch.setattr(step, "write_file", until)
    with pytest.raises(OutputError):
        rotate(shop.folder, signers=shop.roots[:2], keys=shop.keys, now=NOW)
    monkeypatch.setattr(step, "write_file", write)
    with pytest.raises(PolicyError) as caught:
        shop.read(state=state)
    assert caught.value.reason == "revoked-key"
    shop.publish(shop.files)
    assert dict(shop.read(state=state).files) == dict(shop.read().files) == shop.files


READ = """
import sys
from datetime import datetime
from pathlib import Path
from soupmix.trust import SignedSource, read_set

folder, root, state, now = sys.argv[1:]
for _ in range(20):
    print(read_set(SignedSource.pinned(folder, root, state=Path(state)), now=datetime.fromisoformat(now)).version)
"""


def test_two_processes_read_while_a_third_publishes(shop: Shop) -> None:
    state, root = shop.fresh(), shop.folder / "metadata/1.root.json"
    words = [sys.executable, "-c", READ, str(shop.folder), str(root), str(state), NOW.isoformat()]
    readers = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    while any(reader.poll() is None for reader in readers):
        version = shop.publish(shop.files)
    for reader in readers:
        out, _ = reader.communicate()
        versions = [int(line) for line in out.split()]
        assert reader.returncode == 0
        assert len(versions) == 20
        assert versions == sorted(versions)
        assert versions[-1] <= version


@pytest.mark.parametrize("act", ["read", "publish", "renew", "rotate"])
def test_one_at_a_time(shop: Shop, act: str) -> None:
    """Whoever holds the folder makes the others wait: readers on their state, writers on the repository."""
    state = shop.fresh()
    shop.read(state=state)
    acts: dict[str, Callable[[], object]] = {
        "read": lambda: shop.read(state=state),
        "publish": lambda: shop.publish(shop.files),
        "renew": lambda: renew(shop.folder, online=shop.keys.online, now=NOW),
        "rotate": lambda: rotate(shop.folder, signers=shop.roots[:2], now=NOW),
    }
    handle = os.open(state if act == "read" else shop.folder, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(acts[act])
        with pytest.raises(TimeoutError):
            waiting.result(timeout=0.5)
        os.close(handle)
        waiting.result(timeout=30)


def test_what_was_seen_is_remembered_where_it_is_said(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOUPMIX_STATE", str(tmp_path / "state"))
    found = read_set(SignedSource(shop.folder, shop.root), now=NOW)
    (kept,) = (tmp_path / "state/trust").iterdir()
    assert kept.name == found.root
    assert (kept.stat().st_mode & 0o077) == 0
    monkeypatch.setenv("SOUPMIX_STATE", str(shop.folder / "metadata/1.root.json"))
    with pytest.raises(OutputError, match="SOUPMIX_STATE"):
        read_set(SignedSource(shop.folder, shop.root), now=NOW)


def test_the_time_that_is_given_is_the_time_that_counts(shop: Shop) -> None:
    assert shop.read(now=NOW + timedelta(days=6)).version == 2
    for days in (-400, 0):  # the past is no reason to refuse
        assert shop.read(now=NOW + timedelta(days=days)).version == 2


def test_nobody_needs_the_network(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def no(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", no)
    assert shop.read().version == 2


def test_an_unwritable_folder_is_one_sentence(shop: Shop) -> None:
    (shop.folder / "metadata/3.targets.json").mkdir()
    with pytest.raises(OutputError, match=r"3\.targets\.json is a folder, and only a regular file is replaced"):
        shop.publish(shop.files)
    assert dict(shop.read().files) == shop.files
    assert sorted(path.name for path in shop.folder.iterdir()) == ["metadata", "targets"]

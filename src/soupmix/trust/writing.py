"""Publishing a signed set: a TUF repository as a plain folder, written file by file so that readers never see half of it.

    metadata/N.root.json  metadata/N.targets.json  metadata/N.snapshot.json  metadata/timestamp.json
    targets/SHA256.NAME

Whatever a step writes is made and signed in memory first; `timestamp.json`, which makes it visible, comes last.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from securesystemslib.signer import CryptoSigner, SSlibKey
from tuf.api.metadata import Metadata, Root, TargetFile

from soupmix.errors import PolicyError
from soupmix.files import new_folder
from soupmix.locks import locked_folder
from soupmix.trust.layout import LARGEST_FILE, METADATA, TARGETS, check_count, check_name
from soupmix.trust.metadata import check_root, newest, read_metadata
from soupmix.trust.step import Lifetimes, RoleKeys, Step

__all__ = ["create", "publish", "renew", "rotate"]

_ONLINE: Final = ("snapshot", "timestamp")


def create(
    folder: str | Path,
    *,
    root_keys: Sequence[SSlibKey],
    threshold: int,
    signers: Sequence[CryptoSigner],
    keys: RoleKeys,
    days: Lifetimes | None = None,
    now: datetime | None = None,
) -> bytes:
    """Make a repository with an empty set; gives the root's bytes, which readers pin.

    Args:
        folder: made in one step; must not exist.
        root_keys: all keys that may sign a root. threshold: how many of them must.
        signers: the root keys that sign now, at least `threshold` of them. keys: for daily use.

    Raises:
        PolicyError: too few signers, or a bad threshold ("threshold"); a signer that is no root key ("wrong-key").
        OutputError: the folder exists, or the disk refuses.
    """
    step = Step(days or Lifetimes(), now or datetime.now(UTC))
    root = Root(version=1, expires=step.days.until("root", step.now), consistent_snapshot=True)
    for key in root_keys:
        root.add_key(key, "root")
    _set_threshold(root, threshold)
    _set_keys(root, keys)
    data = _signed_root(Metadata(root), signers, None)
    step.files[f"{METADATA}/1.root.json"] = data
    step.snapshot(step.targets({}, 1, keys.targets), 1, 1, keys.online)
    with new_folder(Path(folder)) as temporary:
        (temporary / METADATA).mkdir()
        (temporary / TARGETS).mkdir()
        step.write(temporary)
    return data


def publish(
    folder: str | Path,
    files: Mapping[str, bytes],
    *,
    keys: RoleKeys,
    days: Lifetimes | None = None,
    now: datetime | None = None,
) -> int:
    """Sign exactly these files as the new set; gives its version. What the folder held before is never signed again.

    Raises:
        PolicyError: a name or size that no set may have ("bad-name", "too-large"), keys that the root does not name
            ("wrong-key"), an expired root ("expired"), or no repository there.
        OutputError: the disk refuses; readers then see the set as it was.
    """
    folder = Path(folder)
    step = Step(days or Lifetimes(), now or datetime.now(UTC))
    _check_files(files)
    with _locked(folder):
        _check_keys(newest(folder), keys, step.now)
        metadata = read_metadata(folder, verified=False)
        content = {}
        for name, data in sorted(files.items()):
            content[name] = TargetFile.from_data(name, data, ["sha256"])
            step.files[f"{TARGETS}/{content[name].hashes['sha256']}.{name}"] = data
        version = metadata.targets.signed.version + 1
        step.snapshot(step.targets(content, version, keys.targets), version, metadata.next_online, keys.online)
        step.write(folder)
    return version


def renew(
    folder: str | Path, *, online: CryptoSigner, days: Lifetimes | None = None, now: datetime | None = None
) -> None:
    """Say again that the set is still the newest, with the online key alone. Raises as `publish` and `rotate`."""
    folder = Path(folder)
    step = Step(days or Lifetimes(), now or datetime.now(UTC))
    with _locked(folder):
        metadata = read_metadata(folder)
        _check_key(metadata.root.signed, online, _ONLINE)
        step.snapshot(metadata.targets_bytes, metadata.targets.signed.version, metadata.next_online, online)
        step.write(folder)


def rotate(
    folder: str | Path,
    *,
    signers: Sequence[CryptoSigner],
    add: Sequence[SSlibKey] = (),
    remove: Sequence[SSlibKey] = (),
    threshold: int | None = None,
    keys: RoleKeys | None = None,
    days: Lifetimes | None = None,
    now: datetime | None = None,
) -> int:
    """Sign the next root: other root keys, other daily keys, or only a later expiry; gives its version.

    Args:
        signers: enough keys of the old root, and enough of the new one. add, remove: root keys.
        keys: the daily keys from now on. Those they replace are revoked, and the set is signed again by these.

    Raises:
        PolicyError: too few signers for the old or the new root ("threshold"), a signer or a removed key that is in
            neither ("wrong-key"), or a repository whose own signatures do not hold.
        OutputError: the disk refuses.
    """
    folder = Path(folder)
    step = Step(days or Lifetimes(), now or datetime.now(UTC))
    with _locked(folder):
        metadata = read_metadata(folder)
        root = copy.deepcopy(metadata.root)
        root.signed.version += 1
        root.signed.expires = step.days.until("root", step.now)
        _change_root_keys(root.signed, add, remove)
        if keys is not None:
            _set_keys(root.signed, keys)
            version = metadata.targets.signed.version + 1
            signed = step.targets(metadata.targets.signed.targets, version, keys.targets)
            step.snapshot(signed, version, metadata.next_online, keys.online)
        _set_threshold(root.signed, root.signed.roles["root"].threshold if threshold is None else threshold)
        data = _signed_root(root, signers, metadata.root.signed)
        timestamp = step.files.pop(f"{METADATA}/timestamp.json", None)
        step.files[f"{METADATA}/{root.signed.version}.root.json"] = data
        if timestamp is not None:
            step.files[f"{METADATA}/timestamp.json"] = timestamp
        step.write(folder)
    return root.signed.version


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the repository; others wait. Raises `PolicyError` if there is no such folder ("missing")."""
    with ExitStack() as stack:
        try:
            stack.enter_context(locked_folder(folder))
        except OSError as error:
            raise PolicyError(f"{folder} cannot be opened as a folder: {error.strerror}", reason="missing") from error
        yield


def _check_files(files: Mapping[str, bytes]) -> None:
    check_count(len(files))
    for name, data in files.items():
        check_name(name)
        if len(data) > LARGEST_FILE:
            raise PolicyError(
                f"{name} has {len(data)} bytes; a file of a signed set has at most {LARGEST_FILE}", reason="too-large"
            )


def _check_keys(root: Root, keys: RoleKeys, now: datetime) -> None:
    if root.is_expired(now):
        raise PolicyError(
            f"the root expired on {root.expires:%Y-%m-%d}; sign a new one with `soupmix trust rotate`", reason="expired"
        )
    _check_key(root, keys.targets, ("targets",))
    _check_key(root, keys.online, _ONLINE)


def _check_key(root: Root, signer: CryptoSigner, roles: Sequence[str]) -> None:
    for role in roles:
        if signer.public_key.keyid not in root.roles[role].keyids:
            raise PolicyError(
                f"key {signer.public_key.keyid[:12]} may not sign {role}: root version {root.version} names "
                f"{', '.join(keyid[:12] for keyid in root.roles[role].keyids)}",
                reason="wrong-key",
            )


def _set_keys(root: Root, keys: RoleKeys) -> None:
    for role, signer in (("targets", keys.targets), ("snapshot", keys.online), ("timestamp", keys.online)):
        for keyid in list(root.roles[role].keyids):
            root.revoke_key(keyid, role)
        root.add_key(signer.public_key, role)


def _change_root_keys(root: Root, add: Sequence[SSlibKey], remove: Sequence[SSlibKey]) -> None:
    for key in remove:
        if key.keyid not in root.roles["root"].keyids:
            raise PolicyError(f"key {key.keyid[:12]} is no root key, so it cannot be removed", reason="wrong-key")
        root.revoke_key(key.keyid, "root")
    for key in add:
        root.add_key(key, "root")


def _set_threshold(root: Root, threshold: int) -> None:
    count = len(root.roles["root"].keyids)
    if not 1 <= threshold <= count:
        raise PolicyError(
            f"{threshold} of {count} root keys cannot be asked to sign; give 1 to {count}", reason="threshold"
        )
    root.roles["root"].threshold = threshold


def _signed_root(root: Metadata[Root], signers: Sequence[CryptoSigner], before: Root | None) -> bytes:
    known = {*root.signed.roles["root"].keyids, *(before.roles["root"].keyids if before else ())}
    root.signatures.clear()
    for signer in signers:
        if signer.public_key.keyid not in known:
            raise PolicyError(f"key {signer.public_key.keyid[:12]} is no root key", reason="wrong-key")
        root.sign(signer, append=True)
    check_root(root, before)
    data: bytes = root.to_bytes()
    return data

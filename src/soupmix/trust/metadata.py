"""What lies in a repository's folder, as its writer reads it: the newest root, and the set that the timestamp points to."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from soupmix.errors import PolicyError
from soupmix.sealed import read_sealed
from soupmix.trust.layout import LARGEST_METADATA, METADATA

__all__ = ["SetMetadata", "check_root", "describe", "newest", "read_metadata"]

_T = TypeVar("_T", Root, Snapshot, Targets, Timestamp)


@dataclass(frozen=True, slots=True)
class SetMetadata:
    """The newest of every role, and the bytes of `targets` as they were signed."""

    root: Metadata[Root]
    timestamp: Metadata[Timestamp]
    snapshot: Metadata[Snapshot]
    targets: Metadata[Targets]
    targets_bytes: bytes

    @property
    def next_online(self) -> int:
        """The number of the next snapshot and timestamp."""
        return max(self.timestamp.signed.version, self.snapshot.signed.version) + 1


def newest(folder: Path) -> Root:
    """The newest root, after following the signatures from the oldest.

    Raises:
        PolicyError: there is none ("missing"), one is damaged, or one is not signed by the one before ("threshold").
    """
    return _follow(folder).signed


def read_metadata(folder: Path, *, verified: bool = True) -> SetMetadata:
    """Read everything, and check that the newest root's keys signed it; with `verified` False only its form.

    Raises:
        PolicyError: something is missing or damaged, or signed by other keys ("wrong-key").
    """
    root = _follow(folder)
    timestamp, _ = _read(folder, "timestamp.json", Timestamp)
    snapshot, _ = _read(folder, f"{timestamp.signed.snapshot_meta.version}.snapshot.json", Snapshot)
    targets, data = _read(folder, f"{snapshot.signed.meta['targets.json'].version}.targets.json", Targets)
    if verified:
        for document in (timestamp, snapshot, targets):
            _check_signed(folder, root.signed, document)
    return SetMetadata(root, timestamp, snapshot, targets, data)


def check_root(root: Metadata[Root], before: Root | None) -> None:
    """Check that enough keys of a root, and of the one before it, signed it.

    Raises:
        PolicyError: too few ("threshold").
    """
    for each in (root.signed, before) if before is not None else (root.signed,):
        result = each.get_verification_result("root", root.signed_bytes, root.signatures)
        if not result.verified:
            raise PolicyError(
                f"root version {root.signed.version} is signed by {len(result.signed)} of the keys of root version "
                f"{each.version}, which asks for {result.threshold}; pass more of its private keys",
                reason="threshold",
            )


def _follow(folder: Path) -> Metadata[Root]:
    found = (path.name for path in (folder / METADATA).glob("*.root.json"))
    names = sorted((name for name in found if _number(name).isdigit()), key=lambda name: int(_number(name)))
    if not names:
        raise PolicyError(
            f"{folder} is no signed set: it holds no root; `soupmix trust init` makes one", reason="missing"
        )
    root, _ = _read(folder, names[0], Root)
    check_root(root, None)
    for name in names[1:]:
        following, _ = _read(folder, name, Root)
        check_root(following, root.signed)
        root = following
    return root


def _number(name: str) -> str:
    return name.partition(".")[0]


def _read(folder: Path, name: str, kind: type[_T]) -> tuple[Metadata[_T], bytes]:
    path = folder / METADATA / name
    try:
        data, _ = read_sealed(path, cap=LARGEST_METADATA, error=PolicyError)
        document = Metadata[_T].from_bytes(data)
    except RepositoryError as error:
        raise PolicyError(f"{path} is damaged: {error}", reason="damaged") from error
    if not isinstance(document.signed, kind):
        raise PolicyError(f"{path} is damaged: it is {document.signed.type}, not {kind.type}", reason="damaged")
    return document, data


def _check_signed(folder: Path, root: Root, document: Metadata[Any]) -> None:
    role = document.signed.type
    if not root.get_verification_result(role, document.signed_bytes, document.signatures).verified:
        raise PolicyError(
            f"{folder}: its {role} is not signed by the keys that root version {root.version} names; publish the set "
            "anew from the files themselves",
            reason="wrong-key",
        )


def describe(folder: str | Path) -> dict[str, Any]:
    """What a repository says of itself: versions, expiries, how many keys, files. Believed by nobody; see `read_set`.

    Raises:
        PolicyError: as `read_metadata`.
    """
    metadata = read_metadata(Path(folder))
    roles = {
        document.signed.type: document.signed
        for document in (metadata.root, metadata.targets, metadata.snapshot, metadata.timestamp)
    }
    facts: dict[str, Any] = {
        name: {"version": role.version, "expires": f"{role.expires:%Y-%m-%d}", **_keys(metadata.root.signed, name)}
        for name, role in roles.items()
    }
    return {**facts, "files": {name: target.length for name, target in sorted(metadata.targets.signed.targets.items())}}


def _keys(root: Root, role: str) -> dict[str, Any]:
    named = root.roles[role]
    return {"signatures": f"{named.threshold} of {len(named.keyids)}", "keys": [keyid[:12] for keyid in named.keyids]}

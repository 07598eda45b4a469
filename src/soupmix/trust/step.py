"""One step of a repository: everything it writes is made and signed here, in memory, before the first file changes."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, MetaFile, Snapshot, TargetFile, Targets, Timestamp

from soupmix.errors import PolicyError
from soupmix.files import write_file
from soupmix.trust.layout import METADATA

__all__ = ["Lifetimes", "RoleKeys", "Step"]


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """Days until what is signed now expires. The shortest is how long an attacker can hide news (freeze)."""

    root: int = 365
    targets: int = 90
    snapshot: int = 30
    timestamp: int = 7

    def __post_init__(self) -> None:
        for role in ("root", "targets", "snapshot", "timestamp"):
            days = getattr(self, role)
            if not 1 <= days <= 3660:
                raise PolicyError(f"{role} is to expire after {days} days; give 1 to 3660", reason="bad-lifetime")

    def until(self, role: str, now: datetime) -> datetime:
        """When something that a role signs now expires."""
        return now.astimezone(UTC).replace(microsecond=0) + timedelta(days=getattr(self, role))


@dataclass(frozen=True, slots=True)
class RoleKeys:
    """The keys in daily use: `targets` signs what a set holds, `online` that this is still the newest."""

    targets: CryptoSigner
    online: CryptoSigner


@dataclass(frozen=True, slots=True)
class Step:
    """One signed step of a repository, before anything is written."""

    days: Lifetimes
    now: datetime
    files: dict[str, bytes] = field(default_factory=dict)

    def targets(self, content: dict[str, TargetFile], version: int, signer: CryptoSigner) -> bytes:
        """Sign what the set holds; gives the bytes."""
        made = Metadata(Targets(version=version, expires=self.days.until("targets", self.now), targets=content))
        return self._sign(made, signer, f"{METADATA}/{version}.targets.json")

    def snapshot(self, targets: bytes, targets_version: int, version: int, signer: CryptoSigner) -> None:
        """Sign that these targets are the newest: a snapshot, and the timestamp that makes it visible."""
        meta = {"targets.json": _pointer(targets, targets_version)}
        made = Metadata(Snapshot(version=version, expires=self.days.until("snapshot", self.now), meta=meta))
        self._timestamp(self._sign(made, signer, f"{METADATA}/{version}.snapshot.json"), version, signer)

    def _timestamp(self, snapshot: bytes, version: int, signer: CryptoSigner) -> None:
        # snapshot and timestamp are always made together, so they share one number
        expires = self.days.until("timestamp", self.now)
        made = Metadata(Timestamp(version=version, expires=expires, snapshot_meta=_pointer(snapshot, version)))
        self._sign(made, signer, f"{METADATA}/timestamp.json")

    def _sign(self, made: Metadata[Any], signer: CryptoSigner, path: str) -> bytes:
        made.sign(signer)
        self.files[path] = made.to_bytes()
        return self.files[path]

    def write(self, folder: Path) -> None:
        """In the order in which the step was made; what makes it visible is last."""
        for path, data in self.files.items():
            write_file(folder / path, data)


def _pointer(data: bytes, version: int) -> MetaFile:
    return MetaFile(version=version, length=len(data), hashes={"sha256": sha256(data).hexdigest()})

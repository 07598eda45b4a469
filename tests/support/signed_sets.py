"""Repositories of signed sets at a fixed time, and the keys of everybody involved."""

import itertools
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from securesystemslib.signer import CryptoSigner

from soupmix.trust import RoleKeys, SignedSet, SignedSource, create, publish, read_set

NOW = datetime(2027, 1, 1, 12, tzinfo=UTC)

LAW = """\
tier: law
issuer: Example
version: '1'
rules:
- {rule: bounds, id: calm, adapter: unfriendly, at_most: '0.5'}
"""


def new_keys() -> RoleKeys:
    """Keys of a publisher."""
    return RoleKeys(CryptoSigner.generate_ed25519(), CryptoSigner.generate_ed25519())


@dataclass
class Shop:
    """One repository with a root of 2 of 3 keys, and a reader that remembers."""

    folder: Path
    now: datetime = NOW
    files: dict[str, bytes] = field(default_factory=lambda: {"law.yaml": LAW.encode()})
    roots: list[CryptoSigner] = field(default_factory=lambda: [CryptoSigner.generate_ed25519() for _ in range(3)])
    keys: RoleKeys = field(default_factory=new_keys)
    root: bytes = b""
    _states: "itertools.count[int]" = field(default_factory=itertools.count)

    def create(self) -> "Shop":
        self.root = create(
            self.folder,
            root_keys=[signer.public_key for signer in self.roots],
            threshold=2,
            signers=self.roots[:2],
            keys=self.keys,
            now=NOW,
        )
        return self

    def publish(self, files: Mapping[str, bytes], now: datetime = NOW) -> int:
        return publish(self.folder, files, keys=self.keys, now=now)

    def fresh(self) -> Path:
        """The state of a reader that has seen nothing."""
        return self.folder.parent / f"{self.folder.name}-state{next(self._states)}"

    def source(self, *, folder: Path | None = None, state: Path | None = None, floor: int = 0) -> SignedSource:
        return SignedSource(folder or self.folder, self.root, floor, state or self.fresh())

    def read(self, now: datetime = NOW, **options: object) -> SignedSet:
        return read_set(self.source(**options), now=now)  # type: ignore[arg-type]

    def copy(self) -> Path:
        """What an attacker who serves the repository starts from."""
        target = self.folder.parent / f"{self.folder.name}-copy{next(self._states)}"
        shutil.copytree(self.folder, target)
        return target

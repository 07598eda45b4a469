"""A verified read of one signed set: from a pinned root, through TUF, into bytes that nobody changes any more."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Final

import platformdirs
from tuf.api.exceptions import DownloadError, RepositoryError
from tuf.api.metadata import Metadata, Root, TargetFile, Targets
from tuf.ngclient import Updater, UpdaterConfig

from soupmix.errors import OutputError, PolicyError
from soupmix.locks import locked_folder
from soupmix.trust.fetching import METADATA_URL, TARGETS_URL, FolderFetcher, policy_error
from soupmix.trust.layout import LARGEST_FILE, LARGEST_METADATA, check_count, check_name

__all__ = ["SignedSet", "SignedSource", "read_set"]

_CONFIG: Final = UpdaterConfig(
    max_root_rotations=256,
    root_max_length=LARGEST_METADATA,
    timestamp_max_length=16_384,
    snapshot_max_length=LARGEST_METADATA,
    targets_max_length=LARGEST_METADATA,
)


@dataclass(frozen=True, slots=True)
class SignedSource:
    """Where a signed set is, and what is believed beforehand.

    Attributes:
        folder: the repository, a plain folder; nothing in it is trusted.
        root: bytes of the root metadata that the operator trusts; everything is judged from here.
        floor: a set with a lower version is refused, even if nothing is remembered.
        state: what was seen before (this is where protection from rollback lives); None is the user's state folder.
    """

    folder: Path
    root: bytes
    floor: int = 0
    state: Path | None = None

    @classmethod
    def pinned(
        cls, folder: str | Path, root: str | Path, *, floor: int = 0, state: Path | None = None
    ) -> "SignedSource":
        """A source with its root read from a file.

        Raises:
            PolicyError: the file cannot be read, or is too large to be a root ("bad-root").
        """
        try:
            with Path(root).open("rb") as file:
                data = file.read(LARGEST_METADATA + 1)
        except OSError as error:
            raise PolicyError(f"root {root} cannot be read: {error.strerror}", reason="bad-root") from error
        if len(data) > LARGEST_METADATA:
            raise PolicyError(f"root {root} is larger than {LARGEST_METADATA} bytes", reason="bad-root")
        return cls(Path(folder), data, floor, state)


@dataclass(frozen=True, slots=True)
class SignedSet:
    """What a set holds, after every check.

    Attributes:
        files: name -> bytes, sorted by name; cannot be changed.
        version: of the set, which grows with every publication. versions: of all four roles, by name.
        expires: when the first of the four expires; read it again before then.
        root: hex SHA-256 of the pinned root.
    """

    files: Mapping[str, bytes]
    version: int
    versions: Mapping[str, int]
    expires: datetime
    root: str


def _state_root() -> Path:
    """Where versions that were seen are remembered: $SOUPMIX_STATE, else the platform's folder for a user's state."""
    override = os.environ.get("SOUPMIX_STATE")
    return Path(override).expanduser() if override else platformdirs.user_state_path("soupmix")


def read_set(source: SignedSource, *, now: datetime | None = None) -> SignedSet:
    """Bring the remembered state up to date with the repository, and read every file of the set.

    Args:
        now: the time to judge expiry by; the clock's if not given.

    Raises:
        PolicyError: something is not as signed. Reasons: "rollback", "below-floor", "expired", "mix-and-match", "tampered",
            "unsigned", "wrong-key", "revoked-key", "threshold", "too-large", "bad-name", "delegation", "damaged",
            "missing", "unreadable", "bad-root".
        OutputError: the state cannot be written.
    """
    digest = sha256(source.root).hexdigest()
    state = source.state if source.state is not None else _state_root() / "trust" / digest
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locked_folder(state):
            return _Reader(source, state, now).read(digest)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(
            f"cannot remember signed sets in {state}: {error.strerror or error}; name another folder in SOUPMIX_STATE",
            reason="write-failed",
        ) from error


class _Reader:
    """One read: TUF's updater, the fetcher it uses, and what it trusts so far."""

    def __init__(self, source: SignedSource, state: Path, now: datetime | None) -> None:
        self._source, self._state = source, state
        self._fetcher = FolderFetcher(source.folder)
        try:
            self._updater = Updater(
                metadata_dir=str(state),
                metadata_base_url=METADATA_URL,
                fetcher=self._fetcher,
                config=_CONFIG,
                bootstrap=source.root,
            )
        except RepositoryError as error:
            raise PolicyError(f"the pinned root is not a signed root: {error}", reason="bad-root") from error
        # TUF offers no public way to name the time, or to list what a set holds.
        self._trusted = self._updater._trusted_set
        if now is not None:
            self._trusted.reference_time = now.astimezone(UTC)

    def read(self, digest: str) -> SignedSet:
        try:
            self._updater.refresh()
            targets: Targets = self._trusted.targets
            self._check(targets)
            files = {name: self._file(target) for name, target in sorted(targets.targets.items())}
        except (RepositoryError, DownloadError) as error:
            raise policy_error(error, self._fetcher, self._source.folder, self._roots()) from error
        roles = {
            role.type: role for role in (self._trusted.root, self._trusted.timestamp, self._trusted.snapshot, targets)
        }
        return SignedSet(
            files=MappingProxyType(files),
            version=targets.version,
            versions=MappingProxyType({name: role.version for name, role in sorted(roles.items())}),
            expires=min(role.expires for role in roles.values()),
            root=digest,
        )

    def _check(self, targets: Targets) -> None:
        if targets.version < self._source.floor:
            raise PolicyError(
                f"signed set {self._source.folder} has version {targets.version}, and nothing below "
                f"{self._source.floor} is accepted here (floor)",
                reason="below-floor",
            )
        if targets.delegations is not None:
            raise PolicyError(
                f"signed set {self._source.folder} delegates to further keys, which soupmix does not follow",
                reason="delegation",
            )
        check_count(len(targets.targets))
        for name in targets.targets:
            check_name(name)

    def _file(self, target: TargetFile) -> bytes:
        digest = target.hashes.get("sha256", "")
        length = min(target.length, LARGEST_FILE)
        data: bytes = self._fetcher.download_bytes(f"{TARGETS_URL}{digest}.{target.path}", length)
        target.verify_length_and_hashes(data)
        return data

    def _roots(self) -> list[Root]:
        """The roots on the way from the pinned one to the newest trusted one."""
        first = Metadata[Root].from_bytes(self._source.root).signed
        found = [first]
        for version in range(first.version + 1, self._trusted.root.version):
            path = self._state / "root_history" / f"{version}.root.json"
            found.append(Metadata[Root].from_bytes(path.read_bytes()).signed)
        return [*found, self._trusted.root]

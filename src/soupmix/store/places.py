"""Where a user's stores lie: one for each base model, in the folder for user data; that of the shipped base over the shipped one.

What lies over another store names the adapters of both in its manifest, and holds the files of its own; those of the other are
read where they are. So what is shipped is never written.
"""

import os
from pathlib import Path

import platformdirs

from soupmix.store import manifest as manifests
from soupmix.store.manifest import MANIFEST, Manifest, ManifestEntry, manifest_if_any, read_manifest

__all__ = [
    "BLOBS",
    "beneath",
    "blob_path",
    "data_root",
    "default_stores",
    "find_blob",
    "home_of",
    "is_stale",
    "own_entries",
    "read_store",
]

BLOBS = "blobs"


def blob_path(store: Path, digest: str) -> Path:
    """The PEFT folder of the adapter with that digest ("sha256:<hex>") in a store."""
    return store / BLOBS / digest.removeprefix("sha256:")


def find_blob(store: Path, digest: str) -> Path:
    """That folder where it is: in the store, else in the one that it lies over."""
    own, below = blob_path(store, digest), beneath(store)
    return own if below is None or own.is_dir() else blob_path(below, digest)


def data_root() -> Path:
    """The folder of what a user added: $SOUPMIX_DATA, else the platform's folder for user data."""
    override = os.environ.get("SOUPMIX_DATA")
    return Path(override).expanduser() if override else platformdirs.user_data_path("soupmix")


def home_of(base_digest: str) -> Path:
    """The user's store of adapters for the base with this digest ("sha256:<hex>"); it may not be there yet."""
    return data_root() / "adapters" / base_digest.removeprefix("sha256:")[:32]


def beneath(store: Path) -> Path | None:
    """The shipped store, if this is the user's store for its base; else None: a store lies over no other."""
    if not _same(store.parent, data_root() / "adapters"):
        return None
    root = manifests.shipped_root()
    digests = {entry.base_digest for entry in manifest_if_any(root) or ()}
    return root if any(store.name == home_of(digest).name for digest in digests) else None


def read_store(store: Path) -> Manifest:
    """The manifest of a store; of a user's store that is not there yet, what it would lie over.

    Raises:
        AdapterError: as `read_manifest` does.
    """
    below = None if (store / MANIFEST).exists() else beneath(store)
    return read_manifest(store if below is None else below)


def default_stores() -> tuple[Path, ...]:
    """Where adapters are looked for if no store is named: first for the shipped base, then the user's for other bases."""
    root, home = manifests.shipped_root(), data_root() / "adapters"
    found = sorted(path.parent for path in home.glob(f"*/{MANIFEST}"))
    over = [path for path in found if beneath(path) is not None]
    return (*(over or [root]), *(path for path in found if path not in over))


def own_entries(store: Path, manifest: Manifest) -> dict[str, ManifestEntry]:
    """The adapters whose files are in the store itself, by name."""
    return {entry.name: entry for entry in manifest if blob_path(store, entry.digest).is_dir()}


def is_stale(store: Path) -> bool:
    """Whether a store lies over others than those that are shipped now."""
    below, manifest = beneath(store), manifest_if_any(store)
    if below is None or manifest is None:
        return False
    own = own_entries(store, manifest)
    taken = {entry.digest for entry in own.values()}
    seen = {entry.name: entry for entry in read_manifest(below) if entry.name not in own and entry.digest not in taken}
    return {entry.name: entry for entry in manifest if entry.name not in own} != seen


def _same(one: Path, other: Path) -> bool:
    return Path(os.path.abspath(one)) == Path(os.path.abspath(other))  # noqa: PTH100 (links stay as they are)

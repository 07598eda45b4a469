"""The files of a store's adapters, in folders named by digest: a name never becomes a path. Read back, the digest goes first."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType

from soupmix.errors import AdapterError, OutputError
from soupmix.files import new_folder
from soupmix.locks import locked_folder
from soupmix.replacing import plain_names
from soupmix.scratch import remove, sweep
from soupmix.store.adapter import Adapter
from soupmix.store.manifest import ManifestEntry, manifest_if_any
from soupmix.store.places import BLOBS, blob_path, find_blob
from soupmix.store.reader import CONFIG, TENSORS, open_adapter

__all__ = ["exclusive", "load_entry", "write_blob"]

_HEX = re.compile(r"[0-9a-f]{64}")


def write_blob(store: Path, digest: str, contents: Mapping[str, bytes]) -> None:
    """Put the files of an adapter in place in one step; the caller holds the store.

    Raises:
        OutputError: the disk refuses.
    """
    with new_folder(blob_path(store, digest), force=True, own=_is_blob) as temporary:
        for name, data in contents.items():
            (temporary / name).write_bytes(data)


def load_entry(store: Path, entry: ManifestEntry) -> Adapter:
    """Read the adapter of an entry from its store.

    Raises:
        AdapterError: a file is not the one of the manifest ("digest-mismatch"), or is refused by the reader.
    """
    with open_adapter(find_blob(store, entry.digest)) as files:
        found = {CONFIG: files.config_sha256, TENSORS: files.tensors.sha256}
        for file, sha256 in {CONFIG: entry.config_sha256, TENSORS: entry.tensors_sha256}.items():
            if found[file] != sha256:
                raise AdapterError(
                    f"adapter {entry.name!r}: {file} in {store} is not the file in the manifest "
                    f"(sha256 {found[file][:16]}..., not {sha256[:16]}...); restore it, or add the adapter again",
                    reason="digest-mismatch",
                )
        factors, settings = MappingProxyType(dict(files.factors())), files.settings()
        whole = settings.own is not None
        return Adapter(entry.name, entry.digest, entry.base_digest, factors, whole, settings.base)


def _is_blob(folder: Path) -> bool:
    """Under the name of a digest there is nothing in a store but a blob, whole or spoilt; yet no folders or links."""
    return plain_names(folder) is not None


@contextmanager
def exclusive(store: Path) -> Iterator[None]:
    """Hold a store for writing, others wait; what killed writers left is swept before, what nothing names after.

    The lock is on the folder itself, which leaves no file behind.

    Raises:
        OutputError: the folder cannot be made or opened.
        AdapterError: its blobs are a symbolic link ("symlink"), which could lead a sweep anywhere.
    """
    try:
        store.mkdir(parents=True, exist_ok=True)
        with locked_folder(store):
            _sweep(store)
            try:
                yield
            finally:
                with suppress(AdapterError, OSError):  # what cannot be removed now is for the next writer
                    _sweep(store)
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write to store {store}: {error.strerror or error}", reason="write-failed") from error


def _sweep(store: Path) -> None:
    """Remove temporaries, and blobs that the manifest on disk does not name; without a manifest nothing is known."""
    if (store / BLOBS).is_symlink():
        raise AdapterError(f"{store / BLOBS} is a symbolic link: put the folder itself there", reason="symlink")
    sweep(store)
    sweep(store / BLOBS)
    manifest = manifest_if_any(store)
    if manifest is None:
        return
    named = {blob_path(store, entry.digest) for entry in manifest}
    for path in (store / BLOBS).iterdir() if (store / BLOBS).is_dir() else ():
        if _HEX.fullmatch(path.name) and path not in named:
            remove(path)

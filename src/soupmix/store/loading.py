"""From a manifest entry to an adapter in memory: the digest first, the parser after."""

from pathlib import Path

from soupmix.errors import AdapterError
from soupmix.store.adapter import Adapter
from soupmix.store.blobs import blob_path
from soupmix.store.manifest import Entry
from soupmix.store.reader import CONFIG, TENSORS, open_adapter

__all__ = ["load_entry"]


def load_entry(store: Path, entry: Entry) -> Adapter:
    """Read the adapter of an entry from its store.

    Raises:
        AdapterError: a file is not the one of the manifest ("digest-mismatch"), or is refused by the reader.
    """
    with open_adapter(blob_path(store, entry.digest)) as files:
        found = {CONFIG: files.config_sha256, TENSORS: files.tensors.sha256}
        for file, sha256 in {CONFIG: entry.config_sha256, TENSORS: entry.tensors_sha256}.items():
            if found[file] != sha256:
                raise AdapterError(
                    f"adapter {entry.name!r}: {file} in {store} is not the file in the manifest "
                    f"(sha256 {found[file][:16]}..., not {sha256[:16]}...); restore it, or add the adapter again",
                    reason="digest-mismatch",
                )
        return Adapter(entry.name, entry.digest, entry.base_digest, files.factors())

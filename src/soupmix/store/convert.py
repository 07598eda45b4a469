"""An adapter that is saved as a pickle, made into a safetensors folder by a process that can open no file and no socket."""

import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import IO, cast

from soupmix.errors import AdapterError
from soupmix.files import new_folder
from soupmix.sealed import Sealed
from soupmix.store.folder import SourceFolder, source_folder
from soupmix.store.importing import CARD, MAX_CARD, PICKLED
from soupmix.store.reader import CONFIG, MAX_BYTES, MAX_CONFIG, TENSORS, header_of, sealed_bytes

__all__ = ["convert_pickle"]

_SECONDS = 600.0
_MOST = MAX_BYTES


def convert_pickle(pickled: Path, target: Path) -> None:
    """Write an adapter folder from one with adapter_model.bin, or from that file; its values stay as they are.

    Raises:
        AdapterError: there is none ("missing"), it is no plain file, too large, or holds anything else than tensors by name
            ("not-converted").
        OutputError: `target` exists, or the disk refuses.
    """
    alone = not pickled.is_dir()
    with source_folder(pickled.parent if alone else pickled) as folder:
        name = pickled.name if alone else PICKLED
        with folder.sealed(name, cap=MAX_BYTES) as content:
            tensors = _converted(content, str(folder.path / name))
        files = {TENSORS: tensors} | _others(folder)
    header_of(sealed_bytes(tensors), f"what was made of {folder.path / name}")
    with new_folder(target, reads=(folder.path,)) as made:
        for kept, data in files.items():
            (made / kept).write_bytes(data)


def _others(folder: SourceFolder) -> dict[str, bytes]:
    found = {CONFIG: folder.read(CONFIG, cap=MAX_CONFIG)} if folder.holds(CONFIG) else {}
    if folder.holds(CARD) and not folder.is_link(CARD):
        found[CARD] = folder.read(CARD, cap=MAX_CARD)
    return found


def _converted(content: Sealed, where: str) -> bytes:
    watched, held = os.pipe()  # closed when this process ends, however it does, and then the other ends too
    with tempfile.TemporaryDirectory() as empty, content.open() as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "soupmix.store.unpickling", str(watched)],
            cwd=empty,
            stdin=file,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=(watched,),
        )
        limit = threading.Timer(_SECONDS, process.kill)
        try:
            limit.start()
            told = _told(cast("IO[bytes]", process.stdout))
            code = process.wait() if len(told) <= _MOST else -1
        finally:
            limit.cancel()
            process.kill()
            process.communicate()
            os.close(watched)
            os.close(held)
    if code or not told:
        why = (
            told[:300].decode("utf-8", "replace")
            if code == 1
            else "it took too much time or memory, or tried what it may not"
        )
        raise AdapterError(f"{where} cannot be converted: {why}", reason="not-converted")
    return told


def _told(stream: IO[bytes]) -> bytes:
    """What comes out, up to a little more than an adapter may have."""
    told = bytearray()
    while len(told) <= _MOST and (block := stream.read(1 << 20)):
        told += block
    return bytes(told)

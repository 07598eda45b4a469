"""An adapter that is saved as a pickle, made into a safetensors folder by a process that can only compute."""

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO, cast

from soupmix.errors import AdapterError
from soupmix.files import new_folder
from soupmix.findings import Finding
from soupmix.sealed import Sealed
from soupmix.store.folder import source_folder
from soupmix.store.importing import CARD, PICKLED, card_of
from soupmix.store.reader import CONFIG, MAX_BYTES, MAX_CONFIG, TENSORS, header_of, sealed_bytes
from soupmix.store.unpickling import OPEN, REFUSED

__all__ = ["convert_pickle"]

_SECONDS = 600.0
_MOST = MAX_BYTES


def convert_pickle(pickled: Path, target: Path) -> tuple[Finding, ...]:
    """Write an adapter folder from one with adapter_model.bin, or from that file; its values stay as they are.

    Returns:
        What is worth knowing of it.

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
        card, notes = card_of(folder)
        config = {CONFIG: folder.read(CONFIG, cap=MAX_CONFIG)} if folder.holds(CONFIG) else {}
        files = {TENSORS: tensors} | config | ({} if card is None else {CARD: card})
    header_of(sealed_bytes(tensors), f"what was made of {folder.path / name}")
    with new_folder(target, reads=(folder.path,)) as made:
        for kept, data in files.items():
            (made / kept).write_bytes(data)
    return notes


def _converted(content: Sealed, where: str) -> bytes:
    watched, held = os.pipe()  # closed when this process ends, however it does, and then the other ends too
    with tempfile.TemporaryDirectory() as empty, _with_handle(content) as file:
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
        raise AdapterError(f"{where} cannot be converted: {_why(code, told)}", reason="not-converted")
    return told


def _why(code: int, told: bytes) -> str:
    if code == OPEN:
        return (
            "a pickle can run code, and only Linux on x86-64 or aarch64, with seccomp, can shut it in: convert it there, or "
            "ask its author for safetensors"
        )
    return told[:300].decode("utf-8", "replace") if code == REFUSED else "it took too much time or memory"


@contextmanager
def _with_handle(content: Sealed) -> Iterator[BinaryIO]:
    """The sealed bytes as a file that a process can inherit; without sealed memory one that has no name any longer."""
    if isinstance(content.memory, bytes):
        with tempfile.TemporaryFile() as file:
            file.write(content.memory)
            file.seek(0)
            yield file
    else:
        with content.open() as file:
            yield file


def _told(stream: IO[bytes]) -> bytes:
    """What comes out, up to a little more than an adapter may have."""
    told = bytearray()
    while len(told) <= _MOST and (block := stream.read(1 << 20)):
        told += block
    return bytes(told)

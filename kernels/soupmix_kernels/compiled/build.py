"""Compiled kernels as libraries: made from their sources by the compiler of this machine when they are first used, then kept.

A library is code, so it is loaded from a folder in which nobody but this user, and root, can put one, and no other way. Its name
is the digest of all that it depends on: source, compiler, flags, and the OpenMP runtime of torch, whose threads it shares (two
runtimes would wait for each other's). A source is for many processors: which instructions it may use is chosen when it is
loaded, from those that this processor has.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import stat
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

__all__ = ["INSTRUCTIONS", "SOUP", "STEP", "CannotCompile", "LibrarySource", "instructions", "library", "made_for"]

_WIDE = ("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mfma")
_HALF = (*_WIDE, "-mavx512bf16")
INSTRUCTIONS: dict[str, tuple[str, ...]] = {
    "amx-bf16": (*_HALF, "-mamx-tile", "-mamx-bf16"),
    "avx512-bf16": _HALF,
    "avx512": _WIDE,
    "avx2": ("-mavx2", "-mfma"),
    "plain": (),
}
"""What a library may use beyond what every processor of the platform has (SSE2, NEON) -> flags; the best first."""

_SOURCE = Path(__file__).with_name("step.cpp")
_FLAGS = ("-std=c++17", "-O3", "-fno-math-errno", "-ffp-contract=fast", "-shared", "-fPIC", "-w")
_SECONDS = 300
_lock = threading.Lock()
_loaded: dict[tuple[str, str], ctypes.CDLL] = {}
_POINTERS = (ctypes.c_void_p, ctypes.c_void_p)


@dataclass(frozen=True, eq=False)
class LibrarySource:
    """What a library is made of.

    Attributes:
        name: of the library. files: the source and what it includes. variants: what it may use -> flags; the best first.
        functions: name -> result and arguments, in ctypes.
    """

    name: str
    files: tuple[Path, ...]
    variants: Mapping[str, tuple[str, ...]]
    functions: Mapping[str, tuple[Any, tuple[Any, ...]]]


STEP = LibrarySource(
    "step",
    (_SOURCE, *(_SOURCE.with_name(name) for name in ("blocks.h", "products.h", "tiles.h", "vectors.h"))),
    INSTRUCTIONS,
    {
        "soupmix_scratch": (ctypes.c_size_t, (ctypes.c_void_p, ctypes.c_int32, ctypes.c_int32)),
        "soupmix_step": (None, _POINTERS),
    },
)
"""A step of a decoder, see `step.cpp`."""

SOUP = LibrarySource(
    "soup",
    (_SOURCE.with_name("soup.cpp"),),
    {name: INSTRUCTIONS[name] for name in ("amx-bf16", "avx512-bf16")},
    {"soupmix_soup": (None, _POINTERS)},
)
"""The soups of one layer, see `soup.cpp`."""


class CannotCompile(RuntimeError):
    """There is no library, and none can be made here; says why."""


class _CompilerFailed(CannotCompile):
    pass


@functools.cache
def instructions(source: LibrarySource = STEP) -> tuple[str, ...]:
    """Which variants of a source this processor can run, the best first."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return tuple(name for name in source.variants if name == "plain")
    cpu = torch.cpu
    half = cpu._is_avx512_supported() and cpu._is_avx512_bf16_supported()
    has = {  # the system lends the registers of tiles to who asks
        "amx-bf16": half and cpu._is_amx_tile_supported() and cpu._init_amx(),
        "avx512-bf16": half,
        "avx512": cpu._is_avx512_supported(),
        "avx2": cpu._is_avx2_supported(),
    }
    return tuple(name for name in source.variants if has.get(name, True))


def library(folder: Path, name: str | None = None, source: LibrarySource = STEP) -> ctypes.CDLL:
    """A library, from this process, from the folder, or made now.

    Args:
        folder: where libraries are kept. name: one of `instructions(source)`; None: the best that the compiler knows.

    Raises:
        CannotCompile: no compiler, one that fails, a processor that cannot run it, or a folder that others can write to.
    """
    with _lock:
        names = (name,) if name is not None else instructions(source)
        why = CannotCompile(f"this processor has no {' and no '.join(source.variants)}")
        for each in names:
            try:
                if (source.name, each) not in _loaded:
                    _loaded[source.name, each] = _opened(folder, each, source)
                return _loaded[source.name, each]
            except _CompilerFailed as error:  # an older one, which does not know the newest instructions
                why = error
        raise why


def made_for(found: ctypes.CDLL) -> str:
    """Which variant of its source a library is."""
    return next(name for (_, name), each in _loaded.items() if each is found)


def _opened(folder: Path, name: str, source: LibrarySource) -> ctypes.CDLL:
    if name not in instructions(source):
        raise CannotCompile(f"this processor has no {name}")
    compiler = os.environ.get("CXX") or next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)
    if compiler is None:
        raise CannotCompile("there is no C++ compiler (c++, g++ or clang++; CXX names another)")
    flags, threads = [compiler, *_FLAGS, *source.variants[name]], _threads()
    command = [*flags, str(source.files[0]), *threads]
    try:
        path = folder / f"{source.name}-{_digest(compiler, [*flags, *threads], source)}.so"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _check_ours(folder)
        if not path.is_file():
            _compile(command, path)
        try:
            return _load(path, source)
        except OSError:  # damaged, or of another machine with the same compiler
            _compile(command, path)
            return _load(path, source)
    except OSError as error:
        raise CannotCompile(f"{error.strerror or error}: {error.filename or folder}") from error


def _threads() -> list[str]:
    """Flags for OpenMP by torch's own runtime; none, and so one thread, where torch brings none along."""
    runtimes = sorted(Path(torch.__file__).parent.glob("lib/libgomp*.so*"))
    runtimes += sorted(Path(torch.__file__).parents[1].glob("torch.libs/libgomp*.so*"))
    return ["-fopenmp", str(runtimes[0])] if runtimes else []


def _digest(compiler: str, command: list[str], source: LibrarySource) -> str:
    version = subprocess.run([compiler, "--version"], capture_output=True, check=False, timeout=_SECONDS).stdout
    parts = (*(each.read_bytes() for each in source.files), version, "\0".join(command).encode())
    return hashlib.sha256(b"".join(len(part).to_bytes(8, "big") + part for part in parts)).hexdigest()[:32]


def _compile(command: list[str], path: Path) -> None:
    """Into a file of another name, which takes its place whole."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".making-") as scratch:
        made = Path(scratch) / "made.so"
        try:
            done = subprocess.run(
                [*command, "-o", str(made)],
                capture_output=True, text=True, check=False, timeout=_SECONDS, cwd=scratch,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise CannotCompile(f"{command[0]} took more than {_SECONDS} s") from error
        if done.returncode:
            raise _CompilerFailed(f"{command[0]} failed: {done.stderr.strip()[:300]}")
        with made.open("rb") as file:
            os.fsync(file.fileno())
        made.replace(path)


def _check_ours(folder: Path) -> None:
    """Raise CannotCompile where another user could put a library into a folder, or another folder into its place."""
    resolved = folder.resolve()
    for each in (resolved, *resolved.parents):
        status = each.stat()
        shared = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        kept = each != resolved and status.st_mode & stat.S_ISVTX  # of a sticky folder nobody moves what is another's
        if status.st_uid not in (os.geteuid(), 0) or (shared and not kept):
            raise CannotCompile(f"{each} can be written by others, and code is not loaded from there")


def _load(path: Path, source: LibrarySource) -> ctypes.CDLL:
    """The library of this path, in a folder that was checked. By its own name: dlopen knows what it has loaded by names."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(handle)
    finally:
        os.close(handle)
    if status.st_uid not in (os.geteuid(), 0) or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise CannotCompile(f"{path} can be written by others, so it is not loaded; remove it")
    found = ctypes.CDLL(str(path))
    for name, (result, arguments) in source.functions.items():
        function = getattr(found, name)
        function.restype, function.argtypes = result, arguments
    return found

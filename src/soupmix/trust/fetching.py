"""TUF's fetcher over a plain folder: no network, no links, nothing larger than the cap."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tuf.api.exceptions import DownloadError, DownloadHTTPError, DownloadLengthMismatchError
from tuf.ngclient.fetcher import FetcherInterface

from soupmix.errors import FileError
from soupmix.sealed import read_sealed
from soupmix.trust.layout import LARGEST_FILE, LARGEST_METADATA, METADATA, TARGETS

__all__ = ["METADATA_URL", "TARGETS_URL", "FolderFetcher"]

METADATA_URL: Final = f"folder:///{METADATA}/"
TARGETS_URL: Final = f"folder:///{TARGETS}/"
_CAPS: Final = {METADATA: LARGEST_METADATA, TARGETS: LARGEST_FILE}
_URL: Final = re.compile(rf"folder:///({METADATA}|{TARGETS})/([a-z0-9][a-z0-9_.-]{{0,140}})")


class FolderFetcher(FetcherInterface):
    """Serves `metadata/` and `targets/` of one folder.

    Attributes:
        part, name, data: the last file that was asked for ("metadata" or "targets", its name) and its bytes, so that a
            refusal can say what was wrong with it.
    """

    def __init__(self, folder: Path) -> None:
        self.part = METADATA
        self.name = ""
        self.data = b""
        self._folder = folder

    def _fetch(self, url: str) -> Iterator[bytes]:
        match = _URL.fullmatch(url)
        if match is None:
            raise DownloadError(f"{url} is no file of a repository")
        self.part, self.name = match.groups()
        self.data = b""
        try:
            self.data, _ = read_sealed(self._folder / self.part / self.name, cap=_CAPS[self.part])
        except FileError as error:
            if error.reason == "missing":
                raise DownloadHTTPError(str(error), 404) from error
            if error.reason == "too-large":
                raise DownloadLengthMismatchError(str(error)) from error
            raise DownloadError(str(error)) from error
        return iter((self.data,))

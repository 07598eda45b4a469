"""Files of a signed set for TUF, and what TUF says of them: a fetcher over a plain folder, and one sentence for every refusal.

No network, no links, nothing larger than the cap; every exception of TUF becomes a PolicyError with a stable reason code.
"""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from tuf.api.exceptions import (
    BadVersionNumberError,
    DownloadError,
    DownloadHTTPError,
    DownloadLengthMismatchError,
    ExpiredMetadataError,
    LengthOrHashMismatchError,
    RepositoryError,
    UnsignedMetadataError,
)
from tuf.api.metadata import Metadata, Root
from tuf.api.serialization import DeserializationError
from tuf.ngclient.fetcher import FetcherInterface

from soupmix.errors import FileError, PolicyError
from soupmix.sealed import read_sealed
from soupmix.trust.layout import LARGEST_FILE, LARGEST_METADATA, METADATA, TARGETS

__all__ = ["METADATA_URL", "TARGETS_URL", "FolderFetcher", "policy_error"]

METADATA_URL: Final = f"folder:///{METADATA}/"
TARGETS_URL: Final = f"folder:///{TARGETS}/"
_CAPS: Final = {METADATA: LARGEST_METADATA, TARGETS: LARGEST_FILE}
_URL: Final = re.compile(rf"folder:///({METADATA}|{TARGETS})/([a-z0-9][a-z0-9_.-]{{0,140}})")
_SENTENCES: Final = {
    "damaged": "is not metadata of a signed set",
    "expired": "has expired; whoever publishes this set must renew it, and a copy that stays old may be an attack (freeze)",
    "missing": "is not there",
    "mix-and-match": "does not belong to the other files of this set: parts of different versions were put together",
    "revoked-key": "is signed by a key that was revoked",
    "rollback": "is older than what was seen before",
    "tampered": "is not the file that was signed",
    "threshold": "is signed by too few of the keys that must sign it",
    "too-large": "is larger than it may be",
    "unreadable": "cannot be read",
    "unsigned": "is not signed",
    "wrong-key": "is signed by a key that this set does not trust",
}


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


def policy_error(
    error: RepositoryError | DownloadError, fetcher: FolderFetcher, folder: Path, roots: Sequence[Root]
) -> PolicyError:
    """The error to raise.

    Args:
        error: what TUF raised. fetcher: knows the file it was about.
        roots: the trusted roots so far, oldest first.
    """
    reason = _reason(error, fetcher, roots)
    return PolicyError(
        f"signed set {folder}: {fetcher.name or 'the pinned root'} {_SENTENCES[reason]} ({_one_line(error)})",
        reason=reason,
    )


def _reason(error: RepositoryError | DownloadError, fetcher: FolderFetcher, roots: Sequence[Root]) -> str:
    match error:
        case DownloadLengthMismatchError():
            return "too-large"
        case DownloadHTTPError():
            return "missing"
        case DownloadError():
            return "unreadable"
        case ExpiredMetadataError():
            return "expired"
        case UnsignedMetadataError():
            return _unsigned(fetcher, roots)
        case BadVersionNumberError():
            return "rollback" if _consistent(fetcher) else "mix-and-match"
        case LengthOrHashMismatchError():
            return "mix-and-match" if fetcher.part == METADATA else "tampered"
        case DeserializationError():
            return "damaged"
    return "mix-and-match" if isinstance(error.__cause__, LengthOrHashMismatchError) else "damaged"


def _consistent(fetcher: FolderFetcher) -> bool:
    """Whether a file has the version that its name gives: then it is old, else it was put under another's name."""
    version = fetcher.name.partition(".")[0]
    return not version.isdigit() or str(json.loads(fetcher.data)["signed"]["version"]) == version


def _unsigned(fetcher: FolderFetcher, roots: Sequence[Root]) -> str:
    """Verified, not read off: a signature that only claims to be from a known key counts as a stranger's."""
    document = Metadata.from_bytes(fetcher.data)
    role = document.signed.type
    if not document.signatures:
        return "unsigned"
    signers = [root.get_verification_result(role, document.signed_bytes, document.signatures).signed for root in roots]
    if signers[-1]:
        return "threshold"
    return "revoked-key" if any(signers) else "wrong-key"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())

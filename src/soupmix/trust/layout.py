"""What a signed set may look like: names, sizes, numbers. Both the writer and the reader hold to it."""

import re
from typing import Final

from soupmix.errors import PolicyError

__all__ = [
    "DOCUMENT",
    "INVENTORY",
    "LARGEST_FILE",
    "LARGEST_METADATA",
    "METADATA",
    "TARGETS",
    "check_count",
    "check_name",
]

METADATA: Final = "metadata"
TARGETS: Final = "targets"

LARGEST_FILE: Final = 1 << 20
LARGEST_METADATA: Final = 512_000
_MOST_FILES: Final = 64

DOCUMENT: Final = ".yaml"
"""Files that end like this are policy documents; every other file of a set is data."""

INVENTORY: Final = "soupmix-store.json"
"""What a set says of the store that its documents are for, if it says so; see `soupmix.policy.inventory`."""

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,57}\.(?:yaml|json)")


def check_name(name: str) -> str:
    """Return a file name that a set may hold; lower case only, so that two names differ on every file system.

    Raises:
        PolicyError: it may not ("bad-name").
    """
    if not _NAME.fullmatch(name):
        raise PolicyError(
            f"a signed set cannot hold a file named {name!r:.90}; names are a-z, 0-9, '.', '-' and '_', and end in "
            ".yaml (a policy document) or .json (data)",
            reason="bad-name",
        )
    return name


def check_count(count: int) -> None:
    """Refuse a set with more files than allowed.

    Raises:
        PolicyError: too many ("too-large").
    """
    if count > _MOST_FILES:
        raise PolicyError(f"a signed set holds at most {_MOST_FILES} files, this one has {count}", reason="too-large")

"""What lies in a folder: every byte, and what a writer left behind."""

from pathlib import Path

Snapshot = dict[str, bytes]
"""Path below the folder -> bytes."""


def snapshot(folder: Path) -> Snapshot:
    """Every file of a folder with its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def debris(folder: Path) -> list[str]:
    """Temporaries anywhere below a folder."""
    return [str(path) for path in folder.rglob(".soupmix-*")]

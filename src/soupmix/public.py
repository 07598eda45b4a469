"""What users find at the top of the package says that it is there."""

from typing import TypeVar

__all__ = ["public"]

_Class = TypeVar("_Class", bound=type)


def public(item: _Class) -> _Class:
    """Name a class `soupmix.NAME`, wherever its file lies: in its repr, in tracebacks and in pickles.

    `soupmix.NAME` must give it, which `tests/test_face.py` holds.
    """
    item.__module__ = "soupmix"
    return item

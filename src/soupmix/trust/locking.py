"""One at a time: a lock on a folder itself."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from soupmix.errors import PolicyError
from soupmix.files import holding

__all__ = ["locked"]


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold an exclusive lock on a folder; other processes and threads wait.

    Raises:
        PolicyError: there is no such folder ("missing").
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(holding(folder))
        except OSError as error:
            raise PolicyError(f"{folder} cannot be opened as a folder: {error.strerror}", reason="missing") from error
        yield

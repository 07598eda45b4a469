"""A bounded memory: what was used longest ago is forgotten first (LRU)."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, TypeVar

__all__ = ["Recent"]

_Key = TypeVar("_Key", bound=Hashable)
_Value = TypeVar("_Value")


class Recent(Generic[_Key, _Value]):
    """What was made before, by key. Safe to share between threads; two that miss the same key at the same time both make it.

    Args:
        most: how much is kept in sum. size: how much one value counts; one that alone is too large is kept alone.
    """

    def __init__(self, most: int, size: Callable[[_Value], int] = lambda _: 1) -> None:
        self._most, self._size = most, size
        self._held: OrderedDict[_Key, tuple[_Value, int]] = OrderedDict()
        self._sum = 0
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._held)

    def get(self, key: _Key) -> _Value | None:
        """What was kept under a key, or None."""
        with self._lock:
            found = self._held.get(key)
            if found is None:
                return None
            self._held.move_to_end(key)
            return found[0]

    def keep(self, key: _Key, value: _Value) -> _Value:
        """Keep a value under a key, and forget others for it; gives the value."""
        size = self._size(value)
        with self._lock:
            _, before = self._held.pop(key, (None, 0))
            self._held[key] = value, size
            self._sum += size - before
            while self._sum > self._most and len(self._held) > 1:
                _, (_, gone) = self._held.popitem(last=False)
                self._sum -= gone
        return value

"""A KV cache with room to grow: a step writes its own token instead of copying the whole past."""

from typing import Any

from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

__all__ = ["roomy_cache"]

_ROOM = 64  # tokens


class _RoomyLayer(DynamicLayer):  # type: ignore[misc]  # transformers is not typed
    """`DynamicLayer` whose keys and values [rows, heads, tokens, size] are views of larger buffers.

    Whatever replaces the views (selecting rows, reordering) only costs one copy at the next step.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._rooms: list[Tensor | None] = [None, None]

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append tokens [rows, heads, new, size]; return all keys and all values."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        keys = self._append(0, self.keys, key_states)  # type: ignore[has-type]
        values = self._append(1, self.values, value_states)  # type: ignore[has-type]
        self.keys, self.values = keys, values
        return keys, values

    def _append(self, which: int, past: Tensor, new: Tensor) -> Tensor:
        held = past.shape[-2] if past.numel() else 0
        total = held + new.shape[-2]
        room = self._rooms[which]
        # after rows were selected, `past` no longer lies in its buffer
        if (
            room is None
            or room.shape[-2] < total
            or room.shape[0] != new.shape[0]
            or past.data_ptr() != room.data_ptr()
        ):
            room = new.new_empty(*new.shape[:2], total + _ROOM, new.shape[-1])
            if held:
                room[:, :, :held] = past
            self._rooms[which] = room
        room[:, :, held:total] = new
        return room[:, :, :total]


def roomy_cache(config: Any) -> DynamicCache:
    """The cache that transformers would make for this model, with roomy layers where it has plain ones."""
    cache = DynamicCache(config=config)
    cache.layers = [_RoomyLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache

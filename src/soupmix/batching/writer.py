"""From tokens to text, as it comes: whole characters, and nothing that could still become a stop text."""

from collections.abc import Sequence
from typing import Any

from tokenizers.decoders import DecodeStream

__all__ = ["Writer"]


class Writer:
    """The text of one answer.

    Attributes:
        stopped: whether a stop text came; the answer ends before it.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str]) -> None:
        self._tokenizer, self._stop = tokenizer, tuple(stop)
        self._stream = DecodeStream(skip_special_tokens=True)
        self._tokens: list[int] = []
        self._made, self._held = 0, ""
        self.stopped = False

    def add(self, token: int) -> str:
        """What may be shown after one more token."""
        self._tokens.append(token)
        more = self._stream.step(self._tokenizer.backend_tokenizer, token) or ""
        self._made, self._held = self._made + len(more), self._held + more
        ends = [at for stop in self._stop if (at := self._held.find(stop)) >= 0]
        self.stopped = bool(ends)
        safe = min(ends) if ends else len(self._held) - self._could_stop()
        shown, self._held = self._held[:safe], "" if ends else self._held[safe:]
        return shown

    def rest(self) -> str:
        """What was held back, once the answer has ended otherwise: half a character is shown as a replacement mark."""
        whole: str = self._tokenizer.decode(self._tokens, skip_special_tokens=True)
        return self._held + whole[self._made :]

    def _could_stop(self) -> int:
        """Length of the longest end of the held text that is the beginning of a stop text."""
        longest = max(map(len, self._stop), default=1) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stop):
                return length
        return 0

"""From token ids to text: what an answer adds to its prompt, whole or as it comes, and the bytes of a single token.

A tokenizer's decoder reads tokens together. It may take a space from the first one, make a character of several, or join the
parts of a word; so the text of an answer depends on what stands before it, and the last of it on what comes behind.
"""

import json
import re
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from itertools import takewhile
from typing import Any

from transformers.convert_slow_tokenizer import bytes_to_unicode

from soupmix.errors import BaseModelError

__all__ = ["Continuation", "Detokenizer"]

_LETTERS = {letter: byte for byte, letter in bytes_to_unicode().items()}
_BYTE = re.compile("<0x([0-9A-Fa-f]{2})>")
_MARK = "\N{REPLACEMENT CHARACTER}"
_TAIL, _WINDOW = 8, 16  # tokens that are read again with a new one


class Detokenizer:
    """The text and the bytes of tokens, by a tokenizer of any kind: byte-level, with Metaspace, with byte fallback, in Python.

    The text of an answer is `decode(prompt + answer)` behind `decode(prompt)`, without special tokens, with the spaces that the
    decoder gives ("clean_up_tokenization_spaces" is off). Where the answer completes a character that the prompt began, it is
    what comes behind the part that both have in common. Bytes that make no character are replacement marks, as many as the
    tokenizer makes of them.

    Args:
        tokenizer: that of transformers.

    Attributes:
        special: ids of the tokens that are no part of any text.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer, self._backend = tokenizer, getattr(tokenizer, "backend_tokenizer", None)
        kinds = set(_kinds(getattr(self._backend, "decoder", None)))
        self._spells_bytes = "ByteLevel" in kinds and kinds <= {"ByteLevel", "Sequence", "Fuse"}
        self.is_python = self._backend is None
        self._joins_bytes = self._reads_a_byte() if self.is_python else "ByteFallback" in kinds
        self.special = frozenset(self._special())
        self.data = lru_cache(maxsize=65536)(self._data)

    def text(self, ids: Sequence[int]) -> str:
        """The text of tokens from the first on.

        Raises:
            BaseModelError: the tokenizer fails on its own tokens (reason "cannot-decode").
        """
        try:
            if self._backend is not None:  # what transformers asks too, at a tenth of the time
                return str(self._backend.decode(list(ids), skip_special_tokens=True))
            return str(self._tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))
        except Exception as error:  # a tokenizer in Python raises anything
            raise BaseModelError(
                f"this model's tokenizer cannot read its own tokens: {error}; repair it or choose another model",
                reason="cannot-decode",
            ) from error

    def added(self, prompt: Sequence[int], answer: Sequence[int]) -> str:
        """The text that an answer adds to its prompt."""
        return _behind(self.text(prompt), self.text([*prompt, *answer]))

    def name(self, token: int) -> str:
        """A token as people read it, its spaces included; a part of a character is a replacement mark."""
        return self._written(token) if token in self.special else self.data(token).decode("utf-8", "replace")

    def is_byte(self, token: int) -> bool:
        """Whether it is one of the tokens whose run becomes characters or, if it cannot, a mark for every one of them."""
        return self._joins_bytes and _BYTE.fullmatch(self._written(token)) is not None

    def tail(self, ids: Sequence[int]) -> list[int]:
        """The last tokens that a decoder must read again to read what comes behind them."""
        read = [each for each in ids if each not in self.special]
        start = max(0, len(read) - _TAIL)
        while start > 0 and all(map(self.is_byte, read[start - 1 : start + 1])):
            start -= 1
        return read[start:]

    def _data(self, token: int) -> bytes:
        """What a token adds to a text: its own bytes, its space included; of a special token, and of none that exists, b""."""
        written = self._written(token)
        if token in self.special or not written:
            return b""
        if self._spells_bytes:
            known = all(letter in _LETTERS for letter in written)
            return bytes(_LETTERS[letter] for letter in written) if known else written.encode("utf-8", "replace")
        if self._joins_bytes and (byte := _BYTE.fullmatch(written)):
            return bytes.fromhex(byte[1])
        try:
            return _behind(self.text(self._before), self.text([*self._before, token])).encode("utf-8", "replace")
        except BaseModelError:  # it may be told beside another token, and nobody's answer may end for that
            return written.encode("utf-8", "replace")

    def _written(self, token: int) -> str:
        """As it stands in the vocabulary; "" for an id that is not there."""
        try:
            return self._tokenizer.convert_ids_to_tokens(token) or ""
        except (IndexError, KeyError, OverflowError):
            return ""

    @cached_property
    def _before(self) -> list[int]:
        """A token behind which another one is read as in the middle of a text."""
        for token in range(len(self._tokenizer)):
            if token in self.special or self.is_byte(token):
                continue
            try:
                once, twice = self.text([token]), self.text([token, token])
            except BaseModelError:
                continue
            if once.strip() and _MARK not in twice and twice.startswith(once) and twice != once:
                return [token]
        return []

    def _reads_a_byte(self) -> bool:
        token = self._tokenizer.convert_tokens_to_ids("<0x41>")
        return isinstance(token, int) and self.text([token]).strip() == "A"

    def _special(self) -> Iterator[int]:
        for token in {*self._tokenizer.added_tokens_decoder, *self._tokenizer.all_special_ids}:
            kept = self._tokenizer.decode([token], skip_special_tokens=False, clean_up_tokenization_spaces=False)
            if kept and not self.text([token]):
                yield token


class Continuation:
    """The text of one answer as its tokens come, each part as soon as no later token can change it.

    All parts together are `Detokenizer.added`.

    Args:
        prompt: token ids before the answer.
    """

    def __init__(self, detokenizer: Detokenizer, prompt: Sequence[int]) -> None:
        self._by = detokenizer
        self._before = detokenizer.tail(prompt)
        self._base = detokenizer.text(self._before)
        self._new: list[int] = []  # tokens behind `_before`
        self._text, self._given = "", 0  # what they add, and how many characters of it were given
        self.is_open = False

    def add(self, token: int) -> str:
        """The text that is certain with one more token; it may be empty. Afterwards `is_open` says whether some is not yet."""
        if token in self._by.special:
            return ""
        self._new.append(token)
        self.is_open = True
        if self._by.is_byte(token):
            return ""
        before, self._text = self._text, self._read()
        # a tokenizer in Python may still change what its last token gave, such as "@@" at the end of a part of a word
        sure = _common(before.rstrip(_MARK), self._text) if self._by.is_python else len(self._text.removesuffix(_MARK))
        part = self._give(sure)
        if len(self._new) >= _WINDOW:
            self._move()
        return part

    def rest(self) -> str:
        """The text that was not certain, for an answer that ends here."""
        self._text = self._read()
        return self._give(len(self._text))

    def _read(self) -> str:
        return _behind(self._base, self._by.text([*self._before, *self._new]))

    def _give(self, sure: int) -> str:
        part, self._given = self._text[self._given : sure], max(sure, self._given)
        self.is_open = self._given < len(self._text)
        return part

    def _move(self) -> None:
        """Read again from the last tokens on, so that a token costs the same however long the answer is."""
        held = self._text[self._given :]
        self._before, self._new = self._by.tail([*self._before, *self._new]), []
        self._base = self._by.text(self._before)
        self._base = self._base[: max(0, len(self._base) - len(held))]
        self._text, self._given = held, 0


def _kinds(decoder: Any) -> Iterator[str]:
    """The types of a decoder and of those inside it."""
    if decoder is None:
        return
    waiting = [json.loads(decoder.__getstate__())]
    while waiting:
        one = waiting.pop()
        yield str(one.get("type"))
        waiting += one.get("decoders", [])


def _behind(before: str, whole: str) -> str:
    """What a text has behind another one with which it begins, or behind the part that it begins with."""
    return whole[len(before) if whole.startswith(before) else _common(before, whole) :]


def _common(one: str, other: str) -> int:
    """How many characters two texts begin with alike."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))

"""Answers that are valid against a JSON schema: which tokens may come next, for one row alone.

The grammar of a schema is llguidance's (the extra `json`): https://github.com/guidance-ai/llguidance. A schema is hostile until
it was checked: it is bounded in size, refers to nothing outside itself, and asks for a bounded amount of work a token.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from soupmix.engine.detokenizer import Detokenizer
from soupmix.engine.prompts import Prompts
from soupmix.errors import RecipeError

__all__ = ["Grammar", "Grammars", "Schema", "each_schema", "library"]

Schema = Mapping[str, Any] | str
"""A JSON schema (draft 2020-12, as far as llguidance knows it), as an object or as its text."""

_MOST_TEXT: Final = 1 << 16  # characters of a schema
_MOST_PARTS: Final = (
    1000  # lists and objects in it; the library follows them by recursion, and some 5,000 overflow its stack
)
_FORM: Final = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": ", "lenient": False}
"""As `json.dumps` writes it: with free white space a small model writes line breaks until its answer is cut."""


def each_schema(schema: Schema | Sequence[Schema | None] | None, count: int) -> tuple[Schema | None, ...]:
    """One schema or none for each of so many prompts, from one for all or from as many.

    Raises:
        RecipeError: there are not as many as prompts (reason "lengths").
    """
    given = list(schema) if isinstance(schema, list | tuple) else [schema] * count
    if len(given) != count:
        raise RecipeError(f"{count} prompts need one schema or as many, not {len(given)}", reason="lengths")
    return tuple(given)  # type: ignore[arg-type]  # a list is no schema


class Grammar:
    """What one answer may go on with.

    Attributes:
        allowed: which tokens may come next, [tokens] bool on the CPU; those that end an answer only where it is whole.
    """

    def __init__(self, matcher: Any, size: int) -> None:
        self._matcher, self._size = matcher, size
        self.allowed = self._next()

    def accept(self, token: int) -> None:
        """Go on behind one more token, which was allowed and does not end the answer.

        Raises:
            RecipeError: the schema asks for more work than is done for an answer (reason "schema").
        """
        self._matcher.consume_token(token)
        self.allowed = self._next()

    def _next(self) -> Tensor:
        if not self._matcher.is_error():
            bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
            allowed = np.unpackbits(bits, bitorder="little")[: self._size].astype(bool)
            if allowed.any() and not self._matcher.is_error():
                return torch.from_numpy(allowed)
        raise _refusal(self._matcher.get_error() or "this model has no token to go on with")


class Grammars:
    """Grammars over the tokens of one model.

    Args:
        prompts: what its tokenizer makes of texts. detokenizer: what it makes of tokens. ends: token ids that end an answer,
            asked for when the first schema comes.
    """

    def __init__(self, prompts: Prompts, detokenizer: Detokenizer, ends: Callable[[], frozenset[int]]) -> None:
        self._prompts, self._detokenizer, self._ends = prompts, detokenizer, ends

    def of(self, schema: Schema | None) -> Grammar | None:
        """The grammar of one answer; None of an answer that is free.

        Raises:
            RecipeError: the library is not installed ("no-json-extra").
            RecipeError: it is no JSON schema, one that nothing is valid against, or one that asks for what the library does not
                know or for too much work (reason "schema").
        """
        if schema is None:
            return None
        matcher = library().LLMatcher
        try:
            written = matcher.grammar_from_json_schema(_text(schema), overrides=_FORM)
        except ValueError as error:
            raise _refusal(str(error)) from None
        limits = library().LLParserLimits(max_grammar_size=100_000, verbose_errors=False)
        return Grammar(matcher(self._known, written, log_level=0, limits=limits), self._prompts.size)

    @cached_property
    def _known(self) -> Any:
        """The tokens as the library knows them."""
        size, made = self._prompts.size, library().LLTokenizer
        ends = sorted(each for each in self._ends() if each < size)
        if not ends:
            raise _refusal("this model has no token that ends an answer")
        tokens = [b"" if token in ends else self._detokenizer.data(token) for token in range(size)]
        wrapper = library().TokenizerWrapper(_Vocabulary(tokens, ends, self._prompts))
        return made(wrapper, n_vocab=size, eos_token=ends, slices=made.json_slices())


class _Vocabulary:
    """As llguidance reads it."""

    bos_token_id = None

    def __init__(self, tokens: Sequence[bytes], ends: Sequence[int], prompts: Prompts) -> None:
        self.tokens, self.special_token_ids, self.eos_token_id = tokens, list(ends), ends[0]
        self._prompts = prompts
        self._ids = {data: token for token, data in reversed(list(enumerate(tokens))) if data}
        self._longest = max(map(len, self._ids), default=1)

    def __call__(self, data: bytes) -> list[int]:
        """How the model would write bytes that must come: as its tokenizer does, if that adds nothing, as a leading space."""
        try:
            found = list(self._prompts.tokens(data.decode()))
        except (RecipeError, UnicodeDecodeError):
            found = []
        return found if b"".join(self.tokens[each] for each in found) == data else self._by_length(data)

    def _by_length(self, data: bytes) -> list[int]:
        found, at = list[int](), 0
        while at < len(data):
            part = next((data[at:end] for end in range(at + self._longest, at, -1) if data[at:end] in self._ids), b"")
            if not part:
                return []
            found.append(self._ids[part])
            at += len(part)
        return found


def library() -> Any:
    """The library of grammars. Raises `RecipeError` (reason "no-json-extra") if it is not installed."""
    try:
        import llguidance
    except ModuleNotFoundError as error:
        raise RecipeError(
            "answers are held to a JSON schema by llguidance, which is not installed: pip install 'soupmix[json]', or ask "
            "for JSON in the prompt",
            reason="no-json-extra",
        ) from error
    return llguidance


def _text(schema: Schema) -> str:
    """The text of a schema, whose order of properties is that of the answer."""
    try:
        found = json.loads(schema) if isinstance(schema, str) else schema
        if not isinstance(found, Mapping):
            raise _refusal("it is no object")
        text = json.dumps(found, allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise error if isinstance(error, RecipeError) else _refusal(f"it is no JSON: {error}") from None
    if len(text) > _MOST_TEXT or text.count("[") + text.count("{") > _MOST_PARTS:
        raise _refusal(f"it has more than {_MOST_TEXT} characters, or more than {_MOST_PARTS} lists and objects")
    return text


def _refusal(problem: str) -> RecipeError:
    told = " ".join(problem.removesuffix("<non-verbose/>").split())[:300]
    return RecipeError(
        f"no answer can be held to this JSON schema: {told}; leave that out of the schema, or ask for it in the prompt",
        reason="schema",
    )

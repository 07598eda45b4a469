"""What an adapter learns from: what was asked, the answer that is wanted, and perhaps one that is not."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from soupmix.base import chat_text
from soupmix.base.roles import end_of_answer
from soupmix.engine.positions import positions
from soupmix.engine.prompts import Prompts
from soupmix.errors import RecipeError, TrainingError
from soupmix.evaluate.effect import Contrast
from soupmix.files import digest_parts

__all__ = [
    "Asked",
    "Example",
    "asked_text",
    "check_marks",
    "examples_digest",
    "is_chat",
    "longest_of",
    "messages",
    "prompts_of",
    "token_ids",
]

_LONGEST = 2048  # tokens; the memory that training takes grows with them

Asked = str | tuple[Mapping[str, str], ...]
"""A conversation as messages of "role" and "content"; or a text, which is what one user asks, and for a base without a chat
template a text to go on with."""


@dataclass(frozen=True, slots=True)
class Example:
    """One thing to learn.

    Attributes:
        asked: see `Asked`. chosen: the wanted answer. rejected: another one, "" for none.
        finished: whether the chosen answer ends where its text does; one that was cut teaches no end.
        place: where it was read, for messages; "" if it was made here.
    """

    asked: Asked
    chosen: str
    rejected: str = ""
    finished: bool = True
    place: str = ""

    @property
    def contrast(self) -> Contrast:
        """Both answers, for the teacher-forced margin."""
        return Contrast(self.asked, self.chosen, self.rejected)


def examples_digest(examples: Iterable[Example]) -> str:
    """Hex SHA-256 of what is learned, in order, wherever it was read."""
    parts = {
        f"{number:08d}": json.dumps([each.asked, each.chosen, each.rejected, each.finished])
        for number, each in enumerate(examples)
    }
    return digest_parts("soupmix examples", parts)


def is_chat(tokenizer: Any) -> bool:
    """Whether a tokenizer has a chat template."""
    return tokenizer.chat_template is not None


def _is_plain(tokenizer: Any, asked: Asked) -> bool:
    return isinstance(asked, str) and not is_chat(tokenizer)


@lru_cache(maxsize=1)
def prompts_of(tokenizer: Any) -> Prompts:
    """What a tokenizer makes of prompts when the model answers."""
    return Prompts(tokenizer, len(tokenizer))


def messages(asked: Asked) -> list[dict[str, str]]:
    """As a conversation."""
    return [{"role": "user", "content": asked}] if isinstance(asked, str) else [dict(each) for each in asked]


def asked_text(tokenizer: Any, example: Example) -> str:
    """What the model reads before its answer.

    Raises:
        TrainingError: the chat template does not take the conversation (reason "bad-conversation").
        BaseModelError: as `soupmix.base.chat_text`.
    """
    if _is_plain(tokenizer, example.asked):
        return str(example.asked)
    try:
        return chat_text(tokenizer, messages(example.asked))
    except RecipeError as refusal:
        raise TrainingError(_at(example, str(refusal)), reason="bad-conversation") from refusal


def token_ids(tokenizer: Any, example: Example, most: int, longest: int) -> tuple[list[int], list[int]]:
    """Tokens of what was asked, and of the chosen answer, read apart as when the model answers.

    An answer that ends has its end token, unless it is cut.

    Args:
        most: tokens of an answer. longest: tokens of both together.

    Raises:
        TrainingError: it is too long (reason "too-long"), or as `asked_text`.
    """
    text = asked_text(tokenizer, example)
    if _is_plain(tokenizer, example.asked):
        prompt = list(prompts_of(tokenizer).plain(text))
    else:
        prompt = tokenizer(text, add_special_tokens=False)["input_ids"]
    answer = tokenizer(example.chosen, add_special_tokens=False)["input_ids"]
    answer = (answer + _ends(tokenizer) if example.finished else answer)[:most]
    if len(prompt) + len(answer) > longest:
        said = f"a prompt of {len(prompt)} tokens and an answer of {len(answer)} are more than {longest}; shorten the prompt"
        raise TrainingError(_at(example, said), reason="too-long")
    return prompt, answer


def check_marks(tokenizer: Any, examples: Iterable[Example]) -> None:
    """Refuse texts with which somebody would speak in another role, or end a message.

    Raises:
        TrainingError: an example holds a mark of a role or an end (reason "special-token").
    """
    prompts = prompts_of(tokenizer)
    for each in examples:
        said = [each.chosen, each.rejected, *(message["content"] for message in messages(each.asked))]
        mark = next((found for text in said if (found := prompts.marker(text)) is not None), None)
        if mark is not None:
            message = f"it holds {mark!r}, which marks a role or an end for this model; leave it out"
            raise TrainingError(_at(each, message), reason="special-token")


def longest_of(config: Any) -> int:
    """Most tokens that are learned from at once, given a model's config."""
    return min(_LONGEST, positions(config) or _LONGEST)


def _ends(tokenizer: Any) -> list[int]:
    """The token that ends an answer, if there is one."""
    found = (end_of_answer(tokenizer) if is_chat(tokenizer) else None, tokenizer.eos_token_id)
    return next(([each] for each in found if each is not None), [])


def _at(example: Example, said: str) -> str:
    return f"{example.place}: {said}" if example.place else said

"""From prompts to token ids: a text as it stands, or a conversation by the model's chat template."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import takewhile
from typing import Any

from soupmix.backends.protocol import Message, Tool, ToolUse, Vocabulary
from soupmix.base import chat_text
from soupmix.base.roles import end_of_answer, opening_texts, role_markers
from soupmix.engine.tools import tool_use
from soupmix.errors import BaseModelError, RecipeError

__all__ = ["Prompt", "Prompts", "check_given", "known_tokens"]

Prompt = str | Sequence[Message]


class Prompts:
    """What a tokenizer makes of prompts.

    Args:
        tokenizer: that of transformers. size: the model's token ids are below it.

    Attributes:
        size: as given. vocabulary: with the longest token.
    """

    def __init__(self, tokenizer: Any, size: int) -> None:
        self._tokenizer, self.size = tokenizer, size
        self.vocabulary = Vocabulary(size, max(map(len, tokenizer.get_vocab()), default=1))

    def plain(self, text: str) -> tuple[int, ...]:
        """Token ids of a text as it stands, behind the token that the tokenizer begins every text with, if it does.

        Raises:
            RecipeError: as `tokens`.
        """
        ids = self.tokens(text)
        has_begun = not ids or ids[: len(self._beginning)] == self._beginning
        return ids if has_begun else (*self._beginning, *ids)

    def chat(self, said: Sequence[Message], tools: Sequence[Tool] = ()) -> tuple[int, ...]:
        """Token ids of a conversation, as `Backend.tokens` has them.

        Raises:
            RecipeError: as `tokens` and `rendered`; and there is no chat template ("no-template"), as it is for the request to
                ask otherwise. BaseModelError: the template cannot be used.
        """
        try:
            return self.tokens(self.rendered(said, tools))
        except BaseModelError as error:
            if error.reason != "no-template":
                raise
            raise RecipeError(str(error), reason=error.reason) from error

    def rendered(self, prompt: Prompt, tools: Sequence[Tool] = ()) -> str:
        """A prompt or a conversation by the chat template; a last message of the assistant is an answer that has begun, unless it
        calls tools.

        Raises:
            RecipeError: it is empty (reason "empty-prompt"), or not one that the template takes ("bad-conversation").
            BaseModelError: as `soupmix.base.chat_text`.
        """
        if not prompt:
            raise RecipeError("the prompt is empty; say something", reason="empty-prompt")
        said = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(map(_message, prompt))
        begins = said[-1]["role"] == "assistant" and "tool_calls" not in said[-1]
        begun = said.pop()["content"] if begins else ""
        return chat_text(self._tokenizer, said, tools=tools) + begun

    def filled(self, number: int, prompt: Prompt) -> tuple[int, ...]:
        """Token ids of one of several prompts, of which there must be some. Raises as `rendered` and `tokens`."""
        ids = self.tokens(self.rendered(prompt))
        if not ids:
            raise RecipeError(f"prompt {number} has no token of this model; say something else", reason="empty-prompt")
        return ids

    def tokens(self, text: str) -> tuple[int, ...]:
        """Token ids of a text, and nothing else.

        Raises:
            RecipeError: the tokenizer has no tokens for it (reason "cannot-encode"), or the model none of such a number
                ("no-such-token").
        """
        ids = self._ids(text, special=False)
        if ids and max(ids) >= self.size:
            written = self._tokenizer.convert_ids_to_tokens(max(ids))
            raise RecipeError(
                f"the prompt holds {written!r}, token {max(ids)} of the tokenizer, and this model has {self.size}; leave "
                "it out",
                reason="no-such-token",
            )
        return ids

    @cached_property
    def tool_use(self) -> ToolUse:
        """What the chat template does with tools."""
        return tool_use(self._tokenizer)

    @cached_property
    def markers(self) -> Mapping[str, int]:
        """See `soupmix.base.roles.role_markers`."""
        return role_markers(self._tokenizer)

    def marker(self, text: str) -> str | None:
        """The first mark of a role or an end that a text holds, as it is written or as the tokenizer reads it; None if none."""
        written = next((mark for mark in self.markers if mark in text), None)
        if written is not None:
            return written
        read = set(self._ids(text, special=False))
        return next((mark for mark, token in self.markers.items() if token in read), None)

    def ends(self, generation: Any) -> frozenset[int]:
        """Token ids that end an answer: those that the generation config, the tokenizer and the chat template know of.

        Args:
            generation: a generation config, or None.
        """
        found: list[Any] = [self._tokenizer.eos_token_id, end_of_answer(self._tokenizer)]
        said = getattr(generation, "eos_token_id", None)
        found += said if isinstance(said, list | tuple) else [said]
        return frozenset(each for each in found if isinstance(each, int))

    def bare(self, prompt: tuple[int, ...]) -> int:
        """How many tokens of a prompt run on the bare base in the mode "answer": those before the answer's own part.

        The answer's part begins with the last place where the prompt holds `opening`, the tokens with which the chat template
        begins an answer, so with the mark of the assistant's role; in a prompt that does not hold them (text as it stands, a
        template that opens no answer) with the last token, as that one gives the first of the answer. All tokens from there on
        run on the soup: the opening, an answer that has begun, and the answer. System prompt, earlier turns, the earlier
        answers among them, and the last question run on the base.
        """
        opening = self.opening
        places = range(len(prompt) - len(opening), -1, -1) if opening else ()
        found = (at for at in places if prompt[at : at + len(opening)] == opening)
        return next(found, max(len(prompt) - 1, 0))

    @cached_property
    def opening(self) -> tuple[int, ...]:
        """Token ids that the chat template writes behind a question to begin its answer; () where there is none.

        They are the invocation sequence of Activated LoRA (arXiv 2504.12397).
        """
        try:
            closed, opened = (self._ids(text, special=False) for text in opening_texts(self._tokenizer))
        except RecipeError:
            return ()
        alike = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(closed, opened, strict=False)))
        return opened[alike:]

    @cached_property
    def _beginning(self) -> tuple[int, ...]:
        """What the tokenizer puts before every text, such as a token for the beginning."""
        try:
            bare, whole = self._ids("a", special=False), self._ids("a", special=True)
        except RecipeError:
            return ()
        places = [at for at in range(len(whole)) if whole[at : at + len(bare)] == bare]
        return whole[: places[0]] if bare and places else ()

    def _ids(self, text: str, *, special: bool) -> tuple[int, ...]:
        try:
            return tuple(self._tokenizer(text, add_special_tokens=special)["input_ids"])
        except Exception as error:  # tokenizers raises bare Exception, and a tokenizer in Python anything
            raise RecipeError(
                f"this model's tokenizer has no tokens for the prompt: {error}; say it in other characters",
                reason="cannot-encode",
            ) from error


def known_tokens(model: Any, tokenizer: Any) -> int:
    """How many tokens a model can read."""
    embeddings = model.get_input_embeddings()
    known = getattr(embeddings, "num_embeddings", None) or getattr(model.config.get_text_config(), "vocab_size", None)
    return int(known or len(tokenizer))


def check_given(prompts: Sequence[Prompt], grants: Sequence[object], streams: Sequence[int]) -> None:
    """Raise RecipeError unless there is one of each for every prompt (reason "lengths"), and none is empty ("empty-prompt")."""
    if isinstance(prompts, str) or not isinstance(grants, Sequence):
        raise RecipeError(
            "several are answered at once: give a list of prompts, and a list with a grant for each, as in generate([prompt], "
            "[grant]), which gives a list too",
            reason="lengths",
        )
    for what, given in (("grants", grants), ("streams", streams)):
        if len(prompts) != len(given):
            raise RecipeError(f"{len(prompts)} prompts need as many {what}, not {len(given)}", reason="lengths")
    for number, prompt in enumerate(prompts):
        if not prompt:
            raise RecipeError(f"prompt {number} is empty; say something", reason="empty-prompt")


def _message(said: Any) -> dict[str, Any]:
    if isinstance(said, Mapping) and all(isinstance(said.get(field), str) for field in ("role", "content")):
        return dict(said)
    raise RecipeError(
        f"a message of a conversation is {{'role': TEXT, 'content': TEXT}}, not {said!r:.80}", reason="bad-conversation"
    )

"""OpenAI's newer form, `/v1/responses`, in plain text: what is asked as a conversation, and answers as its objects and events."""

import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from soupmix.backends import Delta
from soupmix.fields import ShortLine
from soupmix.openai.forms import AnswerSoFar, usage
from soupmix.openai.sent import (
    NamedSchema,
    ObjectFormat,
    SchemaFormat,
    Sent,
    Text,
    TextFormat,
    kind_of_format,
)
from soupmix.openai.wire import (
    ChatAsk,
    ChatMessage,
    Metadata,
    Nothing,
    SoupAsk,
    StreamOptions,
    User,
)

__all__ = ["Responding", "ResponsesAsk"]

_MOST_TOKENS, _MOST_ITEMS = 1 << 20, 1000


class _Part(Sent):
    """A part of a message: of the user, or of an answer that is sent back."""

    type: Literal["input_text", "output_text", "text"]
    text: Text
    annotations: Nothing | None = None
    logprobs: Nothing | None = None


def _form(value: object) -> str:
    return "text" if isinstance(value, str) else "more"


Parts = Annotated[list[_Part], Field(min_length=1, max_length=_MOST_ITEMS, fail_fast=True)]


class _Item(Sent):
    """A message. An answer of this server may be sent back as a client holds it."""

    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[Annotated[Text, Tag("text")] | Annotated[Parts, Tag("more")], Discriminator(_form)]
    id: ShortLine | None = None
    phase: None = None
    status: Literal["completed", "incomplete", "in_progress"] | None = None

    def message(self) -> ChatMessage:
        """As chat has it."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return ChatMessage(role=self.role, content=text)


Items = Annotated[list[_Item], Field(min_length=1, max_length=_MOST_ITEMS, fail_fast=True)]


class _SchemaText(NamedSchema):
    """A text that is valid against a JSON schema."""

    type: Literal["json_schema"]


class _TextAsk(Sent):
    """The form of the text."""

    format: (
        Annotated[
            Annotated[TextFormat, Tag("text")]
            | Annotated[ObjectFormat, Tag("json_object")]
            | Annotated[_SchemaText, Tag("json_schema")],
            Discriminator(kind_of_format),
        ]
        | None
    ) = None
    verbosity: Literal["medium"] | None = None


class ResponsesAsk(Sent):
    """`POST /v1/responses`. Nothing is kept between requests: what was said before is sent again."""

    model: Annotated[str, Field(min_length=1, max_length=300)]
    input: Annotated[Annotated[Text, Tag("text")] | Annotated[Items, Tag("more")], Discriminator(_form)]
    instructions: Text | None = None
    soup: SoupAsk | None = None
    max_output_tokens: Annotated[int, Field(ge=1, le=_MOST_TOKENS)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: User | None = None
    background: Literal[False] | None = None
    conversation: None = None
    include: Nothing | None = None
    max_tool_calls: None = None
    metadata: Metadata | None = None
    parallel_tool_calls: bool | None = None
    previous_response_id: None = None
    prompt: None = None
    prompt_cache_key: ShortLine | None = None
    reasoning: None = None
    safety_identifier: ShortLine | None = None
    service_tier: Literal["auto", "default", "flex", "priority", "scale"] | None = None
    store: Literal[False] | None = None
    text: _TextAsk | None = None
    tool_choice: Literal["none", "auto"] | None = None
    tools: Nothing | None = None
    top_logprobs: Literal[0] | None = None
    truncation: Literal["disabled"] | None = None

    def chat(self) -> ChatAsk:
        """The same as a chat."""
        said = [] if self.instructions is None else [ChatMessage(role="system", content=self.instructions)]
        asked = self.input
        said += (
            [ChatMessage(role="user", content=asked)] if isinstance(asked, str) else [each.message() for each in asked]
        )
        return ChatAsk(
            model=self.model,
            messages=said,
            soup=self.soup,
            max_completion_tokens=self.max_output_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            stream=self.stream,
            user=self.user,
            response_format=self._chat_format(),
        )

    def _chat_format(self) -> ObjectFormat | SchemaFormat | None:
        asked = None if self.text is None else self.text.format
        if isinstance(asked, _SchemaText):
            named = NamedSchema(**asked.model_dump(exclude={"type"}, by_alias=True))
            return SchemaFormat(type="json_schema", json_schema=named)
        return asked if isinstance(asked, ObjectFormat) else None


@dataclass(slots=True)
class Responding:
    """One answer while it is written down.

    Attributes:
        ask: what was asked. created: seconds since 1970. soup: what was granted, as JSON.
    """

    ask: ResponsesAsk
    created: int
    soup: Mapping[str, Any]
    _id: str = field(default_factory=lambda: f"resp_{secrets.token_hex(12)}")
    _item: str = field(default_factory=lambda: f"msg_{secrets.token_hex(12)}")
    _count: int = 0

    def whole(self, made: AnswerSoFar) -> dict[str, Any]:
        """The finished answer."""
        is_cut = made.last is not None and made.last.finish == "length"
        counted = usage([made])
        return self._response("incomplete" if is_cut else "completed", [self._message(made.text, is_cut)]) | {
            "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
            "usage": {
                "input_tokens": counted.prompt_tokens,
                "input_tokens_details": {
                    "cached_tokens": counted.prompt_tokens_details.cached_tokens,
                    "cache_write_tokens": 0,
                },
                "output_tokens": counted.completion_tokens,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": counted.total_tokens,
            },
        }

    def opening(self) -> Iterator[dict[str, Any]]:
        """The events before the first text."""
        begun = self._response("in_progress", [])
        yield self._event("response.created", response=begun)
        yield self._event("response.in_progress", response=begun)
        item = {**self._message("", False), "status": "in_progress", "content": []}
        yield self._event("response.output_item.added", output_index=0, item=item)
        yield self._of_part("response.content_part.added", part=_part(""))

    def delta(self, delta: Delta) -> Iterator[dict[str, Any]]:
        """The event of more text, if there is any."""
        if delta.text:
            yield self._of_part("response.output_text.delta", delta=delta.text, logprobs=[])

    def closing(self, made: AnswerSoFar) -> Iterator[dict[str, Any]]:
        """The events behind the last text."""
        whole = self.whole(made)
        yield self._of_part("response.output_text.done", text=made.text, logprobs=[])
        yield self._of_part("response.content_part.done", part=_part(made.text))
        yield self._event("response.output_item.done", output_index=0, item=whole["output"][0])
        yield self._event(f"response.{whole['status']}", response=whole)

    def _response(self, status: str, output: list[dict[str, Any]]) -> dict[str, Any]:
        ask = self.ask
        return {
            "id": self._id,
            "object": "response",
            "created_at": self.created,
            "status": status,
            "error": None,
            "incomplete_details": None,
            "instructions": ask.instructions,
            "max_output_tokens": ask.max_output_tokens,
            "metadata": ask.metadata or {},
            "model": ask.model,
            "output": output,
            "parallel_tool_calls": False,
            "previous_response_id": None,
            "store": False,
            "temperature": ask.temperature,
            "text": {"format": self._format()},
            "tool_choice": "none",
            "tools": [],
            "top_p": ask.top_p,
            "truncation": "disabled",
            "usage": None,
            "soup": self.soup,
        }

    def _format(self) -> dict[str, Any]:
        asked = None if self.ask.text is None else self.ask.text.format
        return {"type": "text"} if asked is None else asked.model_dump(by_alias=True, exclude_none=True)

    def _message(self, text: str, is_cut: bool) -> dict[str, Any]:
        status = "incomplete" if is_cut else "completed"
        return {"id": self._item, "type": "message", "role": "assistant", "status": status, "content": [_part(text)]}

    def _of_part(self, kind: str, **fields: Any) -> dict[str, Any]:
        return self._event(kind, item_id=self._item, output_index=0, content_index=0, **fields)

    def _event(self, kind: str, **fields: Any) -> dict[str, Any]:
        self._count += 1
        return {"type": kind, "sequence_number": self._count - 1, **fields}


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}

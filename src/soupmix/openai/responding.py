"""Answers of `/v1/responses`, OpenAI's newer form, as its objects and events."""

import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from soupmix.backends import Backend, Delta
from soupmix.openai.calls import Call, CallReader, reader_of
from soupmix.openai.forms import AnswerSoFar, usage
from soupmix.openai.items import ResponsesAsk
from soupmix.openai.sent import ToolFunction

__all__ = ["Responding"]


@dataclass(slots=True)
class Responding:
    """One answer while it is written down: its text, then the calls in it, which are told when it has ended.

    Attributes:
        ask: what was asked. created: seconds since 1970. soup: what was granted, as JSON.
        reader: takes the calls out of the text; None: there are none to look for.
    """

    ask: ResponsesAsk
    created: int
    soup: Mapping[str, Any]
    reader: CallReader | None = None
    _id: str = field(default_factory=lambda: f"resp_{secrets.token_hex(12)}")
    _item: str = field(default_factory=lambda: f"msg_{secrets.token_hex(12)}")
    _count: int = 0
    _text: str = ""
    _calls: list[Call] = field(default_factory=list)
    _is_open: bool = False
    _is_read: bool = False

    @classmethod
    def of(cls, ask: ResponsesAsk, created: int, soup: Mapping[str, Any], backend: Backend) -> "Responding":
        """As a request asks for it."""
        read = reader_of(backend, ask.chat())
        return cls(ask, created, soup, None if read is None else read())

    def whole(self, made: AnswerSoFar) -> dict[str, Any]:
        """The finished answer."""
        if not self._is_read:
            self._read(made.text, last=True)
        is_cut = made.last is not None and made.last.finish == "length"
        counted = usage([made])
        return self._response("incomplete" if is_cut else "completed", self._items(is_cut)) | {
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

    def delta(self, delta: Delta) -> Iterator[dict[str, Any]]:
        """The event of more text, if there is any, behind those that begin it."""
        if text := self._read(delta.text, last=delta.finish is not None):
            yield from self._begun()
            yield self._of_part("response.output_text.delta", delta=text, logprobs=[])

    def closing(self, made: AnswerSoFar) -> Iterator[dict[str, Any]]:
        """The events behind the last text."""
        whole = self.whole(made)
        for place, item in enumerate(whole["output"]):
            if item["type"] == "message":
                yield from self._begun()
                yield self._of_part("response.output_text.done", text=self._text, logprobs=[])
                yield self._of_part("response.content_part.done", part=_part(self._text))
            else:
                yield from self._called(place, item)
            yield self._event("response.output_item.done", output_index=place, item=item)
        yield self._event(f"response.{whole['status']}", response=whole)

    def _read(self, text: str, *, last: bool) -> str:
        """What is to be shown of more text."""
        self._is_read = True
        if self.reader is not None:
            text, calls = self.reader.feed(text, last=last)
            self._calls += calls
        self._text += text
        return text

    def _begun(self) -> Iterator[dict[str, Any]]:
        """The events before the first text."""
        if not self._is_open:
            self._is_open = True
            item = {**self._message("", False), "status": "in_progress", "content": []}
            yield self._event("response.output_item.added", output_index=0, item=item)
            yield self._of_part("response.content_part.added", part=_part(""))

    def _called(self, place: int, item: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """The events of a call before it is done: its arguments come at once."""
        begun = {**item, "status": "in_progress", "arguments": ""}
        yield self._event("response.output_item.added", output_index=place, item=begun)
        said = {"item_id": item["id"], "output_index": place}
        yield self._event("response.function_call_arguments.delta", delta=item["arguments"], **said)
        yield self._event(
            "response.function_call_arguments.done", arguments=item["arguments"], name=item["name"], **said
        )

    def _items(self, is_cut: bool) -> list[dict[str, Any]]:
        """The text, unless there are calls and none, and the calls."""
        told = [call.told(self._id, 0, place) for place, call in enumerate(self._calls)]
        calls = [
            {
                "id": each["id"].replace("call_", "fc_"),
                "type": "function_call",
                "call_id": each["id"],
                **each["function"],
                "status": "completed",
            }
            for each in told
        ]
        return [*([self._message(self._text, is_cut)] if self._text or not calls else []), *calls]

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
            "parallel_tool_calls": bool(ask.tools) and ask.parallel_tool_calls is not False,
            "previous_response_id": None,
            "store": False,
            "temperature": ask.temperature,
            "text": {"format": self._format()},
            "tool_choice": self._choice(),
            "tools": [each.model_dump(include={"type", *ToolFunction.model_fields}) for each in ask.tools or ()],
            "top_p": ask.top_p,
            "truncation": "disabled",
            "usage": None,
            "soup": self.soup,
        }

    def _choice(self) -> object:
        said = self.ask.tool_choice
        return said.model_dump() if isinstance(said, BaseModel) else said or ("auto" if self.ask.tools else "none")

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

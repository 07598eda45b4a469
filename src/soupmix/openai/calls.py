"""Tools: what clients say of them, and the calls of tools in an answer's text, read as they come."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import Any

from soupmix.backends import Backend, CallForm, Tool
from soupmix.errors import RecipeError
from soupmix.files import strict_json
from soupmix.openai.wire import ChatAsk, ChatMessage

__all__ = ["Call", "CallReader", "call_schema", "check_tools", "message_of", "reader_of", "texts_of", "tools_of"]

_NO_ARGUMENTS = {"type": "object", "properties": {}, "additionalProperties": False}


def tools_of(ask: ChatAsk) -> list[Tool]:
    """The tools that the model is told of: none where none may be called."""
    if ask.tool_choice == "none":
        return []
    return [each.model_dump(exclude_none=True) for each in ask.tools or ()]


def check_tools(backend: Backend, ask: ChatAsk) -> None:
    """Raise `RecipeError` if the model's template has no place for what is said of tools (reason "no-tools").

    Raises:
        RecipeError: also if a call is asked for that cannot be made (reason "no-such-tool").
    """
    use = backend.tool_use
    if _is_forced(ask) and not _callable(ask):
        named = ask.chosen_tool()
        raise RecipeError(
            f"tool_choice asks for a call{'' if named is None else f' of {named!r}'}, and tools has "
            f"{', '.join(_names(ask)) or 'none'}; send the tool in tools, or another tool_choice",
            reason="no-such-tool",
        )
    if tools_of(ask) and not use.told:
        raise RecipeError(
            "this model's chat template has no place for tools, so it cannot be told of any; leave tools out, or choose a "
            "model that was trained to call them",
            reason="no-tools",
        )
    if not use.answered and any(each.role == "tool" or each.tool_calls for each in ask.messages):
        raise RecipeError(
            "this model's chat template has no place for calls of tools and what they gave; say it in a user's message",
            reason="no-tools",
        )


def call_schema(backend: Backend, ask: ChatAsk) -> str | None:
    """The JSON schema of an answer that has to be a call, as text; None: it may be anything.

    Raises:
        RecipeError: what a tool says of its arguments is no object, or nested too deeply (reason "schema").
    """
    if not _is_forced(ask):
        return None
    key, tools = _key(backend), _callable(ask)
    calls = [_as_schema(each["function"], key, f"#/anyOf/{place}") for place, each in enumerate(tools)]
    return json.dumps({"anyOf": calls})


def reader_of(backend: Backend, ask: ChatAsk) -> Callable[[], "CallReader"] | None:
    """What makes a reader of the calls in an answer; None: there are none to be read."""
    if _is_forced(ask):
        chosen = [each["function"]["name"] for each in _callable(ask)]
        return partial(CallReader, CallForm("", "", _key(backend)), chosen, several=False)
    told, known = backend.tool_use.form, _names(ask)
    return partial(CallReader, told, known, several=ask.parallel_tool_calls is not False) if told and known else None


def _is_forced(ask: ChatAsk) -> bool:
    return ask.tool_choice == "required" or ask.chosen_tool() is not None


def _names(ask: ChatAsk) -> list[str]:
    return [each["function"]["name"] for each in tools_of(ask)]


def _callable(ask: ChatAsk) -> list[Tool]:
    """The tools of which one has to be called."""
    named = ask.chosen_tool()
    return [each for each in tools_of(ask) if named in (None, each["function"]["name"])]


def _key(backend: Backend) -> str:
    form = backend.tool_use.form
    return "arguments" if form is None else form.arguments


def _as_schema(function: Mapping[str, Any], key: str, place: str) -> dict[str, Any]:
    """The JSON schema of a call, where it stands in a larger one: references within its own schema follow it."""
    said = function.get("parameters") or _NO_ARGUMENTS
    if said.get("type", "object") != "object":
        raise RecipeError(
            f"the parameters of the tool {function['name']!r} are no JSON schema of an object; arguments are one",
            reason="schema",
        )

    def moved(part: dict[str, Any]) -> dict[str, Any]:
        ref = part.get("$ref")
        if isinstance(ref, str) and ref.startswith("#"):
            return {**part, "$ref": f"{place}/properties/{key}{ref[1:]}"}
        return part

    try:
        own = json.loads(json.dumps({"type": "object", **said}), object_hook=moved)
    except RecursionError:
        raise RecipeError(
            f"the parameters of the tool {function['name']!r} are nested too deeply; write them flatter",
            reason="schema",
        ) from None
    whole = {"name": {"const": function["name"]}, key: own}
    return {"type": "object", "properties": whole, "required": ["name", key], "additionalProperties": False}


def message_of(said: ChatMessage, role: str) -> dict[str, Any]:
    """A message as templates take it. Raises `RecipeError` if it makes no sense (reason "bad-conversation")."""
    if said.content is None and not said.tool_calls:
        raise RecipeError(
            "a message has no content; only one that calls tools may have none", reason="bad-conversation"
        )
    made: dict[str, Any] = {"role": role, "content": said.text()}
    if said.tool_calls:
        if role != "assistant":
            raise RecipeError(
                f"a message of the {role} calls tools; only the assistant does", reason="bad-conversation"
            )
        made["tool_calls"] = [
            {"id": each.id, "type": "function", "function": {"name": each.function.name, "arguments": arguments}}
            for each, arguments in ((each, _arguments(each.function.arguments)) for each in said.tool_calls)
        ]
    if said.tool_call_id is not None:
        made["tool_call_id"] = said.tool_call_id
    if role == "tool" and said.name is not None:
        made["name"] = said.name
    return made


def texts_of(value: object) -> Iterator[str]:
    """Every text in a tool, or in the calls of a message: what reaches the model of it."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, held in value.items():
            yield str(key)
            yield from texts_of(held)
    elif isinstance(value, list | tuple):
        for held in value:
            yield from texts_of(held)


def _arguments(text: str) -> dict[str, Any]:
    try:
        found = strict_json(text or "{}")
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise RecipeError(
            f"the arguments of a call are {text!r:.80}; they must be the text of a JSON object",
            reason="bad-conversation",
        )
    return found


@dataclass(frozen=True, slots=True)
class Call:
    """A tool that an answer calls: its name, and its arguments as the text of a JSON object."""

    name: str
    arguments: str

    def told(self, answer: str, number: int, place: int) -> dict[str, Any]:
        """As clients hear of it; `answer`, the number of the choice and the call's place make its id."""
        made = sha256(f"{answer} {number} {place}".encode()).hexdigest()[:24]
        return {
            "id": f"call_{made}",
            "type": "function",
            "function": {"name": self.name, "arguments": self.arguments},
        }


class CallReader:
    """The text of one answer as it comes, apart from the calls in it. A call is told when it is whole.

    What looks like a call and is none (another form, a tool that was not named, an answer that is cut) is text.

    Args:
        form: how the model writes calls. names: of the tools. several: whether an answer may call more than one.

    Attributes:
        count: calls so far.
    """

    def __init__(self, form: CallForm, names: Sequence[str], *, several: bool) -> None:
        self._form, self._names, self._several = form, frozenset(names), several
        self._held, self._inside, self._is_text, self.count = "", False, False, 0

    def feed(self, text: str, *, last: bool) -> tuple[str, list[Call]]:
        """More of the text, and whether it is all: what is to be shown, and the calls that are whole."""
        self._held += text
        shown, calls = (self._tagged if self._form.opening else self._bare)(last)
        found = calls if self._several else calls[: max(0, 1 - self.count)]
        self.count += len(found)
        return shown, found

    def _bare(self, last: bool) -> tuple[str, list[Call]]:
        """The object is the whole answer: whatever begins as one is held to its end."""
        may_be = not self._is_text and self._held.lstrip()[:1] in ("", "{")
        if may_be and not last:
            return "", []
        call = self._call(self._held) if may_be else None
        text, self._held, self._is_text = self._held, "", True
        return ("", [call]) if call else (text, [])

    def _tagged(self, last: bool) -> tuple[str, list[Call]]:
        shown, calls = "", list[Call]()
        while True:
            mark = self._form.closing if self._inside else self._form.opening
            at = self._held.find(mark)
            if at < 0:
                break
            part, self._held = self._held[:at], self._held[at + len(mark) :]
            if not self._inside:
                shown += part.rstrip() if part.strip() else ""
            elif (call := self._call(part)) is not None:
                calls.append(call)
            else:
                shown += f"{self._form.opening}{part}{self._form.closing}"
            self._inside = not self._inside
        return shown + self._rest(last, bool(calls)), calls

    def _rest(self, last: bool, called: bool) -> str:
        """What is shown of the text behind the last mark."""
        if last:
            text, self._held = self._held, ""
            if self._inside:
                return self._form.opening + text
            return text if text.strip() or not (called or self.count) else ""
        if self._inside:
            return ""
        sure = len(self._held.rstrip())  # white space before a call is none of the text
        for size in range(min(len(self._form.opening) - 1, sure), 0, -1):
            if self._form.opening.startswith(self._held[sure - size : sure]):
                sure = len(self._held[: sure - size].rstrip())
                break
        text, self._held = self._held[:sure], self._held[sure:]
        return text

    def _call(self, text: str) -> Call | None:
        try:
            found = strict_json(text.strip())
        except (ValueError, RecursionError):
            return None
        if not isinstance(found, dict) or found.keys() - {"name", "type", "id", self._form.arguments}:
            return None
        name, arguments = found.get("name"), found.get(self._form.arguments, {})
        if not isinstance(name, str) or name not in self._names or not isinstance(arguments, dict):
            return None
        return Call(name, json.dumps(arguments, ensure_ascii=False))

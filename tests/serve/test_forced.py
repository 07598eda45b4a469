"""`tool_choice` required, or of one tool: the answer is a call, and its arguments are valid against the tool's schema."""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import jsonschema
import openai
import pytest

from soupmix.backends import Limits
from soupmix.backends.local import LocalBackend
from soupmix.base import Base
from soupmix.openai.calls import call_schema
from soupmix.openai.wire import ChatAsk
from soupmix.store import Store
from tests.support.echo_backend import EchoBackend
from tests.support.serving import MODEL, Running
from tests.support.tool_templates import BARE, ODD, TAGGED

Start = Callable[..., AbstractContextManager[Running]]
SKY: list[Any] = [{"role": "user", "content": "Why is the sky blue?"}]
TOWN = {"$defs": {"town": {"enum": ["Oslo", "Rome"]}}, "properties": {"town": {"$ref": "#/$defs/town"}}}
WEATHER: dict[str, Any] = {
    "name": "weather",
    "parameters": {"type": "object", **TOWN, "required": ["town"], "additionalProperties": False},
}
NOW: dict[str, Any] = {"name": "now"}
TOOLS: list[Any] = [{"type": "function", "function": each} for each in (WEATHER, NOW)]
NAMED: Any = {"type": "function", "function": {"name": "weather"}}


@pytest.fixture(scope="module", params=[TAGGED, BARE, ODD], ids=["tagged", "bare", "odd"])
def calling(
    request: pytest.FixtureRequest,
    start: Start,
    tiny_base: Base,
    pico_store: Store,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Running]:
    """A server whose model is told of tools, and writes calls in this form or one that is not known."""
    path: Path = tmp_path_factory.mktemp("template") / "tools.jinja"
    path.write_text(request.param.replace("<|im_start|>", "").replace("<|im_end|>", ""))
    base, limits = tiny_base.with_chat_template(path), Limits(rows=4, length=512)
    with start(backend=lambda: LocalBackend.open(base, pico_store, dtype="fp32", limits=limits)) as made:
        yield made


def check(function: Any, names: tuple[str, ...]) -> None:
    assert function.name in names
    arguments = json.loads(function.arguments)
    if function.name == "weather":
        jsonschema.validate(arguments, WEATHER["parameters"])
    else:
        assert arguments == {}


@pytest.mark.parametrize(
    ("choice", "names"), [("required", ("weather", "now")), (NAMED, ("weather",))], ids=["any", "one"]
)
def test_the_answer_is_a_call_whole_and_streamed(calling: Running, choice: Any, names: tuple[str, ...]) -> None:
    create = calling.openai().chat.completions.create
    asked: dict[str, Any] = {
        "model": MODEL, "messages": SKY, "tools": TOOLS, "tool_choice": choice, "max_tokens": 120, "temperature": 1, "seed": 3,
    }  # fmt: skip
    for answer in create(**asked, n=3).choices:
        assert (answer.finish_reason, answer.message.content) == ("tool_calls", None)
        (call,) = answer.message.tool_calls or ()
        check(call.function, names)
    chunks = [each.choices[0] for each in create(**asked, stream=True)]
    (streamed,) = [call for each in chunks for call in each.delta.tool_calls or ()]
    check(streamed.function, names)
    assert "".join(each.delta.content or "" for each in chunks) == ""
    assert chunks[-1].finish_reason == "tool_calls"
    newer: dict[str, Any] = {"tool_choice": choice if choice == "required" else {"type": "function", "name": "weather"}}
    made = calling.openai().responses.create(
        model=MODEL, input="Why?", tools=[{"type": "function", **each} for each in (WEATHER, NOW)], **newer
    )  # type: ignore[call-overload]
    (item,) = made.output
    check(item, names)
    assert made.to_dict()["tool_choice"] == newer["tool_choice"]


def test_an_answer_that_is_cut_is_no_call(calling: Running) -> None:
    cut = calling.openai().chat.completions.create(
        model=MODEL, messages=SKY, tools=TOOLS, tool_choice="required", max_tokens=5
    )
    assert (cut.choices[0].finish_reason, cut.choices[0].message.tool_calls) == ("length", None)
    assert (cut.choices[0].message.content or "").startswith('{"nam')


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"tools": []}, "no-such-tool", "asks for a call, and tools has none; send the tool"),
    ({"tool_choice": {"type": "function", "function": {"name": "x"}}}, "no-such-tool", "of 'x', and tools has weather, now;"),
    ({"tool_choice": "always"}, "bad-request", 'send "auto", "none", "required", or {"type": "function"'),
    ({"tool_choice": {"type": "custom"}}, "bad-request", 'send "auto", "none", "required", or {"type": "function"'),
    ({"tools": [{"type": "function", "function": {"name": "x", "parameters": {"type": "array"}}}]}, "schema", "of an object"),
    ({"tools": [{"type": "function", "function": {"name": "x", "parameters": {"not": {}}}}]}, "schema", "JSON schema: "),
]  # fmt: skip


@pytest.mark.parametrize(("given", "code", "said"), WRONG, ids=[said[:20] for _, _, said in WRONG])
def test_what_cannot_be_called_is_a_sentence(calling: Running, given: dict[str, Any], code: str, said: str) -> None:
    asked = {"model": MODEL, "messages": SKY, "tools": TOOLS, "tool_choice": "required", **given}
    with pytest.raises(openai.BadRequestError) as refused:
        calling.openai().chat.completions.create(**asked)  # type: ignore[call-overload]
    assert said in refused.value.message
    assert refused.value.param in (None, "tool_choice")
    assert code == "bad-request" or refused.value.code == code


def test_a_backend_that_holds_nothing_to_a_schema_says_so(start: Start) -> None:
    with start(backend=EchoBackend) as echo, pytest.raises(openai.BadRequestError, match="held to no schema"):
        echo.openai().chat.completions.create(model=MODEL, messages=SKY, tools=TOOLS, tool_choice="required")


def test_references_lead_where_they_led(tiny_base: Base) -> None:
    """Each call of a schema of calls is valid exactly if its arguments are valid against the tool's own."""
    ask = ChatAsk.model_validate({"model": "m", "messages": SKY, "tools": TOOLS, "tool_choice": "required"})
    whole = json.loads(call_schema(EchoBackend(), ask) or "")
    for town, is_valid in (("Oslo", True), ("Bonn", False)):
        call = {"name": "weather", "arguments": {"town": town}}
        assert jsonschema.Draft202012Validator(whole).is_valid(call) is is_valid
    assert not jsonschema.Draft202012Validator(whole).is_valid({"name": "now", "arguments": {"town": "Oslo"}})

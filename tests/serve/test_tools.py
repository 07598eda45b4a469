"""Tools: told of by the base's own template, and their calls read from answers, whole and streamed."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import openai
import pytest
from transformers import AutoTokenizer

from soupmix.backends import CallForm, ToolUse
from soupmix.base import Base
from soupmix.engine.prompts import Prompts
from soupmix.engine.tools import tool_use
from soupmix.openai.calls import Call, CallReader
from tests.support.echo_backend import EchoBackend
from tests.support.serving import MODEL, Running
from tests.support.tool_templates import BARE, ODD, TAGGED

Start = Callable[..., AbstractContextManager[Running]]
SKY: list[Any] = [{"role": "user", "content": "Why is the sky blue?"}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a town",
        "parameters": {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]},
    },
}
OSLO = '<tool_call>\n{"name": "weather", "arguments": {"town": "Oslo"}}\n</tool_call>'


def speaking(base: Base, template: Any) -> Any:
    """A tokenizer with a chat template, and with its marks."""
    tokenizer = AutoTokenizer.from_pretrained(base.folder)
    tokenizer.add_tokens(["<|im_start|>", "<|im_end|>"], special_tokens=True)
    tokenizer.chat_template = template
    return tokenizer


def read(text: str, size: int, form: CallForm, *, several: bool = True) -> tuple[str, list[Call]]:
    """All that is shown, and all calls, of a text that comes in parts of so many characters."""
    reader, shown, calls = CallReader(form, ["weather", "time"], several=several), "", list[Call]()
    for start in range(0, len(text), size):
        more, found = reader.feed(text[start : start + size], last=False)
        shown, calls = shown + more, calls + found
    more, found = reader.feed("", last=True)
    return shown + more, calls + found


TAGS, OBJECT = CallForm("<tool_call>", "</tool_call>", "arguments"), CallForm("", "", "parameters")
CASES: list[tuple[CallForm, str, str, list[Call]]] = [
    (TAGS, OSLO, "", [Call("weather", '{"town": "Oslo"}')]),
    (TAGS, f"Let me look.\n{OSLO}\n{OSLO}", "Let me look.", [Call("weather", '{"town": "Oslo"}')] * 2),
    (TAGS, '<tool_call>{"name": "time"}</tool_call> there', " there", [Call("time", "{}")]),
    (TAGS, "a < b <tool_cal> \n", "a < b <tool_cal> \n", []),
    (TAGS, " plain ", " plain ", []),
    (TAGS, OSLO[:-3], OSLO[:-3], []),
    (TAGS, OSLO.replace("weather", "other"), OSLO.replace("weather", "other"), []),
    (TAGS, OSLO.replace('"Oslo"', "NaN"), OSLO.replace('"Oslo"', "NaN"), []),
    (TAGS, OSLO.replace("{", "["), OSLO.replace("{", "["), []),
    (OBJECT, ' {"name": "time", "parameters": {"zone": "ü"}}', "", [Call("time", '{"zone": "ü"}')]),
    (OBJECT, 'It is {"name": "time"}', 'It is {"name": "time"}', []),
    (OBJECT, '{"name": "time"} and more', '{"name": "time"} and more', []),
    (OBJECT, '{"name": "time", "arguments": {}}', '{"name": "time", "arguments": {}}', []),
]


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize(("form", "text", "shown", "calls"), CASES)
def test_calls_are_read_however_the_text_comes(
    form: CallForm, text: str, shown: str, calls: list[Call], size: int
) -> None:
    assert read(text, size, form) == (shown, calls)


@pytest.mark.parametrize("size", [5, 1000])
def test_where_only_one_is_wanted_one_is_read(size: int) -> None:
    assert len(read(OSLO * 3, size, TAGS, several=False)[1]) == 1


@pytest.mark.parametrize(
    ("template", "use"),
    [
        (TAGGED, ToolUse(True, True, TAGS)),
        (BARE, ToolUse(True, True, OBJECT)),
        (ODD, ToolUse(True, True, None)),
        ("{{ messages[0].content }}", ToolUse()),
        ("{% if tools %}{{ raise_exception('no') }}{% endif %}{{ messages[0].content }}", ToolUse()),
        ("{{ 3 / 0 }}", ToolUse()),
    ],
    ids=["tagged", "bare", "odd", "none", "refusing", "broken"],
)
def test_what_a_template_does_with_tools_is_found_by_trying_it(tiny_base: Base, template: str, use: ToolUse) -> None:
    assert tool_use(speaking(tiny_base, template)) == use


def test_a_conversation_with_tools_is_what_transformers_makes_of_it(tiny_base: Base) -> None:
    tokenizer = speaking(tiny_base, {"default": "{{ messages[0].content }}", "tool_use": TAGGED})
    function = {"name": "weather", "arguments": {"town": "Oslo <&>"}}
    talk = [
        *SKY,
        {"role": "assistant", "content": "", "tool_calls": [{"id": "a", "type": "function", "function": function}]},
        {"role": "tool", "content": "rain", "tool_call_id": "a"},
    ]
    there = tokenizer.apply_chat_template(talk, tools=[WEATHER], tokenize=False, add_generation_prompt=True)
    assert Prompts(tokenizer, 300).rendered(talk, [WEATHER]) == there
    assert Prompts(tokenizer, 300).rendered(SKY) == SKY[0]["content"]


def test_marks_that_a_template_writes_around_calls_are_marks(tiny_base: Base) -> None:
    """Where they are tokens: with them somebody could pose as a tool."""
    tokenizer = speaking(tiny_base, TAGGED)
    tokenizer.add_tokens(["<tool_response>", "</tool_response>"])
    prompts = Prompts(tokenizer, 400)
    assert prompts.marker("so <tool_response> it is") == "<tool_response>"
    assert prompts.marker("so it is") is None


@pytest.fixture(scope="module")
def echo(start: Start) -> Any:
    """A backend whose answer is what was said: so a person can make it call."""
    with start(backend=EchoBackend) as made:
        yield made


def test_a_call_is_a_call_whole_and_streamed(echo: Running) -> None:
    create = echo.openai().chat.completions.create
    asked: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": OSLO}], "tools": [WEATHER]}
    (choice,) = create(**asked).choices
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", "user:")
    (call,) = choice.message.tool_calls or ()
    assert call.type == "function"
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"town": "Oslo"})
    chunks = [each.choices[0] for each in create(**asked, stream=True)]
    (streamed,) = [call for each in chunks for call in each.delta.tool_calls or ()]
    assert streamed.index == 0
    assert streamed.function is not None
    assert (streamed.function.name, streamed.function.arguments) == ("weather", call.function.arguments)
    assert "".join(each.delta.content or "" for each in chunks) == "user:"
    assert chunks[-1].finish_reason == "tool_calls"
    for none in ({"tool_choice": "none"}, {"tools": []}):
        (plain,) = create(**{**asked, **none}).choices
        assert plain.finish_reason == "stop"
        assert plain.message.content == f"user: {OSLO}\n"
        assert plain.message.tool_calls is None


def test_an_answer_that_calls_goes_back_as_the_client_holds_it(echo: Running) -> None:
    create = echo.openai().chat.completions.create
    first = create(model=MODEL, messages=[{"role": "user", "content": OSLO}], tools=[WEATHER])
    message: Any = first.choices[0].message
    talk: list[Any] = [*SKY, message.model_dump()]
    talk.append({"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "rain"})
    again = create(model=MODEL, messages=talk, tools=[WEATHER])
    assert (again.choices[0].message.content or "").endswith("tool: rain\n")
    talk[1]["content"] = None
    assert create(model=MODEL, messages=talk, tools=[WEATHER]).choices


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools.0.function.name: must be"),
    ({"tools": [{"type": "web_search"}]}, "tools.0.function: must be"),
    ({"tools": [{**WEATHER, "function": {**WEATHER["function"], "strict": True}}]}, "held to no schema"),
    ({"messages": [{"role": "user"}]}, "has no content"),
    ({"messages": [{"role": "function", "name": "f", "content": "x"}]}, "sent as a tool's message"),
    (
        {
            "messages": [
                {
                    "role": "assistant",
                    "tool_calls": [{"id": "a", "type": "function", "function": {"name": "weather", "arguments": "[]"}}],
                }
            ]
        },
        "must be the text of a JSON object",
    ),
    ({"tools": [{**WEATHER, "function": {"name": "x", "description": "<|end|>"}}]}, "leave it out"),
]


@pytest.mark.parametrize(("given", "said"), WRONG, ids=[said[:30] for _, said in WRONG])
def test_what_makes_no_sense_of_tools_is_a_sentence(echo: Running, given: dict[str, Any], said: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        echo.openai().chat.completions.create(**{"model": MODEL, "messages": SKY, "tools": [WEATHER], **given})  # type: ignore[call-overload]
    assert said in refused.value.message


def test_a_base_without_a_place_for_tools_says_so(server: Running) -> None:
    create = server.openai().chat.completions.create
    result = {"role": "tool", "tool_call_id": "a", "content": "rain"}
    for given in ({"messages": SKY, "tools": [WEATHER]}, {"messages": [*SKY, result]}):
        with pytest.raises(openai.BadRequestError, match="no place for") as refused:
            create(model=MODEL, **given)  # type: ignore[call-overload]
        assert refused.value.code == "no-tools"
    assert create(model=MODEL, messages=SKY, tools=[WEATHER], tool_choice="none", max_tokens=2).choices
    assert server.openai().models.list().data[0].tools is None  # type: ignore[attr-defined]

"""`/v1/responses` as the unmodified client asks it; and every answer is one of OpenAI's own types, field by field."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import openai
import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response

from soupmix.backends import Delta
from soupmix.openai.calls import CallReader
from soupmix.openai.forms import AnswerSoFar
from soupmix.openai.items import ResponsesAsk
from soupmix.openai.responding import Responding
from tests.support.echo_backend import EchoBackend
from tests.support.serving import MODEL, Running

Start = Callable[..., AbstractContextManager[Running]]
NOW = '<tool_call>{"name": "weather"}</tool_call>'
OSLO = '<tool_call>{"name": "weather", "arguments": {"town": "Oslo"}}</tool_call>'
WEATHER: Any = {"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": False}
CALLED, SAID = ("function_call", "weather", "{}"), {"name", "arguments", "status", "role"}
SOUP = {"soup": {"weights": {"calm": 0.5}}}


@pytest.fixture(scope="module")
def echo(start: Start) -> Iterator[Running]:
    with start(backend=EchoBackend) as made:
        yield made


def test_a_response_is_the_answer_of_a_chat(echo: Running) -> None:
    client = echo.openai()
    made = client.responses.create(model=MODEL, input="hi", instructions="be kind", extra_body=SOUP)
    assert made.output_text == "system: be kind\nuser: hi\n"
    assert (made.status, made.usage.input_tokens, made.usage.output_tokens) == ("completed", 25, 25)
    assert made.soup["granted"] == {"calm": "0.5"}
    going_on = [
        {"role": "user", "content": "hi"},
        *(each.model_dump() for each in made.output),
        {"role": "user", "content": "ho"},
    ]
    again = client.responses.create(model=MODEL, input=going_on)
    assert again.output_text == "user: hi\nassistant: system: be kind\nuser: hi\n\nuser: ho\n"
    cut = client.responses.create(model=MODEL, input="hi", max_output_tokens=4)
    assert (cut.output_text, cut.status, cut.incomplete_details.reason) == ("user", "incomplete", "max_output_tokens")


def test_a_stream_is_the_whole_response_in_parts(echo: Running) -> None:
    with echo.openai().responses.stream(model=MODEL, input="hi") as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert (
        "".join(each.delta for each in events if each.type == "response.output_text.delta")
        == final.output_text
        == "user: hi\n"
    )
    assert [each.sequence_number for each in events if hasattr(each, "sequence_number")] == list(range(len(events)))
    assert (events[0].type, events[-1].type) == ("response.created", "response.completed")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"previous_response_id": "resp_1"}, "nothing is kept between requests"),
        ({"store": True}, "answers are not kept here"),
        ({"tools": [{"type": "web_search"}]}, "in /v1/responses [{"),
        ({"tools": [{**WEATHER, "strict": True}]}, "held to no schema"),
        ({"tools": [WEATHER], "tool_choice": "always"}, 'send "auto", "none", "required"'),
        (
            {"input": [{"type": "function_call", "call_id": "a", "name": "f", "arguments": "[]"}]},
            "text of a JSON object",
        ),
        ({"input": [{"type": "function_call_output", "call_id": "a"}]}, "is missing"),
        ({"input": [{"type": "reasoning", "summary": []}]}, "no such field"),
        ({"reasoning": {"effort": "high"}}, "does not think"),
        ({"input": []}, "must have at least 1 entry"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
            "images are not looked at",
        ),
        ({"text": {"format": {"type": "xml"}}}, "must be 'text'"),
        ({"text": {"format": {"type": "json_object"}}}, "held to no schema"),
        ({"max_output_tokens": 0}, "must be 1 or more"),
    ],
)
def test_what_cannot_be_done_is_said(echo: Running, given: dict[str, Any], said: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        echo.openai().responses.create(**{"model": MODEL, "input": "hi", **given})
    assert said in refused.value.body["message"]  # type: ignore[index]


def test_calls_of_tools_are_items_whole_and_streamed(echo: Running) -> None:
    client = echo.openai()
    asked: dict[str, Any] = {"model": MODEL, "input": f"hm {NOW}{NOW}", "tools": [WEATHER]}
    made = client.responses.create(**asked)
    text, first, second = made.output
    assert (text.type, made.output_text, made.status) == ("message", "user: hm", "completed")
    assert [(each.type, each.name, each.arguments) for each in (first, second)] == [CALLED, CALLED]
    assert first.call_id != second.call_id
    (_, only) = client.responses.create(**asked, parallel_tool_calls=False).output
    assert only.name == "weather"
    with client.responses.stream(**asked) as stream:
        events, final = list(stream), stream.get_final_response()
    assert [(each.type, each.model_dump(include=SAID)) for each in final.output] == [
        (each.type, each.model_dump(include=SAID)) for each in made.output
    ]
    done = [each.arguments for each in events if each.type == "response.function_call_arguments.done"]
    assert done == [CALLED[2]] * 2
    for given in ({"tool_choice": "none"}, {"tools": []}):
        (plain,) = client.responses.create(**{**asked, **given}).output
        assert plain.content[0].text == f"user: hm {NOW}{NOW}\n"


def test_a_call_alone_has_no_text_and_goes_back_as_the_client_holds_it(echo: Running) -> None:
    """The echo says every prompt back, so a message of nothing but a call is one that the reader takes wholly."""
    responding = Responding(
        ResponsesAsk(model="m", input="hi"), 0, {}, CallReader(EchoBackend.tool_use.form, ["weather"], several=True)
    )
    events = [*responding.delta(Delta(OSLO, (), "stop", 1, 0, 1)), *responding.closing(AnswerSoFar())]
    assert [each["type"].removeprefix("response.") for each in events] == [
        "output_item.added", "function_call_arguments.delta", "function_call_arguments.done", "output_item.done", "completed",
    ]  # fmt: skip
    client = echo.openai()
    made = client.responses.create(model=MODEL, input=f"hm {OSLO}", tools=[WEATHER])
    given = {"type": "function_call_output", "call_id": made.output[1].call_id, "output": "rain"}
    for held in (list(made.output), [each.model_dump() for each in made.output]):
        again = client.responses.create(model=MODEL, input=[*held, given, {"role": "user", "content": "so?"}])
        assert again.output_text == "assistant: user: hm\ntool: rain\nuser: so?\n"


def test_items_are_the_messages_of_a_chat() -> None:
    call = {"type": "function_call", "call_id": "a", "name": "weather", "arguments": "{}"}
    items = [
        {"role": "user", "content": "hi"}, {"role": "assistant", "content": "hm"}, call, {**call, "call_id": "b"},
        {"type": "function_call_output", "call_id": "a", "output": [{"type": "input_text", "text": "rain"}]}, call,
    ]  # fmt: skip
    said = ResponsesAsk.model_validate({"model": "m", "input": items}).chat().messages
    assert [(each.role, each.text(), [call.id for call in each.tool_calls or ()], each.tool_call_id) for each in said] == [
        ("user", "hi", [], None), ("assistant", "hm", ["a", "b"], None), ("tool", "rain", [], "a"),
        ("assistant", "", ["a"], None),
    ]  # fmt: skip


def test_answers_are_of_openais_types(echo: Running) -> None:
    said = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}
    with echo.http() as http:
        for path, body, kind in (
            ("chat/completions", {**said, "logprobs": True, "top_logprobs": 0}, ChatCompletion),
            ("completions", {"model": MODEL, "prompt": "hi", "max_tokens": 3, "logprobs": 0}, Completion),
            ("responses", {"model": MODEL, "input": "hi"}, Response),
            ("responses", {"model": MODEL, "input": OSLO, "tools": [WEATHER]}, Response),
        ):
            kind.model_validate_json(http.post(f"/v1/{path}", json=body).text, strict=False)
        lines = http.post("/v1/chat/completions", json={**said, "stream": True}).text.split("\n\n")
        chunks = [line.removeprefix("data: ") for line in lines if line.startswith("data: {")]
        assert len([ChatCompletionChunk.model_validate_json(each) for each in chunks]) == 5

"""`/v1/responses` as the unmodified client asks it; and every answer is one of OpenAI's own types, field by field."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import openai
import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response

from tests.support.echo_backend import EchoBackend
from tests.support.serving import MODEL, Running

Start = Callable[..., AbstractContextManager[Running]]
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
        ({"tools": [{"type": "web_search"}]}, "tools are called in /v1/chat/completions only"),
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


def test_answers_are_of_openais_types(echo: Running) -> None:
    said = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}
    with echo.http() as http:
        for path, body, kind in (
            ("chat/completions", {**said, "logprobs": True, "top_logprobs": 0}, ChatCompletion),
            ("completions", {"model": MODEL, "prompt": "hi", "max_tokens": 3, "logprobs": 0}, Completion),
            ("responses", {"model": MODEL, "input": "hi"}, Response),
        ):
            kind.model_validate_json(http.post(f"/v1/{path}", json=body).text, strict=False)
        lines = http.post("/v1/chat/completions", json={**said, "stream": True}).text.split("\n\n")
        chunks = [line.removeprefix("data: ") for line in lines if line.startswith("data: {")]
        assert len([ChatCompletionChunk.model_validate_json(each) for each in chunks]) == 5

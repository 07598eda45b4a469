"""What OpenAI's clients send without meaning anything by it is taken; what would change an answer's meaning is refused."""

from typing import Any

import httpx
import openai
import pytest

from soupmix.openai.items import ResponsesAsk
from soupmix.openai.sentences import _NOT_DONE
from soupmix.openai.wire import Ask, ChatAsk, ChatMessage, CompletionAsk
from tests.support.serving import MODEL, Running

SKY: list[Any] = [{"role": "user", "content": "Why is the sky blue?"}]


def ask(server: Running, messages: list[Any] = SKY, **given: Any) -> Any:
    usual = {"model": MODEL, "messages": messages, "max_tokens": 6, "temperature": 0}
    return server.openai().chat.completions.create(**{**usual, **given})


def post(server: Running, path: str, json: Any) -> httpx.Response:
    with server.http() as http:
        return http.post(path, json=json)


def test_an_answer_is_sent_back_as_the_client_holds_it(server: Running) -> None:
    message = ask(server).choices[0].message
    going_on = [*SKY, message.model_dump(), {"role": "user", "content": "Go on"}]
    plain = [*SKY, {"role": "assistant", "content": message.content}, {"role": "user", "content": "Go on"}]
    assert ask(server, going_on).choices[0].message.content == ask(server, plain).choices[0].message.content


def test_what_means_nothing_changes_nothing(server: Running) -> None:
    inert: dict[str, Any] = {
        "audio": None, "function_call": "none", "frequency_penalty": 0, "logit_bias": {}, "logprobs": False,
        "max_completion_tokens": 6, "metadata": {"run": "7"}, "modalities": ["text"], "n": 1, "parallel_tool_calls": True,
        "presence_penalty": 0, "prediction": None, "prompt_cache_key": "k", "reasoning_effort": "none",
        "response_format": {"type": "text"}, "safety_identifier": "s", "seed": None, "service_tier": "auto", "stop": None,
        "store": False, "stream_options": None, "tool_choice": "auto", "tools": [], "top_p": 1, "user": "ada",
        "verbosity": "medium", "web_search_options": None,
    }  # fmt: skip
    said = [
        {
            "role": "developer",
            "name": "me",
            "content": [{"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}],
        },
        {"role": "user", "name": "ada", "content": "Why is the sky blue?"},
    ]
    plain = [{"role": "system", "content": "Be brief."}, *SKY]
    with_all = ask(server, said, **{key: value for key, value in inert.items() if key != "web_search_options"})
    assert with_all.choices[0].message.content == ask(server, plain).choices[0].message.content
    raw = post(
        server,
        "/v1/chat/completions",
        json={"model": MODEL, "messages": SKY, "max_tokens": 2, **inert, "max_completion_tokens": 2},
    )
    assert raw.status_code == 200, raw.text


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("store", True), ("tools", [{"type": "code_interpreter"}]), ("logit_bias", {"5": 1}),
        ("response_format", {"type": "grammar"}), ("response_format", {"type": "json_schema", "json_schema": {}}),
        ("reasoning_effort", "high"), ("modalities", ["audio"]), ("tool_choice", "always"), ("verbosity", "low"),
        ("audio", {"voice": "a"}), ("functions", [{}]), ("prediction", {}), ("web_search_options", {}),
        ("function_call", {"name": "f"}),
    ],
)  # fmt: skip
def test_what_would_change_the_meaning_is_refused_with_what_to_do(server: Running, field: str, value: Any) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        ask(server, extra_body={field: value})
    error: Any = refused.value.body
    assert error["param"] == field
    assert error["message"].endswith(_NOT_DONE[field])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"temperature": 3}, "temperature: must be 2 or less"),
        ({"temperature": "hot"}, "temperature: must be a number"),
        ({"top_p": 0}, "top_p: must be more than 0"),
        ({"n": 0}, "n: must be 1 or more"),
        ({"max_tokens": 1.5}, "max_tokens: must be a whole number"),
        ({"frequency_penalty": 2.5}, "frequency_penalty: must be 2 or less"),
        ({"messages": []}, "messages: must have at least 1 entry"),
        ({"messages": "hi"}, "messages: must be a list"),
        ({"messages": [{"role": "user"}]}, "a message has no content"),
        ({"messages": [{"role": "tool", "content": "4"}]}, "no place for calls of tools"),
        ({"messages": [{"role": "assistant", "content": "a", "tool_calls": [{}]}]}, 'tool_calls.0.function: must be [{"id": ID'),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, "images are not looked at here"),
        ({"stream": "yes"}, "stream: must be true or false"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "must have at most 4 entries"),
        ({"metadata": {"a": 1}}, "metadata.a: must be text"),
        ({"soups": {}}, "soups: no such field is known here; leave it out"),
        ({"model": ""}, "model: must have at least 1 character"),
    ],
)  # fmt: skip
def test_every_mistake_is_a_sentence_of_ours(server: Running, given: dict[str, Any], said: str) -> None:
    sent = {"model": MODEL, "messages": SKY, **given}
    answer = post(server, "/v1/chat/completions", json=sent)
    assert answer.status_code == 400
    assert said in answer.json()["error"]["message"]
    assert not any(each in answer.text for each in ("Input should", "Field required", "Extra inputs", "valid "))


def test_every_field_with_a_sentence_is_a_field() -> None:
    kinds = (Ask, ChatAsk, CompletionAsk, ChatMessage, ResponsesAsk)
    fields = {name for kind in kinds for name in kind.model_fields}
    nested = {"file", "image_url", "include_obfuscation", "input_audio", "strict"}
    assert set(_NOT_DONE) - nested <= fields


def named(token: Any) -> tuple[str, bytes]:
    return token.token, bytes(token.bytes)


def test_penalties_are_those_of_their_definition(server: Running) -> None:
    """logit - count x frequency - (count > 0) x presence, against the log probabilities that the server tells."""
    given: dict[str, Any] = {"max_tokens": 12, "logprobs": True, "top_logprobs": 20}
    plain = ask(server, **given)
    for penalties in ({"frequency_penalty": 1.5, "presence_penalty": 0.5}, {"frequency_penalty": -2.0}):
        made = ask(server, **given, **penalties)
        counts: dict[Any, int] = {}  # by bytes and text: parts of characters have one text, special tokens no bytes
        for token in made.choices[0].logprobs.content:
            scores = {
                named(each): each.logprob
                - counts.get(named(each), 0) * penalties["frequency_penalty"]
                - (named(each) in counts) * penalties.get("presence_penalty", 0.0)
                for each in token.top_logprobs
            }
            said = named(token)
            assert scores[said] == pytest.approx(max(scores.values()), abs=1e-3)
            counts[said] = counts.get(said, 0) + 1
    assert ask(server, **given, frequency_penalty=0).choices[0].message.content == plain.choices[0].message.content


def test_a_profile_is_a_model_by_its_name_within_its_tenant(server: Running) -> None:
    made = post(server, "/v1/soups", json={"name": "alice", "weights": {"calm": 0.5}}).json()
    try:
        assert "soup:alice" in [each.id for each in server.openai().models.list()]
        assert ask(server, model="soup:alice").soup == ask(server, model=made["model"]).soup
        assert server.openai().models.retrieve("soup:alice").parent == MODEL
        with pytest.raises(openai.NotFoundError):
            server.openai("beta").chat.completions.create(model="soup:alice", messages=SKY)
        assert "soup:alice" not in [each.id for each in server.openai("beta").models.list()]
    finally:
        with server.http() as http:
            http.delete(f"/v1/soups/{made['id']}")

"""`response_format`: answers that are JSON, as the unmodified client asks for them."""

import json
from typing import Any

import jsonschema
import openai
import pytest

from soupmix.engine import grammar
from soupmix.errors import RecipeError
from tests.support.serving import MODEL, Running

SKY: list[Any] = [{"role": "user", "content": "Why is the sky blue?"}]
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"why": {"enum": ["air", "sea"]}, "sure": {"type": "boolean"}},
    "required": ["why", "sure"],
    "additionalProperties": False,
}
NAMED: Any = {"type": "json_schema", "json_schema": {"name": "reason", "schema": SCHEMA, "strict": True}}


@pytest.mark.parametrize("temperature", [0, 1])
def test_answers_are_valid_against_the_schema(server: Running, temperature: float) -> None:
    client = server.openai()
    soup = {"soup": {"weights": {"calm": 0.5}}}
    asked: dict[str, Any] = {"model": MODEL, "messages": SKY, "temperature": temperature, "max_tokens": 60}
    answer = client.chat.completions.create(**asked, response_format=NAMED, n=3, seed=1, extra_body=soup)
    for choice in answer.choices:
        assert choice.finish_reason == "stop"
        jsonschema.validate(json.loads(choice.message.content or ""), SCHEMA)
    stream = client.chat.completions.create(**asked, response_format=NAMED, stream=True, seed=1)
    text = "".join(each.choices[0].delta.content or "" for each in stream)
    jsonschema.validate(json.loads(text), SCHEMA)
    newer = client.responses.create(
        model=MODEL,
        input="Why?",
        temperature=temperature,
        text={"format": {"type": "json_schema", "name": "reason", "schema": SCHEMA}},
    )
    jsonschema.validate(json.loads(newer.output_text), SCHEMA)
    assert newer.text is not None
    assert newer.text.format is not None
    assert newer.text.format.type == "json_schema"


def test_an_object_is_one(server: Running) -> None:
    """A random model would write in it for ever; cut, it is the beginning of one."""
    answer = server.openai().chat.completions.create(
        model=MODEL, messages=SKY, max_tokens=20, seed=1, response_format={"type": "json_object"}
    )
    assert (answer.choices[0].message.content or "").startswith("{")


@pytest.mark.parametrize(
    "asked",
    [{"type": "json_schema", "json_schema": {}}, {"type": "xml"}, {}, {"type": "json_object", "schema": {}}, [], 3],
    ids=str,
)
def test_another_format_is_refused_by_a_sentence(server: Running, asked: Any) -> None:
    with pytest.raises(openai.BadRequestError, match="json_schema") as refused:
        server.openai().chat.completions.create(
            model=MODEL, messages=SKY, max_tokens=2, extra_body={"response_format": asked}
        )
    assert refused.value.param == "response_format"


def test_a_schema_that_cannot_be_kept_is_refused_by_its_name(server: Running) -> None:
    bad: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"uniqueItems": True}}}
    with pytest.raises(openai.BadRequestError, match=r"JSON schema: .*uniqueItems.* leave that out") as refused:
        server.openai().chat.completions.create(model=MODEL, messages=SKY, response_format=bad)
    assert refused.value.code == "schema"


def test_without_the_library_the_extra_is_named(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> Any:
        raise RecipeError("pip install 'soupmix[json]'", reason="no-json-extra")

    monkeypatch.setattr("soupmix.backends.local.library", missing)
    assert grammar.library().__name__ == "llguidance"
    with pytest.raises(openai.BadRequestError, match="soupmix") as refused:
        server.openai().chat.completions.create(model=MODEL, messages=SKY, response_format=NAMED)
    assert refused.value.code == "no-json-extra"

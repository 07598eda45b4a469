"""Answers that are held to JSON schemas: valid, whoever runs beside them, and nothing else changes."""

import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jsonschema
import pytest
import torch

from soupmix.backends import Limits, Request
from soupmix.batching import Batcher
from soupmix.engine import Engine, Sampling
from soupmix.engine.sampling import choose, stream
from soupmix.errors import RecipeError
from soupmix.policy import Grant
from tests.support.batcher_client import answer

Granter = Callable[..., Grant]

SCHEMAS: list[dict[str, Any]] = [
    {"enum": ["yes", "no", 3, None, {"a": [1]}]},
    {"type": "integer", "minimum": -20, "maximum": 99, "multipleOf": 3},
    {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 3},
    {
        "type": "object",
        "properties": {"z": {"type": "string", "maxLength": 4}, "a": {"$ref": "#/$defs/mark"}},
        "required": ["z", "a"],
        "additionalProperties": False,
        "$defs": {"mark": {"anyOf": [{"const": "ü"}, {"type": "null"}]}},
    },
    {"type": "string", "pattern": "^[a-c]{2,5}-[0-9]{2}$"},
    {"type": "string", "format": "uuid"},
    {"const": {"said": 'a "quoted" \n line', "n": 1.5}},
    {
        "type": "object",
        "patternProperties": {"^x{1,2}$": {"enum": [1, 2]}},
        "additionalProperties": False,
        "maxProperties": 2,
    },
]
WORDS = ["why is the sky blue?", "hi", "tell me about tides and the moon, at some length, please"]


@pytest.fixture(params=["running", "padded"])
def batcher(request: pytest.FixtureRequest, plain: Engine) -> Iterator[Batcher]:
    with Batcher(plain, Limits(rows=12, length=256, waiting=64, chunk=16), loop=request.param) as made:
        yield made


def people(grant: Granter, count: int) -> list[Grant]:
    draw = random.Random(7)
    return [grant(**{draw.choice(["calm", "loud", "plain"]): round(draw.random(), 3)}) for _ in range(count)]


def held(text: str, schema: dict[str, Any]) -> Any:
    """What an answer says; it is valid as others find it, too."""
    found = json.loads(text)
    jsonschema.validate(found, schema, format_checker=jsonschema.FormatChecker())
    return found


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_rows_of_one_batch_are_each_valid_against_their_own(plain: Engine, grant: Granter, temperature: float) -> None:
    """And those beside them that are free are bit for bit what they are without them."""
    schemas = [*SCHEMAS, None, *SCHEMAS[:2], None]
    prompts = [WORDS[number % 3] for number in range(len(schemas))]
    grants = people(grant, len(schemas))
    how = Sampling(max_new_tokens=60, temperature=temperature, top_k=0, seed=5)
    made = plain.complete(prompts, grants, sampling=how, schema=schemas)
    for schema, each in zip(schemas, made, strict=True):
        if schema is not None:
            assert each.finished
            held(each.text, schema)
    free = [number for number, schema in enumerate(schemas) if schema is None]
    alone = plain.complete(
        [prompts[number] for number in free], [grants[number] for number in free], sampling=how, streams=free
    )
    assert [made[number] for number in free] == alone
    assert len({each.text for each in made}) > 6


def test_the_running_batch_holds_each_row_to_its_own(batcher: Batcher, plain: Engine, grant: Granter) -> None:
    """Greedy rows and others, held and free."""
    schemas = [None, *SCHEMAS, None, None]
    grants = people(grant, len(schemas))
    asked = [
        Request(
            plain.chat_tokens(WORDS[number % 3]),
            grants[number],
            Sampling(max_new_tokens=60 if schema else 10, temperature=float(number % 2), top_k=5, seed=number),
            schema=json.dumps(schema) if schema else None,
        )
        for number, schema in enumerate(schemas)
    ]
    made = answer(batcher, asked)
    for schema, text in zip(schemas, made, strict=True):
        if schema is not None:
            held(text, schema)
    free = [number for number, schema in enumerate(schemas) if schema is None]
    assert [made[number] for number in free] == answer(batcher, [asked[number] for number in free])


def test_an_answer_is_the_same_whole_in_parts_and_in_the_running_batch(
    batcher: Batcher, plain: Engine, grant: Granter
) -> None:
    how = {"max_new_tokens": 60, "temperature": 0.8, "seed": 3}
    for schema in SCHEMAS[:4]:
        own = grant(calm=0.4)
        (whole,) = plain.generate([WORDS[0]], [own], schema=schema, **how)  # type: ignore[arg-type]
        assert "".join(plain.stream(WORDS[0], own, schema=schema, **how)) == whole  # type: ignore[arg-type]
        request = Request(plain.chat_tokens(WORDS[0]), own, Sampling(**how), schema=json.dumps(schema))  # type: ignore[arg-type]
        assert answer(batcher, [request]) == [whole]


def test_properties_come_in_the_order_of_the_schema(plain: Engine, grant: Granter) -> None:
    for names in (["b", "a"], ["a", "b"]):
        schema = {
            "type": "object",
            "properties": {name: {"enum": [1]} for name in names},
            "required": names,
            "additionalProperties": False,
        }
        (text,) = plain.generate(["hi"], [grant()], schema=schema)
        assert text == json.dumps(dict.fromkeys(names, 1))


def test_a_stream_gives_what_complete_gives_and_may_be_left(plain: Engine, grant: Granter) -> None:
    own, how = grant(loud=0.7), {"max_new_tokens": 12, "temperature": 0.9, "seed": 8}
    (whole,) = plain.generate([WORDS[2]], [own], mode="answer", **how)  # type: ignore[arg-type]
    parts = plain.stream(WORDS[2], own, mode="answer", **how)  # type: ignore[arg-type]
    first = next(parts)
    assert plain.generate([WORDS[2]], [own], mode="answer", **how) == [whole]  # type: ignore[arg-type]
    assert first + "".join(parts) == whole
    left = plain.stream("hi", own)
    next(left)
    del left
    assert plain.generate([WORDS[2]], [own], mode="answer", **how) == [whole]  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match="empty"):
        plain.stream("", own)


@pytest.mark.parametrize(
    "schema",
    [
        {"not": {}}, {"type": "frob"}, {"anyOf": []}, {"$ref": "https://example.com/x"}, {"$ref": "file:///etc/passwd"},
        {"type": "string", "pattern": "(?=a)b"}, {"minimum": float("nan")}, {"a": {1, 2}}, {"properties": 3},
        {"type": "object", "required": ["a"], "additionalProperties": False}, "true", "[]", "{", "",
        {"$defs": {"d": {"type": "array", "items": {"$ref": "#/$defs/d"}, "minItems": 1}}, "$ref": "#/$defs/d"},
        {"x-guidance": {"lenient": True}, "not": {}},
    ],
    ids=lambda schema: str(schema)[:40],
)  # fmt: skip
def test_what_no_answer_can_be_held_to_is_refused_at_once(plain: Engine, grant: Granter, schema: Any) -> None:
    with pytest.raises(RecipeError, match="JSON schema") as refused:
        plain.generate(["hi"], [grant()], schema=schema)
    assert refused.value.reason == "schema"
    assert "\n" not in str(refused.value)


def chain(links: int) -> dict[str, Any]:
    steps = {f"d{number}": {"$ref": f"#/$defs/d{number + 1}"} for number in range(links)}
    return {"$defs": {**steps, f"d{links}": {"type": "null"}}, "$ref": "#/$defs/d0"}


HOSTILE: dict[str, dict[str, Any]] = {
    "a chain of references": chain(20_000),  # some 5,000 overflow the library's stack, which ends the process
    "the longest chain that is taken": chain(995),
    "many properties": {"type": "object", "properties": {str(number): {} for number in range(990)}},
    "a long list": {"type": "array", "minItems": 10**9, "items": {"type": "null"}},
    "a large pattern": {"type": "string", "pattern": "(x{1000}){1000}"},
    "a pattern that goes back": {"type": "string", "pattern": "^(.*a){30}.*$"},
    "choices of choices": {
        "allOf": [{"anyOf": [{"properties": {f"a{i}{j}": {"type": "integer"}}} for j in range(6)]} for i in range(30)]
    },
    "a long text": {"enum": ["x" * 70_000]},
    "lists within lists": json.loads('{"items":' * 900 + "{}" + "}" * 900),
}


@pytest.mark.parametrize("schema", HOSTILE.values(), ids=HOSTILE)
def test_no_schema_costs_much_or_ends_the_process(plain: Engine, grant: Granter, schema: dict[str, Any]) -> None:
    """In a thread of its own, as the server reads it: its stack is no larger."""
    found: list[Any] = []

    def go() -> None:
        try:
            found.append(plain.generate(["hi"], [grant()], schema=schema, max_new_tokens=4))
        except RecipeError as error:
            found.append(error.reason)

    plain.grammars.of({})  # what is made once for a model
    begun = time.process_time()
    thread = threading.Thread(target=go)
    thread.start()
    thread.join()
    assert time.process_time() - begun < 5
    assert found == ["schema"] or len(found[0][0]) > 0


def test_whoever_needs_no_schema_needs_no_library(
    plain: Engine, grant: Granter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "llguidance", None)
    with pytest.raises(RecipeError, match=r"pip install 'soupmix\[json\]'") as refused:
        plain.generate(["hi"], [grant()], schema={})
    assert refused.value.reason == "no-json-extra"
    assert plain.generate(["hi"], [grant()], max_new_tokens=1)


def test_what_may_not_come_is_never_drawn_however_the_mass_is_rounded() -> None:
    """The cumulative mass of 40 equal tokens falls short of 1, and the largest number that is drawn lies behind it."""
    logits, allowed = torch.zeros(1, 200), torch.zeros(200, dtype=torch.bool)
    allowed[:37] = True
    how = Sampling(temperature=1.0, top_k=60, seed=1)
    for drawn in (0.0, 0.5, 1 - 2**-24):
        assert int(choose(logits, [how], torch.tensor([drawn]), (), [allowed])) < 37
    assert stream(how).shape == (256,)
    shorter = choose(logits, [Sampling()], torch.zeros(1), (), [torch.ones(3, dtype=torch.bool)])
    assert int(shorter) < 3

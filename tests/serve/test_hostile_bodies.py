"""One body of a megabyte: refused in little time and memory, whatever it holds, by every route that takes one."""

import time
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel

from soupmix.errors import SoupmixError
from soupmix.openai.items import ResponsesAsk
from soupmix.openai.wire import ChatAsk, CompletionAsk, RangesAsk, SoupAsk, TargetsAsk
from soupmix.serve import about, asking, chat_routes, feedback, grants, learning, questions, soups
from soupmix.serve.feedback import CorrectAsk, FeedbackAsk
from soupmix.serve.learning import LearningAsk
from soupmix.serve.questions import NextAsk
from soupmix.serve.soups import ProfileAsk
from soupmix.serve.strict import StrictRoute, understood

SIZE = 1 << 20
SECONDS, BYTES = 2.0, 50 << 20  # quadratic work on a megabyte takes minutes
ASKING: tuple[type[BaseModel], ...] = (ChatAsk, CompletionAsk, ProfileAsk, RangesAsk, ResponsesAsk, SoupAsk)
LEARNING: tuple[type[BaseModel], ...] = (CorrectAsk, FeedbackAsk, LearningAsk, NextAsk, TargetsAsk)
KINDS = ASKING + LEARNING


def full(head: bytes, item: bytes, tail: bytes) -> bytes:
    """A body of a megabyte: one item again and again; %d in it is a number that never comes twice."""
    count = (SIZE - len(head) - len(tail)) // (len(item % 0 if b"%" in item else item) + 1 + 5 * (b"%" in item))
    items = [item % number for number in range(count)] if b"%" in item else [item] * count
    return head + b",".join(items) + tail


BODIES = {
    "prompts that are objects": full(b'{"model":"m","prompt":[', b"{}", b"]}"),
    "prompts that are lists": full(b'{"model":"m","prompt":[', b"[]", b"]}"),
    "prompts that are numbers of the wrong kind": full(b'{"model":"m","prompt":[', b"1.5", b"]}"),
    "prompts that end wrong": full(b'{"model":"m","prompt":[', b"7", b',""]}'),
    "prompts of nothing": full(b'{"model":"m","prompt":[', b'""', b"]}"),
    "lists of ids that are wrong": full(b'{"model":"m","prompt":[[', b'""', b"]]}"),
    "messages that are objects": full(b'{"model":"m","messages":[', b"{}", b"]}"),
    "parts that are objects": full(b'{"model":"m","messages":[{"role":"user","content":[', b"{}", b"]}]}"),
    "parts that are nothing": full(b'{"model":"m","messages":[{"role":"user","content":[', b"0", b"]}]}"),
    "items that are objects": full(b'{"model":"m","input":[', b"{}", b"]}"),
    "tools": full(b'{"model":"m","input":"x","messages":[{"role":"user","content":"x"}],"tools":[', b"{}", b"]}"),
    "parts of a schema": full(
        b'{"model":"m","messages":[{"role":"user","content":"x"}],"response_format":{"type":"json_schema",'
        b'"json_schema":{"name":"x","schema":{"anyOf":[',
        b"{}",
        b"]}}}}",
    ),
    "keys of a schema": full(
        b'{"model":"m","input":"x","text":{"format":{"type":"json_schema","name":"x","schema":{', b'"%d":1', b"}}}}"
    ),
    "biases": full(b'{"model":"m","prompt":"x","logit_bias":{', b'"%d":1', b"}}"),
    "stops": full(b'{"model":"m","prompt":"x","stop":[', b"0", b"]}"),
    "weights that are lists": full(b'{"weights":{', b'"%d":[]', b"}}"),
    "weights that are numbers": full(b'{"weights":{', b'"%d":1', b"}}"),
    "weights of a soup": full(b'{"model":"m","prompt":"x","soup":{"weights":{', b'"%d":[]', b"}}}"),
    "attributes": full(b'{"attributes":{', b'"%d":[]', b"}}"),
    "attributes of a soup": full(b'{"model":"m","prompt":"x","soup":{"attributes":{', b'"%d":""', b"}}}"),
    "sources": full(b'{"weights":{},"sources":{', b'"%d":0', b"}}"),
    "fields that nobody knows": full(b"{", b'"%d":1', b"}"),
    "fields that nobody knows in a soup": full(b'{"model":"m","prompt":"x","soup":{', b'"%d":1', b"}}"),
    "fields that nobody knows in a message": full(b'{"messages":[{', b'"%d":1', b"}]}"),
    "lists within lists": b"[" * SIZE,
    "a string without an end": b'{"model":"' + b'\\"' * (SIZE // 2 - 5),
    "strings in pieces": b'"' * SIZE,
}
LEARNED = {
    "answers that are nothing": full(b'{"kind":"thumbs","answers":[', b"0", b"]}"),
    "answers that are empty": full(b'{"kind":"thumbs","answers":[', b'""', b"]}"),
    "ways of a cue": full(b'{"kind":"cue","answers":["x"],"toward":{', b'"%d":1', b"}}"),
    "an answer of a megabyte": b'{"kind":"cue","prompt":"x","answers":["' + b"x" * (SIZE - 60) + b'"]}',
    "targets that are lists": full(b'{"targets":{', b'"%d":[]', b"}}"),
    "bounds that are lists": full(b'{"most":{', b'"%d":[]', b"}}"),
    "fields that nobody knows": BODIES["fields that nobody knows"],
}
"""Of requests about what a profile learns, and about targets."""

CASES = [
    (kind, body)
    for kinds, bodies in ((ASKING, BODIES), (LEARNING, LEARNED))
    for kind in kinds
    for body in bodies.items()
]
SENT = pytest.mark.parametrize(
    ("kind", "body"),
    [(kind, body) for kind, (_, body) in CASES],
    ids=[f"{kind.__name__}-{case}" for kind, (case, _) in CASES],
)


def refused(kind: type[BaseModel], body: bytes) -> None:
    with pytest.raises((RequestValidationError, SoupmixError)) as caught:
        understood(kind, body)
    if isinstance(caught.value, RequestValidationError):
        assert len(caught.value.errors()) < 1000


@SENT
def test_a_megabyte_is_refused_in_little_time(kind: type[BaseModel], body: bytes) -> None:
    took = []
    for _ in range(3):  # the shortest counts: other work of the machine is not the body's fault
        started = time.thread_time()
        refused(kind, body)
        took.append(time.thread_time() - started)
        if took[-1] < SECONDS:
            break
    assert min(took) < SECONDS


@SENT
def test_a_megabyte_is_refused_in_little_memory(kind: type[BaseModel], body: bytes) -> None:
    tracemalloc.start()
    try:
        refused(kind, body)
        assert tracemalloc.get_traced_memory()[1] < BYTES
    finally:
        tracemalloc.stop()


def bodies() -> set[type[BaseModel]]:
    """What all routes take."""
    found = set()
    for room in (about, asking, chat_routes, feedback, grants, learning, questions, soups):
        for route in room.router.routes:
            assert isinstance(route, StrictRoute)
            found |= {route.body_field.field_info.annotation} if route.body_field else set()
    return found  # type: ignore[return-value]


def test_every_body_is_attacked_here() -> None:
    assert bodies() == set(KINDS)


SCALARS = {"bool", "int", "float", "str", "literal", "none"}
INSIDE = ("schema", "items_schema", "keys_schema", "values_schema")


def unbounded(schema: dict[str, Any], where: str, guarded: bool = False) -> Iterator[str]:
    """Places in a schema of pydantic's core where a body decides how much work there is."""
    kind = schema["type"]
    if kind == "str" and not ("max_length" in schema or "pattern" in schema):
        yield f"{where}: text of any length"
    if kind == "list" and not ("max_length" in schema and schema.get("fail_fast")):
        yield f"{where}: a list of any length, or one that is read on behind its first fault"
    if kind == "dict" and not ("max_length" in schema and guarded):  # pydantic counts entries when all are read
        yield f"{where}: a map of any size"
    if kind == "model" and schema["schema"]["type"] != "function-before":
        yield f"{where}: any number of fields that nobody knows"
    if kind == "union" and not all(_inner(each) in SCALARS for each in schema["choices"]):
        yield f"{where}: every form is tried"
    if kind == "any":
        yield f"{where}: anything"
    for key in INSIDE:
        if key in schema:
            yield from unbounded(schema[key], f"{where}.{key}", kind == "function-before")
    fields = schema.get("fields", {})
    for name, each in fields.items():
        yield from unbounded(each["schema"], f"{where}.{name}")
    choices = schema.get("choices", {})
    for name, each in choices.items() if isinstance(choices, dict) else enumerate(choices):
        yield from unbounded(each, f"{where}|{name}")
    known = {"type", "ref", "metadata", "serialization", "function", "cls", "config", "strict", "expected"}
    assert schema.keys() & {"schema_ref", "definitions", "extras_schema"} == set(), (schema.keys() - known, where)


def inlined(schema: Any, known: dict[str, Any]) -> Any:
    """The same with what its references stand for; none of our forms holds itself."""
    if isinstance(schema, dict):
        if schema.get("type") == "definition-ref":
            return inlined(known[schema["schema_ref"]], known)
        return {key: inlined(each, known) for key, each in schema.items()}
    return [inlined(each, known) for each in schema] if isinstance(schema, list) else schema


def _inner(schema: dict[str, Any]) -> str:
    while "schema" in schema:
        schema = schema["schema"]
    return str(schema["type"])


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_list_map_text_and_choice_is_bounded(kind: type[BaseModel]) -> None:
    schema: Any = kind.__pydantic_core_schema__
    if schema["type"] == "definitions":
        schema = inlined(schema["schema"], {each["ref"]: each for each in schema["definitions"]})
    assert list(unbounded(schema, kind.__name__)) == []

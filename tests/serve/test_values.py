"""Values of attributes that no document names are refused unless the operator names them: misspelt, nobody would be bounded."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import pytest

from tests.support.echo_backend import EchoBackend
from tests.support.serving import Running

Start = Callable[..., AbstractContextManager[Running]]


def clamp(server: Running, tenant: str = "acme", **attributes: str) -> tuple[int, dict[str, Any]]:
    with server.http(tenant) as http:
        answer = http.post("/v1/clamp", json={"weights": {"loud": 0.9}, "attributes": attributes})
        return answer.status_code, answer.json()


ASKED = {
    ("audience", "minor"): "", ("audience", "other"): "", ("jurisdiction", "atlantis"): "",
    ("audience", "mnior"): "did you mean 'minor'?", ("audience", "adult"): "it names minor",
    ("purpose", "suport"): "did you mean 'support'?",
}  # fmt: skip
"""What a request says -> what is said of it where nobody allows more values."""


@pytest.mark.parametrize(
    ("values", "also"),
    [
        ({}, set()),
        ({"audience": ("adult",)}, {"adult"}),
        ({"audience": ("*",)}, {"adult", "mnior"}),
        (None, {"adult", "mnior", "suport"}),
    ],
)
def test_only_values_that_are_named_are_taken(
    start: Start, values: Mapping[str, tuple[str, ...]] | None, also: set[str]
) -> None:
    with start(values=values, backend=EchoBackend) as server:
        for (key, value), said in ASKED.items():
            status, answer = clamp(server, **{key: value})
            if said and value not in also:
                assert (status, answer["error"]["code"]) == (400, "unnamed-value")
                assert f"the {key} is {value!r}" in answer["error"]["message"]
                assert said in answer["error"]["message"]
            else:
                assert status == 200
                noted = key != "jurisdiction" and value != "minor"
                assert (f"note: no document names the {key} {value}" in answer["explanation"]) == noted


def test_what_is_so_of_a_key_is_held_to_the_same(start: Start) -> None:
    with start(values={}, backend=EchoBackend) as server:
        assert clamp(server, "school")[0] == 200
        server.keys["typo"] = server.state.keys.create("typo", {"audience": "mnior"})
        status, answer = clamp(server, "typo")
        assert (status, "the audience of this key is 'mnior'" in answer["error"]["message"]) == (400, True)

"""`/v1/measures` and `/v1/soups/ask`: weights for targets, inside the policy of whoever asks."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager
from itertools import islice
from typing import Any

import pytest

from soupmix.store import Store
from soupmix.surface import Surface
from soupmix.weights import Weights
from tests.support.planted_soups import document_over, rule
from tests.support.serving import Running


@pytest.fixture(scope="module")
def surface(pico_store: Store) -> Surface:
    return Surface.of(document_over(list(pico_store), {"short": "calm", "warm": "loud"}), pico_store)


@pytest.fixture(scope="module")
def asked(start: Callable[..., AbstractContextManager[Running]], surface: Surface) -> Iterator[Running]:
    with start(surface=surface) as made:
        yield made


def test_what_can_be_asked_for_is_told(asked: Running, server: Running, surface: Surface) -> None:
    with asked.http() as http:
        told = http.get("/v1/measures").json()
    assert [each["name"] for each in told["data"]] == ["warmth", "words"]
    assert told["data"][1]["base"] == pytest.approx(surface.expect(Weights())["words"].value)
    with server.http() as http:
        assert http.get("/v1/measures").json() == {"object": "list", "data": [], "effects": {}}
        missing = http.post("/v1/soups/ask", json={"targets": {"words": 60}})
        assert (missing.status_code, missing.json()["error"]["code"]) == (404, "no-surface")
    with asked.http(None) as http:
        assert http.get("/v1/measures").status_code == 401
        assert http.post("/v1/soups/ask", json={"targets": {"words": 60}}).status_code == 401


def test_targets_become_weights_that_are_granted_as_they_are(asked: Running) -> None:
    with asked.http() as http:
        found = http.post("/v1/soups/ask", json={"targets": {"words": 50, "warmth": 1}}).json()
        clamped = http.post("/v1/clamp", json={"weights": found["weights"]}).json()
    assert set(found["weights"]) == {"calm", "loud"}
    assert clamped["granted"] == clamped["requested"] == found["weights"]
    assert found["targets"]["words"]["reached"]
    assert found["targets"]["words"]["expected"]["value"] == pytest.approx(50, rel=0.05)
    assert found["notes"] == []
    assert found["policy"] == clamped["policy"]


def test_half_of_an_effect_is_a_weight(asked: Running, server: Running, surface: Surface) -> None:
    with asked.http() as http:
        clamped = http.post("/v1/clamp", json={"weights": {"calm": "50%", "loud": 0.25}}).json()
        wrong = [http.post("/v1/clamp", json={"weights": {"calm": value}}) for value in ("150%", "50%%", "%", "-50%")]
        unknown = http.post("/v1/clamp", json={"weights": {"nobody": "50%"}})
    assert clamped["requested"] == {**surface.calibrated(Weights("calm=0.5")).decimals(), "loud": "0.25"}
    assert [each.status_code for each in wrong] == [400] * 4
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (400, "other-adapters")
    with server.http() as http:
        missing = http.post("/v1/clamp", json={"weights": {"calm": "50%"}})
    assert (missing.status_code, missing.json()["error"]["code"]) == (400, "no-surface")


def test_what_adapters_do_alone_is_told(asked: Running, surface: Surface) -> None:
    """With the weights that shares of that mean, as requests are granted them."""
    with asked.http() as http:
        told = http.get("/v1/measures").json()["effects"]
        clamped = http.post("/v1/clamp", json={"weights": {"calm": "37%", "loud": "100%"}}).json()
    assert {name: each["measure"] for name, each in told.items()} == {"calm": "words", "loud": "warmth"}
    assert clamped["requested"] == {
        name: f"{told[name]['weights'][share]:g}" for name, share in (("calm", 37), ("loud", 100))
    }
    words = [surface.expect(Weights(each))["words"].value for each in ({}, {"calm": 1})]
    assert [told["calm"]["base"], told["calm"]["full"]] == pytest.approx(words)


def test_an_effect_that_cannot_be_told_from_nothing_has_no_shares(
    start: Callable[..., AbstractContextManager[Running]], pico_store: Store
) -> None:
    cold = Surface.of(document_over(list(pico_store), {"short": "calm", "warm": "loud"}, nothing_warm), pico_store)
    with start(surface=cold) as server, server.http() as http:
        assert list(http.get("/v1/measures").json()["effects"]) == ["calm"]
        refused = http.post("/v1/clamp", json={"weights": {"loud": "50%"}})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "no-effect")


def nothing_warm(w: Mapping[str, float]) -> Mapping[str, float]:
    return {**rule(w), "warmth": 0.0}


def test_what_is_so_of_the_key_bounds_what_can_be_reached(asked: Running) -> None:
    """Minors get at most .25 of `loud`: 5 of warmth is out of reach, and said so."""
    body = {"targets": {"warmth": 5}, "attributes": {"audience": "adult"}}
    found = {}
    for tenant in ("acme", "school"):
        with asked.http(tenant) as http:
            found[tenant] = http.post("/v1/soups/ask", json=body).json()
    assert found["acme"]["targets"]["warmth"]["reached"]
    assert not found["school"]["targets"]["warmth"]["reached"]
    assert found["school"]["weights"] == {"loud": "0.25"}
    assert "cannot be reached: inside this policy" in found["school"]["notes"][0]
    assert "case 17" not in str(found)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"targets": {"tone": 1}}, "unknown-measure"),
        ({"targets": {}}, "too_short"),
        ({}, "missing"),
        ({"targets": None}, "dict_type"),
        ({"targets": {"words": None}}, "float_type"),
        ({"targets": {"words": "60"}}, "float_type"),
        ({"targets": {"words": True}}, "float_type"),
        ({"targets": {"words": 0}}, "bad-target"),
        ({"targets": {"words": 1e300}}, "less_than_equal"),
        ({"targets": [60]}, "dict_type"),
        ({"targets": {f"m{k}": 1 for k in range(65)}}, "too_long"),
        ({"targets": {"words": 60}, "weights": {"calm": 0.1}}, "two-ways"),
        ({"targets": {"words": 60}, "weights": {"lowd": 0.1}}, "unknown-adapter"),
        ({"targets": {"words": 60}, "attributes": {"shoe": "44"}}, "unknown-attribute"),
        ({"targets": {"words": 60}, "sources": "dreams"}, "value_error"),
        ({"targets": {"words": 60}, "colour": 1}, "extra_forbidden"),
    ],
)
def test_what_makes_no_sense_is_refused(asked: Running, body: dict[str, Any], code: str) -> None:
    with asked.http() as http:
        found = http.post("/v1/soups/ask", json=body)
    assert (found.status_code, found.json()["error"]["code"]) == (400, code), found.text


def test_what_is_no_json_number_is_refused(asked: Running) -> None:
    with asked.http() as http:
        for number in ("NaN", "Infinity", "1e999", "-Infinity"):
            sent = http.post(
                "/v1/soups/ask",
                content=f'{{"targets": {{"words": {number}}}}}',
                headers={"Content-Type": "application/json"},
            )
            assert sent.status_code == 400, number


def test_many_searches_leave_threads_to_others(asked: Running) -> None:
    """Only few wait, whoever sends more: a search that waits keeps a thread that other requests need."""

    def send(_: int) -> int:
        return int(http.post("/v1/soups/ask", json={"targets": {"words": 50}}, timeout=30).status_code)

    with asked.http() as http, ThreadPoolExecutor(12) as pool:
        with asked.state.searching:
            sent = [pool.submit(send, number) for number in range(12)]
            refused = [each.result() for each in islice(as_completed(sent, timeout=8), 8)]
        assert refused == [429] * 8
        assert sorted(each.result() for each in sent) == [200] * 4 + [429] * 8


def test_searches_do_not_queue_for_ever(asked: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    from soupmix.serve import asking

    monkeypatch.setattr(asking, "_PATIENCE", 0.05)
    with asked.state.searching, asked.http() as http:
        found = http.post("/v1/soups/ask", json={"targets": {"words": 50}})
    assert found.status_code == 429
    assert int(found.headers["retry-after"]) >= 1
    with asked.http() as http:
        assert http.post("/v1/soups/ask", json={"targets": {"words": 50}}).status_code == 200

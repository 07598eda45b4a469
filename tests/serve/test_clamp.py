"""`/v1/clamp`: what an answer would be granted, without one."""

import pytest

from tests.support.serving import MODEL, Running

LOUD = {"weights": {"loud": 0.9, "calm": "0.3"}}
ASKED = {"model": MODEL, "messages": [{"role": "user", "content": "Why?"}], "max_tokens": 1}


def test_a_clamp_says_what_an_answer_would_be_granted(server: Running) -> None:
    with server.http() as http:
        looked = http.post("/v1/clamp", json=LOUD).json()
        used = http.post("/v1/chat/completions", json={**ASKED, "soup": LOUD}).json()["soup"]
    assert (looked.pop("distance"), looked.pop("metric")) == ("0.65", "weights")
    assert looked == used
    assert looked["granted"] == {"calm": "0.3", "loud": "0.25"}
    assert looked["binding"][0]["public_reason"] == "not so loud"
    assert "case 17" not in str(looked)


def test_what_is_so_of_the_key_counts_in_a_clamp_too(server: Running) -> None:
    claimed = {**LOUD, "attributes": {"audience": "adult"}}
    granted = {}
    for tenant in ("acme", "school"):
        with server.http(tenant) as http:
            granted[tenant] = http.post("/v1/clamp", json=claimed).json()["granted"]["loud"]
    assert granted == {"acme": "0.9", "school": "0.25"}


def test_a_clamp_refuses_as_an_answer_would(server: Running) -> None:
    with server.http() as http:
        for soup in ({"weights": {"plain": 1}}, {"weights": {"lowd": 1}}, {"attributes": {"shoe": "44"}}):
            looked = http.post("/v1/clamp", json=soup)
            used = http.post("/v1/chat/completions", json={**ASKED, "soup": soup})
            assert looked.status_code == used.status_code != 200
            assert looked.json() == used.json()
        assert http.post("/v1/clamp", json={"weights": {}, "colour": 1}).status_code == 400
    with server.http(None) as http:
        assert http.post("/v1/clamp", json=LOUD).status_code == 401


@pytest.mark.parametrize("name", ["sources", "self", "requested", "weights", "attributes"])
def test_no_attribute_is_taken_for_an_argument(server: Running, name: str) -> None:
    odd = {"attributes": {name: "explicit"}}
    audit = server.state.audit
    assert audit is not None
    with server.http() as http:
        before = audit.size
        for path, body in {
            "/v1/clamp": odd,
            "/v1/ranges": odd,
            "/v1/soups": {**odd, "weights": {"calm": 0.1}},
            "/v1/chat/completions": {**ASKED, "soup": odd},
        }.items():
            answer = http.post(path, json=body)
            assert (path, answer.status_code, answer.json()["error"]["code"]) == (path, 400, "unknown-attribute")
    assert audit.size == before + 1  # the refusal of the answer


def test_a_clamp_leaves_no_record(server: Running) -> None:
    audit = server.state.audit
    assert audit is not None
    before = audit.size
    with server.http() as http:
        http.post("/v1/clamp", json=LOUD)
        http.post("/v1/clamp", json={"weights": {"plain": 1}})
        assert audit.size == before
        http.post("/v1/chat/completions", json={**ASKED, "soup": LOUD})
    assert audit.size == before + 1


def test_the_policy_tells_which_attributes_matter(server: Running) -> None:
    with server.http() as http:
        assert http.get("/v1/policy").json()["attributes"] == {"audience": ["minor"], "purpose": ["support"]}


def test_ranges_are_what_is_granted_of_each_alone(server: Running) -> None:
    attributes = ({}, {"audience": "adult"}, {"audience": "minor", "purpose": "play"})
    with server.http() as http:
        for said in attributes:
            most = http.post("/v1/ranges", json={"attributes": said}).json()["most"]
            for name, weight in most.items():
                alone = http.post("/v1/clamp", json={"weights": {name: 1}, "attributes": said}).json()
                assert weight == alone.get("granted", {}).get(name, "0")
        assert most == {"calm": "1", "loud": "0.25", "plain": "1"}
        assert http.post("/v1/ranges", json={}).json()["most"]["plain"] == "0"  # refused
        assert http.post("/v1/ranges", json={"attributes": {"shoe": "44"}}).status_code == 400
    with server.http("school") as http:
        asked = http.post("/v1/ranges", json={"attributes": {"audience": "adult"}}).json()
        assert asked["attributes"] == {"audience": "minor", "tenant": "school"}
        assert asked["most"]["loud"] == "0.25"

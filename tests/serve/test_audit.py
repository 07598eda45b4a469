"""What the audit log has of a server: every grant and refusal, before the answer, and nobody's name."""

from typing import Any

from soupmix.audit import pseudonym, read_records, verify
from tests.support.serving import MODEL, Running

ASK = {"model": MODEL, "prompt": "x", "max_tokens": 1}


def records(server: Running, person: str) -> list[dict[str, Any]]:
    folder = server.state.audit.folder  # type: ignore[union-attr]
    name = pseudonym(folder, person)
    return [record["entry"] for _, record in read_records(folder) if name is not None and record["who"] == name]


def test_grants_and_refusals_are_on_record(server: Running) -> None:
    with server.http() as http:
        soup = http.post("/v1/completions", json={**ASK, "user": "ann", "soup": {"weights": {"loud": 0.9}}}).json()[
            "soup"
        ]
        refused = http.post("/v1/completions", json={**ASK, "user": "ann", "soup": {"weights": {"plain": 0.9}}})
    granted, refusal = records(server, "acme/ann")
    assert (granted["event"], granted["requested"], granted["granted"]) == ("grant", {"loud": 900000}, {"loud": 250000})
    assert granted["merge"] == soup["merge"]
    assert granted["policy"] == soup["policy"]["digest"]
    assert granted["binding"] == ["organisation/Example/calm-minors"]
    assert refused.status_code == 403
    assert (refusal["event"], refusal["reason"]) == ("refusal", "refused-by-rule")
    assert refusal["binding"] == ["organisation/Example/never-plain"]


def test_people_of_two_tenants_are_two_people(server: Running) -> None:
    for tenant in ("acme", "beta"):
        with server.http(tenant) as http:
            http.post("/v1/completions", json={**ASK, "user": "bob"})
    assert len(records(server, "acme/bob")) == len(records(server, "beta/bob")) == 1


def test_a_person_can_be_forgotten_by_their_tenants_operator_only(server: Running) -> None:
    with server.http() as acme, server.http("beta") as beta:
        beta.post("/v1/completions", json={**ASK, "user": "cid"})
        assert acme.delete("/v1/people/cid").status_code == 404
        acme.post("/v1/completions", json={**ASK, "user": "cid"})
        assert beta.delete("/v1/people/cid").status_code == 403
        assert acme.delete("/v1/people/cid").status_code == 204
        assert acme.delete("/v1/people/cid").status_code == 404
    assert records(server, "acme/cid") == []
    assert len(records(server, "beta/cid")) == 1
    assert verify(server.state.audit.folder).ok  # type: ignore[union-attr]


def test_what_cannot_be_recorded_is_not_answered(server: Running, monkeypatch: Any) -> None:
    from soupmix.errors import OutputError

    def full(_: object) -> None:
        raise OutputError("no space left on the disk", reason="write-failed")

    before = server.state.backend.state().prompt_tokens
    monkeypatch.setattr(server.state.audit, "append", full)
    with server.http() as http:
        answer = http.post("/v1/completions", json=ASK)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "write-failed")
    assert server.state.backend.state().prompt_tokens == before

"""The policy in force: reloaded without a restart, kept when the new one is wrong, not believed for ever."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from soupmix.audit import read_records
from soupmix.errors import Overloaded, PolicyError, PolicyRefusal
from soupmix.openai.errors import status_of
from soupmix.policy import Policy
from soupmix.serve.policies import InForce, Policies
from soupmix.serve.state import ServerConfig, Settings
from soupmix.store import Store
from tests.support.serving import MODEL, POLICY, Running

Start = Callable[..., AbstractContextManager[Running]]
ASK = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "temperature": 0, "max_tokens": 200}
CALM = {"soup": {"weights": {"calm": 0.8}}}
STRICT = POLICY.replace("rules:\n", "rules:\n- {id: less-calm, rule: bounds, adapter: calm, at_most: '0.1'}\n")


def test_adapters_that_can_be_gone_through_once_only_are_refused(
    config: Callable[..., ServerConfig], pico_store: Store
) -> None:
    made = config()
    with pytest.raises(TypeError, match="Collection"):
        replace(made, adapters=iter(pico_store))


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "acme.yaml"
    path.write_text(POLICY)
    return path


def test_who_runs_goes_on_under_the_grant_and_who_comes_gets_the_new_policy(start: Start, document: Path) -> None:
    with start(policies=lambda: (document,)) as server, server.http() as http:
        client = server.openai().chat.completions
        whole = client.create(**ASK, extra_body=CALM)  # type: ignore[call-overload]
        stream = client.create(**ASK, extra_body=CALM, stream=True)  # type: ignore[call-overload]
        before = next(stream).soup
        document.write_text(STRICT)
        state = server.state.backend.state()
        assert state.running + state.waiting == 1
        done = http.post("/v1/policy/reload")
        after = client.create(**ASK, extra_body=CALM)  # type: ignore[call-overload]
        text = "".join(choice.delta.content or "" for chunk in stream for choice in chunk.choices)
    assert (before["granted"], after.soup["granted"]) == ({"calm": "0.8"}, {"calm": "0.1"})
    assert text == whole.choices[0].message.content != after.choices[0].message.content
    assert (done.json()["before"], done.json()["now"]) == (before["policy"]["digest"], after.soup["policy"]["digest"])


@pytest.mark.parametrize(
    "wrong",
    ["rules: [", STRICT.replace("'0.1'", "1e5"), "", STRICT.replace("'0.1'", "'-0.1'")],
    ids=["not yaml", "no number", "empty", "nothing is allowed"],
)
def test_a_policy_that_is_wrong_changes_nothing(start: Start, document: Path, wrong: str) -> None:
    with start(policies=lambda: (document,)) as server, server.http() as http:
        before = http.get("/v1/policy").json()
        document.write_text(wrong)
        answer = http.post("/v1/policy/reload")
        assert answer.status_code == 409
        assert "the policy before stays in force" in answer.json()["error"]["message"]
        assert http.get("/v1/policy").json() == before
        assert http.get("/ready").status_code == 200
        assert 'soupmix_policy_reloads_total{outcome="refused"} 1.0' in http.get("/metrics").text


def test_only_an_operator_reloads_and_measures(server: Running) -> None:
    with server.http("beta") as http:
        for method, path in (("POST", "/v1/policy/reload"), ("GET", "/metrics")):
            answer = http.request(method, path)
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "not-an-operator")


def test_internal_reasons_stay_inside(server: Running) -> None:
    with server.http() as http:
        told = http.get("/v1/policy")
        assert [each["rule"] for each in told.json()["rules"]] == ["calm-minors", "never-plain"]
        assert "case 17" not in told.text + http.get("/v1/adapters").text
        most = {each["name"]: each["most"] for each in http.get("/v1/adapters").json()["data"]}
    assert most == {"calm": "1", "loud": "1", "plain": "1"}  # rules with a scope hold for some, not for everybody


def test_a_policy_that_ended_grants_nothing(pico_store: Store) -> None:
    clock = [datetime(2026, 11, 24, 12, tzinfo=UTC)]
    expires = clock[0] + timedelta(seconds=1)
    made = Policy.assemble((), pico_store, now=lambda: clock[0], expiries={"the signed set of the law": expires})
    fresh = InForce(made, signed=True, loaded=clock[0], expires=expires)
    policies = Policies(lambda: fresh, audited=True)
    assert policies.current() is fresh
    clock[0] = expires
    with pytest.raises(Overloaded) as caught:
        policies.current()
    assert caught.value.reason == "policy-ended"


def test_a_document_that_ended_grants_nothing(pico_store: Store, document: Path) -> None:
    document.write_text(POLICY + "valid: {until: 2027-01-31}\n")
    clock = [datetime(2027, 1, 31, 23, 59, tzinfo=UTC)]
    held = InForce(Policy.load(document, adapters=pico_store, now=lambda: clock[0]), signed=False, loaded=clock[0])
    assert held.policy.last_day == date(2027, 1, 31)
    policies = Policies(lambda: held, audited=True)
    assert policies.current() is held
    clock[0] += timedelta(minutes=1)
    with pytest.raises(Overloaded):
        policies.current()


def test_a_policy_that_wants_records_is_not_served_without(config: Callable[..., ServerConfig], start: Start) -> None:
    with pytest.raises(PolicyError) as caught, start(audit=None):
        pass
    assert caught.value.reason == "not-audited"
    assert isinstance(config().settings, Settings)


@pytest.fixture
def signed(tmp_path: Path) -> tuple[Path, Callable[[str], int]]:
    """A signed set of the organisation: its folder with the root, and how to publish a document."""
    pytest.importorskip("tuf")
    from securesystemslib.signer import CryptoSigner

    from soupmix.trust import RoleKeys, create, publish

    roots = [CryptoSigner.generate_ed25519()]
    keys = RoleKeys(CryptoSigner.generate_ed25519(), CryptoSigner.generate_ed25519())
    folder, now = tmp_path / "set", datetime.now(UTC)
    root = create(folder, root_keys=[roots[0].public_key], threshold=1, signers=roots, keys=keys, now=now)
    (tmp_path / "root.json").write_bytes(root)
    return folder, lambda text: publish(folder, {"acme.policy.yaml": text.encode()}, keys=keys, now=now)


def test_signed_sets_are_believed_and_reloaded(
    start: Start, signed: tuple[Path, Callable[[str], int]], tmp_path: Path
) -> None:
    from soupmix.trust import SignedSource

    folder, publish = signed
    publish(POLICY)
    source = SignedSource.pinned(folder, tmp_path / "root.json", state=tmp_path / "state")
    with start(policies=tuple, trust={"organisation": source}) as server, server.http() as http:
        told = http.get("/v1/policy").json()
        assert told["signed"] is True
        assert told["expires"] > time.time()
        publish(STRICT)
        assert http.post("/v1/policy/reload").status_code == 200
        asked = {**ASK, "max_tokens": 2, **CALM, "user": "ann"}
        soup = http.post("/v1/chat/completions", json=asked).json()["soup"]
        assert soup["granted"] == {"calm": "0.1"}
        assert soup["policy"]["signed"] is True
        record = [record for _, record in read_records(server.state.audit.folder)][-1]
        assert (record["entry"]["signed"], record["entry"]["granted"]) == (True, {"calm": 100000})
        (folder / "metadata" / "timestamp.json").write_text("{}")
        assert http.post("/v1/policy/reload").status_code == 409
        assert http.get("/v1/policy").json()["digest"] == soup["policy"]["digest"]


def test_a_server_stops_granting_when_its_signed_sets_expire(
    start: Start,
    signed: tuple[Path, Callable[[str], int]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from soupmix.policy.clock import Clock
    from soupmix.trust import SignedSource

    folder, publish = signed
    publish(POLICY)
    hands = [datetime.now(UTC)]
    monkeypatch.setattr("soupmix.policy.clock._MACHINE", Clock(lambda: hands[0], lambda: 0.0))
    source = SignedSource.pinned(folder, tmp_path / "root.json", state=tmp_path / "state")
    ask = {"weights": {"calm": 0.5}}
    with start(policies=tuple, trust={"organisation": source}) as server, server.http() as http:
        assert http.post("/v1/clamp", json=ask).status_code == 200
        hands[0] += timedelta(days=8)
        for _ in range(2):
            answer = http.post("/v1/clamp", json=ask)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "policy-ended")
            assert answer.headers["Retry-After"] == "30"
            assert http.post("/v1/chat/completions", json={**ASK, **CALM}).status_code == 503
            assert http.post("/v1/policy/reload").status_code == 409
            hands[0] -= timedelta(days=30)  # set back: it stays ended


def test_a_policy_that_ends_between_two_looks_is_not_the_requests_fault() -> None:
    """It was in force when the server looked, and had ended when it clamped."""
    for reason in ("ended", "too-slow"):
        assert status_of(PolicyRefusal("", reason=reason)) == 503
    assert status_of(PolicyRefusal("", reason="refused-by-rule")) == 403

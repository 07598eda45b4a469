"""A profile learns: what a person chooses moves its weights inside the policy, and the next chat uses them."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import pytest

from soupmix.audit import verify
from soupmix.audit.records import Chain
from soupmix.audit.segments import read_origin
from soupmix.audit.walk import walk
from soupmix.errors import Overloaded
from soupmix.policy.inferring import Inferring
from soupmix.preference import Traits
from soupmix.preference.learner import Values
from soupmix.serve.learners import Learners, Measurer
from soupmix.store import Store
from soupmix.surface import Surface
from tests.support.planted_soups import document_over
from tests.support.serving import POLICY, Running

SHORT, LONG, WARM = "Yes, I think that it is.", "word " * 40, "so glad to see you here " * 4
ADULT = {"attributes": {"audience": "adult"}}


def measured_by(traits: Traits) -> Callable[[str, Sequence[str]], list[Values | None]]:
    """Every character counts as a word; warm is how often somebody is glad. Measures that a test can do in its head."""

    def measure(_: str, texts: Sequence[str]) -> list[Values | None]:
        return [values(text) if text.split() else None for text in texts]

    def values(text: str) -> dict[str, float]:
        found = {"words": float(len(text)), "warmth": float(text.count("glad"))}
        return {each.name: found[each.key] for each in traits.axes}

    return measure


MEASURER = Measurer(("words", "warmth"), measured_by)


@pytest.fixture(scope="module")
def surface(pico_store: Store) -> Surface:
    return Surface.of(document_over(list(pico_store), {"short": "calm", "warm": "loud"}), pico_store)


@pytest.fixture(scope="module")
def learning(start: Callable[..., AbstractContextManager[Running]], surface: Surface) -> Iterator[Running]:
    with start(surface=surface, measurer=MEASURER) as made:
        yield made


class Person:
    """Somebody's profile over HTTP."""

    def __init__(self, http: Any, **profile: Any) -> None:
        self.http = http
        made = http.post("/v1/soups", json={"weights": {}, **profile})
        assert made.status_code == 201, made.text
        self.found: Any = None
        self.id, self.model = made.json()["id"], made.json()["model"]

    def url(self, *parts: str) -> str:
        return "/".join([f"/v1/soups/{self.id}", *parts])

    def likes(self, better: str, worse: str, **more: Any) -> Any:
        body = {"kind": "choice", "prompt": "Why?", "answers": [better, worse], "value": 0, **more}
        return self.http.post(self.url("feedback"), json=body)

    def known(self) -> Any:
        return self.http.get(self.url("evidence")).json()

    def soup(self) -> Any:
        ask = {"model": self.model, "messages": [{"role": "user", "content": "x"}], "max_tokens": 1}
        answer = self.http.post("/v1/chat/completions", json=ask)
        assert answer.status_code == 200, answer.text
        return answer.json()["soup"]


def test_what_is_chosen_moves_the_weights_and_the_next_chat_uses_them(learning: Running) -> None:
    with learning.http() as http:
        person = Person(http)
        assert person.soup()["granted"] == {}
        for number in range(4):
            taken = person.likes(SHORT, LONG, id=f"c{number}")
            assert taken.status_code == 201, taken.text
        told = taken.json()
        assert set(told["inferred"]) == {"calm"}
        assert float(told["inferred"]["calm"]) > 0.3
        soup = person.soup()
        assert soup["granted"] == soup["inferred"] == told["inferred"]
        assert not soup["clamped"]
        assert "inferred, not chosen: calm" in soup["explanation"]
        assert "choice c3 moved calm -" in soup["explanation"]
        length = told["wants"][0]
        assert (length["trait"], length["measure"], length["mean"] < length["high"] < 0) == ("calm", "words", True)
        assert (told["chosen"], told["refused"], told["withheld"], told["evidence"]) == ({}, None, [], 4)
        assert told["entry"]["answers"][0] == {
            "calm": pytest.approx(len(SHORT)),
            "loud": pytest.approx(0, abs=1e-9),
        }


def test_everything_can_be_seen_corrected_frozen_exported_and_forgotten(learning: Running) -> None:
    with learning.http() as http:
        person = Person(http)
        for number in range(3):
            tag = person.likes(SHORT, LONG, id=f"c{number}").headers["etag"]
        before = person.known()
        assert [each["id"] for each in before["data"]] == ["c2", "c1", "c0"]
        assert all(each["counts"] and each["request"].startswith("req_") for each in before["data"])
        first = before["data"][0]
        assert first["source"].startswith("key-")
        assert first["base"].startswith("sha256:")
        assert http.get(person.url("evidence"), params={"limit": 1}).json()["has_more"]
        assert http.delete(person.url("evidence", "c1"), headers={"If-Match": '"1"'}).status_code == 412
        gone = http.delete(person.url("evidence", "c1"), headers={"If-Match": tag})
        assert [each["id"] for each in gone.json()["data"]] == ["c2", "c0"]
        assert http.delete(person.url("evidence", "c1")).json()["error"]["code"] == "no-such-evidence"

        frozen = http.put(person.url("learning"), json={"frozen": True}).json()
        assert frozen["frozen"]
        assert frozen["inferred"] == gone.json()["inferred"] != {}
        assert refused(person.likes(LONG, SHORT)) == (409, "frozen")
        assert refused(http.post(person.url("next"), json={"prompt": "Why?"})) == (409, "frozen")
        assert person.soup()["inferred"] == frozen["inferred"]
        assert not http.put(person.url("learning"), json={"frozen": False}).json()["frozen"]

        for name in ("c0", "c2"):
            changed = http.put(person.url("evidence", name), json={"value": 1}).json()
        assert changed["inferred"] != gone.json()["inferred"]
        assert {each["value"] for each in changed["data"]} == {1.0}

        exported = http.get(person.url("evidence", "export"))
        assert exported.headers["content-disposition"] == 'attachment; filename="wants.json"'
        told = exported.json()
        assert [each["signal"]["id"] for each in told["evidence"]] == ["c0", "c2"]
        assert [each["id"] for each in told["wants"]["signals"]] == ["c0", "c2"]

        empty = http.delete(person.url("evidence")).json()
        assert (empty["data"], empty["inferred"], empty["evidence"]) == ([], {}, 0)
        assert person.soup()["granted"] == {}
        assert "inferred" not in person.soup()
        fresh = Person(http)
        assert [person.known()[key] for key in ("wants", "regret")] == [
            fresh.known()[key] for key in ("wants", "regret")
        ]


def test_forgetting_while_frozen_is_forgetting(learning: Running) -> None:
    with learning.http() as http:
        person = Person(http)
        for _ in range(3):
            person.likes(SHORT, LONG)
        http.put(person.url("learning"), json={"frozen": True})
        assert http.delete(person.url("evidence")).json()["inferred"] == {}
        assert person.soup()["granted"] == {}


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("problem", ["refused", "busy"])
def test_what_was_forgotten_moves_nothing_though_no_weights_could_be_inferred_then(
    learning: Running, monkeypatch: pytest.MonkeyPatch, problem: str, frozen: bool
) -> None:
    with learning.http() as http:
        person = Person(http)
        for _ in range(3):
            person.likes(SHORT, LONG)
        http.put(person.url("learning"), json={"frozen": frozen})
        assert person.soup()["granted"] != {}
        with monkeypatch.context() as patch:
            if problem == "refused":
                patch.setattr("soupmix.serve.learners.inferring", lambda *_: Inferring((), ()))
            else:
                patch.setattr(Learners, "turn", lambda *_: busy())
            gone = http.delete(person.url("evidence"))
            assert (gone.status_code, gone.json()["inferred"], gone.json()["evidence"]) == (200, {}, 0)
        assert person.soup()["granted"] == {}


def test_evidence_that_was_kept_is_taken_though_weights_have_to_wait(
    learning: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    with learning.http() as http:
        person = Person(http)
        person.likes(SHORT, LONG)
        with monkeypatch.context() as patch:
            turns = iter([nullcontext(), busy()])  # it is measured, and nobody has time to infer
            patch.setattr(Learners, "turn", lambda *_: next(turns))
            taken = person.likes(SHORT, LONG, id="again")
        assert taken.status_code == 201, "else whoever is refused sends it once more, and it counts twice"
        assert "follow" in taken.json()["refused"]
        assert (taken.json()["entry"]["id"], taken.json()["evidence"]) == ("again", 2)
        assert "choice again moved" in person.soup()["explanation"]


def test_frozen_weights_of_adapters_that_are_gone_are_no_more(learning: Running) -> None:
    with learning.http() as http:
        person = Person(http)
        person.likes(SHORT, LONG)
        version = http.put(person.url("learning"), json={"frozen": True}).json()["version"]
        old = {"weights": {"calm": 300_000, "gone": 500_000}, "basis": "of another store"}
        assert learning.state.evidence.settle("acme", person.id, version, **old)
        assert person.soup()["granted"] == {"calm": "0.3"}


@contextmanager
def busy() -> Iterator[None]:
    raise Overloaded("too many", reason="queue-full")
    yield


def test_what_somebody_chose_binds_what_is_inferred(learning: Running) -> None:
    with learning.http() as http:
        free, bound = Person(http, **ADULT), Person(http, weights={"loud": 0.1}, sources="explicit", **ADULT)
        for person in (free, bound):
            for _ in range(4):
                told = person.likes(WARM, LONG).json()
            person.found = told
        assert float(free.found["inferred"]["loud"]) > 0.3
        assert "loud" not in bound.found["inferred"]
        assert bound.found["chosen"] == {"loud": "0.1"}
        assert bound.soup()["granted"]["loud"] == "0.1"
        most = http.put(free.url("learning"), json={"most": {"loud": 0.2}}).json()
        assert most["inferred"]["loud"] == "0.2" == free.soup()["granted"]["loud"]
        # a weight that is chosen later binds at once: what was inferred is inferred anew beside it
        changed = http.put(free.url(), json={"weights": {"loud": 0.05, "calm": 0}, **ADULT})
        assert changed.status_code == 200
        assert free.soup()["granted"] == {"loud": "0.05"}


def test_budgets_are_for_what_was_chosen_first(
    start: Callable[..., AbstractContextManager[Running]], surface: Surface, tmp_path: Any
) -> None:
    """Under a budget that both cannot have, nothing that is inferred takes from what somebody chose."""
    policy = tmp_path / "budget.yaml"
    policy.write_text(POLICY.replace("rules:\n", "rules:\n- {rule: budget, at_most: '0.6'}\n"))
    with start(surface=surface, measurer=MEASURER, policies=lambda: (policy,)) as server, server.http() as http:
        person = Person(http, weights={"loud": 0.5}, **ADULT)
        for _ in range(5):
            told = person.likes(SHORT, LONG).json()
        assert told["inferred"] == {"calm": "0.1"}
        assert person.soup()["granted"] == {"calm": "0.1", "loud": "0.5"}
        policy.write_text(policy.read_text().replace("0.6", "0.52"))
        assert http.post("/v1/policy/reload").status_code == 200
        assert person.soup()["granted"] == {"calm": "0.02", "loud": "0.5"}


def refused(answer: Any) -> tuple[int, str]:
    told = answer.json()["error"]
    assert told["message"]
    return answer.status_code, told["code"]


def test_ids_count_once_and_are_of_their_profile_alone(learning: Running) -> None:
    with learning.http() as http, learning.http("beta") as others:
        person, other = Person(http), Person(others)
        assert person.likes(SHORT, LONG, id="mine").status_code == 201
        assert refused(person.likes(SHORT, LONG, id="mine")) == (409, "replayed")
        assert person.known()["evidence"] == 1, "nothing of what was refused stays"
        assert other.likes(SHORT, LONG, id="mine").status_code == 201, "another person's ids are theirs"
        for url in (
            person.url("evidence"),
            person.url("evidence", "mine"),
            person.url("next"),
            person.url("evidence/export"),
        ):
            assert refused(others.get(url) if "mine" not in url else others.delete(url)) == (404, "no-such-profile")
        assert refused(others.post(person.url("feedback"), json={"kind": "thumbs", "answers": ["x"], "value": 1})) == (
            404,
            "no-such-profile",
        )
        assert refused(others.put(person.url("learning"), json={"frozen": True})) == (404, "no-such-profile")
        assert refused(http.put(person.url("evidence", "other"), json={"value": 1})) == (404, "no-such-evidence")
        assert http.delete(person.url()).status_code == 204
        assert learning.state.evidence.entries("acme", person.id) == []


QUESTION = {"prompt": "Why?", "candidates": 3, "max_tokens": 12, "temperature": 1.5}


def test_a_question_is_two_answers_of_mixed_soups_inside_the_policy(learning: Running) -> None:
    with learning.http() as http:
        person, other = Person(http, attributes={"audience": "minor"}), Person(http)
        asked = ask_until_two(http, person)
        assert len({each["text"] for each in asked["answers"]}) == 2
        assert all(float(each["granted"].get("loud", 0)) <= 0.25 for each in asked["answers"])
        assert http.get(person.url("next")).json()["waiting"] == [asked["id"]]
        answer = {"question": asked["id"], "kind": "choice", "value": 0}
        assert refused(http.post(other.url("feedback"), json=answer)) == (404, "no-such-question")
        assert refused(http.post(person.url("feedback"), json={**answer, "answers": ["a", "b"]})) == (422, "bad-signal")
        taken = http.post(person.url("feedback"), json=answer)
        assert taken.status_code == 201
        assert taken.json()["entry"]["id"] == asked["id"]
        assert taken.json()["entry"]["answers"] == [each["values"] for each in asked["answers"]]
        assert refused(http.post(person.url("feedback"), json=answer)) == (409, "replayed")
        assert http.get(person.url("next")).json()["waiting"] == []
        assert refused(http.post(person.url("feedback"), json={**answer, "question": "q-none"})) == (
            404,
            "no-such-question",
        )


def ask_until_two(http: Any, person: Person) -> Any:
    """So small a model may say the same twice: another seed."""
    for seed in range(20):
        asked = http.post(person.url("next"), json={**QUESTION, "seed": seed})
        assert asked.status_code == 200, asked.text
        if asked.json()["id"]:
            return asked.json()
        assert "too much alike" in asked.json()["why"]
    raise AssertionError("nothing to choose between")


def test_no_more_is_asked_once_it_is_known_well_enough(learning: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    from soupmix.serve import questions

    with learning.http() as http:
        person = Person(http)
        assert not http.get(person.url("next")).json()["enough"]
        monkeypatch.setattr(questions, "ENOUGH", 1.1)
        for told in (http.get(person.url("next")).json(), http.post(person.url("next"), json=QUESTION).json()):
            assert (told["id"], told["answers"], told["enough"]) == (None, [], True)
            assert "well enough" in told["why"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"kind": "choice", "answers": ["a", "b"]}, 422, "bad-signal"),
        ({"kind": "choice", "answers": ["a"], "value": 0}, 422, "bad-signal"),
        ({"kind": "choice", "answers": ["a", "b"], "value": 0.5}, 422, "bad-signal"),
        ({"kind": "choice", "answers": ["a", " \n"], "value": 0}, 422, "not-measured"),
        ({"kind": "thumbs", "answers": ["a"], "value": 1, "toward": {"calm": 1}}, 422, "bad-signal"),
        ({"kind": "cue", "answers": ["a"], "toward": {"nothing": 1}}, 422, "other-traits"),
        ({"kind": "cue", "answers": ["a"]}, 422, "bad-signal"),
        ({"kind": "cue", "answers": ["a"], "toward": {"calm": 2}}, 400, "less_than_equal"),
        ({"kind": "love", "answers": ["a"]}, 400, "literal_error"),
        ({"kind": "thumbs", "answers": None, "value": 1}, 400, "list_type"),
        ({"kind": "thumbs", "answers": [None], "value": 1}, 400, "string_type"),
        ({"kind": "thumbs", "answers": [""], "value": 1}, 400, "string_too_short"),
        ({"kind": "thumbs", "answers": ["x" * 20_001], "value": 1}, 400, "string_too_long"),
        ({"kind": "thumbs", "answers": ["a", "b", "c"], "value": 1}, 400, "too_long"),
        ({"kind": "thumbs", "answers": ["a"], "value": True}, 400, "float_type"),
        ({"kind": "thumbs", "answers": ["a"], "value": 1e300}, 400, "less_than_equal"),
        ({"kind": "thumbs", "answers": ["a"], "value": 1, "id": "Ä"}, 400, "string_pattern_mismatch"),
        ({"kind": "thumbs", "answers": ["a"], "value": 1, "id": "x" * 64}, 400, "string_pattern_mismatch"),
        ({"kind": "thumbs", "answers": ["a"], "value": 1, "id": "../x"}, 400, "string_pattern_mismatch"),
        ({"kind": "thumbs", "answers": ["a"], "value": 1, "source": "me"}, 400, "extra_forbidden"),
        ({"kind": "thumbs", "answers": ["a"], "value": 1, "at": 0}, 400, "extra_forbidden"),
        ({}, 400, "missing"),
    ],
)
def test_what_makes_no_sense_is_refused(learning: Running, body: dict[str, Any], status: int, code: str) -> None:
    with learning.http() as http:
        person = Person(http)
        assert refused(http.post(person.url("feedback"), json=body)) == (status, code)
        assert person.known()["evidence"] == 0


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999", "-Infinity"])
def test_what_is_no_json_number_is_refused(learning: Running, number: str) -> None:
    with learning.http() as http:
        body = f'{{"kind": "thumbs", "answers": ["a"], "value": {number}}}'
        sent = http.post(Person(http).url("feedback"), content=body, headers={"Content-Type": "application/json"})
        assert sent.status_code == 400


RULE = "rules:\n- {id: children, rule: infer, dimensions: [], scope: {audience: [minor]}, public_reason: not of children}\n"


def test_where_the_policy_says_so_nothing_is_inferred_and_nothing_is_kept(
    start: Callable[..., AbstractContextManager[Running]], surface: Surface, tmp_path: Any
) -> None:
    policy = tmp_path / "house.yaml"
    policy.write_text(POLICY.replace("rules:\n", RULE))
    with start(surface=surface, measurer=MEASURER, policies=lambda: (policy,), evidence=6) as server:
        with server.http("school") as http:
            child = Person(http)
            assert refused(child.likes(SHORT, LONG)) == (403, "not-inferred")
            assert "not of children" in child.likes(SHORT, LONG).json()["error"]["message"]
            assert refused(http.post(child.url("next"), json=QUESTION)) == (403, "not-inferred")
            known = child.known()
            assert (known["evidence"], known["wants"], known["inferred"]) == (0, [], {})
            assert "not of children" in known["refused"]
            assert child.soup()["granted"] == {}
        with server.http() as http:
            person = Person(http, attributes={"audience": "adult"})
            for _ in range(3):
                person.likes(SHORT, LONG)
            assert person.soup()["granted"] != {}
            flood = [refused(person.likes(SHORT, LONG)) for _ in range(2)]
            assert flood == [(409, "source-full")] * 2, "of one source at most half"

            # what may be inferred no more is used no more, and can still be seen, exported and forgotten
            policy.write_text(policy.read_text().replace("[], scope: {audience: [minor]}", "[loud]"))
            assert http.post("/v1/policy/reload").status_code == 200
            assert person.soup()["granted"] == {}
            known = person.known()
            assert (known["evidence"], known["counted"], known["inferred"]) == (3, 3, {})
            assert [each["trait"] for each in known["wants"]] == ["loud"], "nothing is told of what may not be inferred"
            assert all(each["translated"] for each in known["data"])
            assert [each["adapters"] for each in known["withheld"]] == [["calm", "plain"]]
            policy.write_text(policy.read_text().replace("[loud]", "[]"))
            http.post("/v1/policy/reload")
            assert person.soup()["granted"] == {}
            assert len(http.get(person.url("evidence/export")).json()["evidence"]) == 3
            assert http.delete(person.url("evidence")).json()["evidence"] == 0


def test_a_change_of_weights_is_on_record_as_inferred(
    start: Callable[..., AbstractContextManager[Running]], surface: Surface, tmp_path: Any
) -> None:
    audit = tmp_path / "audit"
    with start(surface=surface, measurer=MEASURER, audit=audit) as server, server.http() as http:
        person = Person(http)
        changes = []
        for text in (SHORT, SHORT, WARM):
            changes.append(person.likes(text, LONG).json()["inferred"])
        http.delete(person.url("evidence"))
        changes.append({})
        person.soup()
    lines = [record for _, record in walk(audit, Chain(read_origin(audit))) if record is not None]
    entries = [line["entry"] for line in lines]
    recorded = [each for each in entries if each["event"] == "change"]
    assert {each["source"] for each in recorded} == {"inferred"}
    known = [{name: f"{micro / 1e6:g}" for name, micro in each["granted"].items()} for each in recorded]
    told = [each for place, each in enumerate(changes) if place == 0 or each != changes[place - 1]]
    assert known == told
    assert len({line["who"] for line in lines if line["entry"]["event"] in ("change", "grant")}) == 1
    assert not any(key in line for line in map(json.dumps, lines) for key in ("glad", "word word", person.id))
    assert verify(audit).ok


def test_evidence_of_other_adapters_is_translated_by_what_was_measured_or_set_aside(learning: Running) -> None:
    with learning.http() as http:
        person = Person(http)
        person.likes(SHORT, LONG, id="here")
        store = learning.state.evidence
        (entry,) = store.entries("acme", person.id)
        far = replace(entry.traits, of="sha256:" + "f" * 64)
        other = replace(far, axes=tuple(replace(each, key=f"other-{each.name}") for each in far.axes))
        with store.change("acme", person.id, None) as change:
            for name, traits in (("far", far), ("other", other)):
                signal = entry.signal.model_copy(update={"id": name, "traits": traits.digest})
                change.add(replace(entry, signal=signal, traits=traits), 100)
        told = {each["id"]: each for each in person.known()["data"]}
        assert [told[name]["counts"] for name in ("here", "far", "other")] == [True, True, False]
        assert [told[name]["translated"] for name in ("here", "far", "other")] == [False, True, False]
        assert "cannot be translated" in told["other"]["why"]


def test_a_turn_of_a_topic_is_answered_with_the_weights_of_that_topic(learning: Running) -> None:
    with learning.http() as http:
        person = Person(http, **ADULT)
        for number in range(8):
            assert person.likes(SHORT, LONG, id=f"law{number}", topic="law").status_code == 201
            told = person.likes(LONG, SHORT, id=f"food{number}", topic="food").json()
        assert 0 < told["topics"]["law"]["others"] < 1
        assert float(told["topics"]["law"]["inferred"]["calm"]) > 0.3

        def soup(**more: Any) -> Any:
            ask = {"model": person.model, "messages": [{"role": "user", "content": "x"}], "max_tokens": 1, "soup": more}
            return http.post("/v1/chat/completions", json=ask).json()["soup"]

        law = soup(topic="law")
        assert law["granted"] == law["inferred"] == told["topics"]["law"]["inferred"]
        assert law["topic"] == "law"
        assert "inferred for law, not chosen: calm" in law["explanation"]
        assert re.search(r"choice \w+\d moved calm ", law["explanation"])
        assert f"counts for {told['topics']['law']['others']:g} of what it says" in law["explanation"]
        assert "calm" not in soup(topic="food")["granted"]
        for other in (soup(), soup(topic="sport")):
            assert other["granted"] == told["inferred"]
            assert "topic" not in other
        assert http.get(person.url("grant"), params={"topic": "law"}).json()["granted"] == law["granted"]
        assert person.known()["topics"]["law"]["inferred"] == law["inferred"]
        http.put(person.url("learning"), json={"frozen": True})
        assert soup(topic="law")["granted"] == law["granted"]
        http.delete(person.url("evidence"))
        assert soup(topic="law")["granted"] == {}
        ask = {"model": "tiny", "messages": [{"role": "user", "content": "x"}], "soup": {"topic": "law"}}
        assert refused(http.post("/v1/chat/completions", json=ask)) == (400, "no-profile")
        assert http.post("/v1/clamp", json={"topic": "law"}).status_code == 400
        assert http.get(person.url("grant"), params={"topic": "Not a word"}).status_code == 400


def test_of_what_a_newer_policy_forbids_nothing_is_stored_and_what_is_stored_is_told_to_be_unused(
    start: Callable[..., AbstractContextManager[Running]], surface: Surface, tmp_path: Any
) -> None:
    policy = tmp_path / "house.yaml"
    policy.write_text(POLICY.replace("rules:\n", "rules:\n- {id: some, rule: infer, dimensions: [calm, loud]}\n"))
    with start(surface=surface, measurer=MEASURER, policies=lambda: (policy,)) as server, server.http() as http:
        person = Person(http, **ADULT)
        for number in range(3):
            person.likes(WARM, LONG, id=f"w{number}")
        assert "loud" in person.soup()["granted"]
        asked = ask_until_two(http, person)
        policy.write_text(policy.read_text().replace("[calm, loud]", "[calm]"))
        assert http.post("/v1/policy/reload").status_code == 200
        assert "loud" not in person.soup()["granted"]
        taken = http.post(person.url("feedback"), json={"question": asked["id"], "kind": "choice", "value": 0})
        assert taken.status_code == 201, taken.text
        told = {each["id"]: each for each in person.known()["data"]}
        assert all(set(each) == {"calm"} for each in told[asked["id"]]["answers"])
        assert told[asked["id"]]["unused"] == []
        assert [told[f"w{n}"]["unused"] for n in range(3)] == [["loud"]] * 3
        assert all(set(each["moved"]) == {"calm"} for each in told.values())
        kept = {each.signal.id: each for each in server.state.evidence.entries("acme", person.id)}
        assert kept["w0"].traits.names == ("calm", "loud"), "evidence is kept as it came"
        assert kept[asked["id"]].traits.names == ("calm",)
        policy.write_text(policy.read_text().replace("[calm]", "[loud]"))
        http.post("/v1/policy/reload")
        again = {each["id"]: each for each in person.known()["data"]}
        assert (again[asked["id"]]["counts"], again[asked["id"]]["unused"]) == (False, ["calm"])


def test_of_two_changes_of_one_version_one_is_made(learning: Running) -> None:
    with learning.http() as http:
        person = Person(http)
        tag = {"If-Match": person.likes(SHORT, LONG).headers["etag"]}
        body = {"kind": "thumbs", "answers": ["a"], "value": 1}
        sent = [http.post(person.url("feedback"), json=body, headers=tag) for _ in range(2)]
        assert [each.status_code for each in sent] == [201, 412]
        assert person.known()["evidence"] == 2


def test_a_conversation_is_answered_though_nobody_has_time_for_its_cue(
    learning: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    with learning.http() as http:
        person = Person(http)
        person.likes(SHORT, LONG)
        http.put(person.url("learning"), json={"listens": True})
        said = [("user", "Why?"), ("assistant", LONG), ("user", "Shorter please")]
        messages = [{"role": role, "content": text} for role, text in said]
        monkeypatch.setattr(Learners, "turn", lambda *_: busy())
        ask = {"model": person.model, "messages": messages, "max_tokens": 1}
        assert http.post("/v1/chat/completions", json=ask).status_code == 200


def test_a_cue_in_a_conversation_is_answered_by_the_new_soup(learning: Running) -> None:
    with learning.http() as http:
        person = Person(http)
        said = [
            {"role": "user", "content": "Why?"},
            {"role": "assistant", "content": LONG},
            {"role": "user", "content": "Shorter please"},
        ]
        ask = {"model": person.model, "messages": said, "max_tokens": 1}
        assert http.post("/v1/chat/completions", json=ask).json()["soup"]["granted"] == {}, "it does not listen"
        http.put(person.url("learning"), json={"listens": True})
        soups = [http.post("/v1/chat/completions", json=ask).json()["soup"] for _ in range(2)]
        assert float(soups[0]["inferred"]["calm"]) > 0
        assert soups[1] == soups[0], "the same conversation is heard once"
        assert re.search(r"cue c-\w+ moved calm -", soups[0]["explanation"])
        (entry,) = person.known()["data"]
        assert (entry["kind"], entry["toward"]) == ("cue", {"calm": -1.0})
        said[-1]["content"] = "How long is the Nile?"
        http.post("/v1/chat/completions", json=ask)
        http.put(person.url("learning"), json={"frozen": True})
        said[-1]["content"] = "That is too long"
        http.post("/v1/chat/completions", json=ask)
        assert person.known()["evidence"] == 1


def test_a_server_that_measures_nothing_learns_nothing(server: Running) -> None:
    with server.http() as http:
        person = Person(http)
        assert refused(person.likes(SHORT, LONG)) == (409, "no-measures")
        assert person.known()["refused"]
        assert person.soup()["granted"] == {}

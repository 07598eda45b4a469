"""What one person asked stays theirs: no count and no saved work tells another person of it, unless the operator says so."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from soupmix.audit import pseudonym, read_records
from soupmix.backends import Limits
from soupmix.errors import RecipeError
from soupmix.openai.requests import shared_prefix
from soupmix.serve.keys import ApiKeys
from tests.support.serving import MODEL, Running

Start = Callable[..., AbstractContextManager[Running]]
SECRET = "my pin is 4711"
SYSTEM = "You are kind."
Ask = Callable[..., tuple[int, int]]


@pytest.fixture
def ask(server: Running) -> Ask:
    """Tokens that an answer says were cached, and tokens that were computed for it: what time would tell."""

    def make(
        said: str, *, tenant: str = "acme", on: Running = server, system: str = "", **given: Any
    ) -> tuple[int, int]:
        before = on.state.backend.state().prompt_tokens
        talk = [{"role": "system", "content": system}] if system else []
        body = {"model": MODEL, "max_tokens": 1, "messages": [*talk, {"role": "user", "content": said}], **given}
        with on.http(tenant) as http:
            told = http.post("/v1/chat/completions", json=body).raise_for_status().json()["usage"]
        return told["prompt_tokens_details"]["cached_tokens"], on.state.backend.state().prompt_tokens - before

    return make


def test_a_person_goes_on_from_what_they_asked(ask: Ask) -> None:
    _, whole = ask(SECRET + "!", user="annie")
    cached, computed = ask(SECRET + "!", user="annie")
    assert cached == whole - 1
    assert computed == 1


@pytest.mark.parametrize("neighbour", [{"user": "bob"}, {}, {"tenant": "beta", "user": "annie"}], ids=str)
@pytest.mark.parametrize("owner", [{"user": "annie"}, {}], ids=str)
def test_a_neighbour_learns_nothing_from_counts_or_work(
    ask: Ask, owner: dict[str, Any], neighbour: dict[str, Any]
) -> None:
    """The attack: guess a character, and see from the count whether somebody began so. It read 44 in 1,325 requests."""
    ask(SECRET, **owner)
    for guess in (SECRET, "my pin is 4712", "my pin is 0000", "no pin is 4711"):
        again = {} if neighbour.get("user") is None else {"user": f"{neighbour['user']} {guess}"}
        cached, computed = ask(guess, **{**neighbour, **again})
        assert cached == 0, guess
        assert computed > len(guess), guess


def test_another_key_of_the_tenant_is_another_person(server: Running, ask: Ask) -> None:
    """A name is what an application calls its people; whoever has another key may call theirs alike."""
    server.keys["acme too"] = ApiKeys(server.state.keys._database).create("acme")
    ask("of one key", user="annie")
    assert ask("of one key", user="annie")[0] > 0
    assert ask("of one key", user="annie", tenant="acme too")[0] == 0


def test_the_answers_of_one_request_share_its_prompt_and_nobody_else_does(start: Start, ask: Ask) -> None:
    with start(limits=Limits(rows=1, length=256, waiting=8)) as server:  # so they come one after the other
        found = [ask("several at once", on=server, n=3) for _ in range(2)]
        whole = ask("several at once", on=server)[1]
    assert found == [(2 * (whole - 1), whole + 2)] * 2


def test_without_keys_there_is_one_person(start: Start, ask: Ask) -> None:
    with start(no_auth=True) as server:
        server.keys["nobody"] = "none"
        server.url = server.url.replace("127.0.0.1", "localhost")
        ask("hello", on=server, tenant="nobody")
        assert ask("hello", on=server, tenant="nobody")[0] > 0
        assert ask("hello", on=server, tenant="nobody", user="annie")[0] == 0


def test_a_declared_system_prompt_is_computed_once_for_one_merge(start: Start, ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "system.txt").write_text(f"{SYSTEM}\n")
    with start(shared=(tmp_path / "system.txt",)) as server:
        backend = server.state.backend
        prefix = shared_prefix(backend, SYSTEM)
        talk = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": SECRET}]
        assert backend.tokens(talk)[: len(prefix)] == prefix
        assert ask(SECRET, on=server, system=SYSTEM, user="annie")[0] == 0
        for guess in (SECRET, "my pin is 4712", "x"):
            assert ask(guess, on=server, system=SYSTEM, user=f"bob {guess}")[0] == len(prefix), "and no token more"
        assert ask(SECRET, on=server, system=SYSTEM)[0] == len(prefix)
        assert ask(SECRET, on=server, system="You are kinD.")[0] == 0
        assert ask(SECRET, on=server, system=SYSTEM, user="eve", tenant="beta")[0] == 0, "of another tenant nothing"
        weights = {"soup": {"weights": {"calm": 0.25}}}
        assert ask(SECRET, on=server, system=SYSTEM, user="fay", **weights)[0] == 0, "of another merge nothing"
        assert ask(SECRET, on=server, system=SYSTEM, user="annie")[0] > len(prefix)


def test_a_system_prompt_that_cannot_be_shared_is_refused_at_the_start(start: Start, tmp_path: Path) -> None:
    for content, reason in ((b"", "bad-prefix"), (b"\xff", "bad-prefix"), (b"x" * 300, "too-long")):
        (tmp_path / "system.txt").write_bytes(content)
        with pytest.raises(RecipeError) as caught, start(shared=(tmp_path / "system.txt",), limits=Limits(length=128)):
            pass
        assert caught.value.reason == reason
    with pytest.raises(RecipeError) as caught, start(shared=(tmp_path / "absent.txt",)):
        pass
    assert caught.value.reason == "unreadable"


def test_a_user_may_be_called_as_a_profile_is_and_is_another(server: Running) -> None:
    """They were one person in the log, and whoever knew a profile's id could ask in its name."""
    with server.http() as http:
        made = http.post("/v1/soups", json={"weights": {"calm": 0.5}}).json()
        talk = {"max_tokens": 1, "prompt": "what only the profile asked"}
        http.post("/v1/completions", json={**talk, "model": made["model"]}).raise_for_status()
        twin = {**talk, "model": MODEL, "user": made["id"], "soup": {"weights": {"calm": 0.5}, "sources": "stored"}}
        told = http.post("/v1/completions", json=twin).raise_for_status().json()
        assert told["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
        folder = server.state.audit.folder  # type: ignore[union-attr]
        names = [pseudonym(folder, f"acme/{each}") for each in (made["id"], f"soup:{made['id']}")]
        assert [record["who"] for _, record in read_records(folder)][-2:] == [names[1], names[0]]
        assert None not in names
        refused = http.post("/v1/completions", json={**twin, "user": made["model"]})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "user")
        assert http.delete(f"/v1/people/{made['model']}").status_code == 204
        assert pseudonym(folder, f"acme/{made['id']}") == names[0], "the user of that name is still known"

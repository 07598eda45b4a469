"""`/v1/soups`: profiles of a tenant, and nothing of another tenant's."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import Engine, event

from soupmix.store import Store
from tests.support.serving import MODEL, Running

CALM = {"weights": {"calm": 0.5}}


def test_a_profile_is_created_read_changed_exported_and_deleted(server: Running) -> None:
    with server.http() as http:
        made = http.post("/v1/soups", json={**CALM, "name": "Ann", "attributes": {"audience": "adult"}})
        assert made.status_code == 201
        place, first = made.headers["location"], made.headers["etag"]
        assert http.get(place).json() == made.json()
        assert http.get(place).headers["etag"] == first
        assert http.get(place, headers={"If-None-Match": first}).status_code == 304
        changed = http.put(place, json={"weights": {"loud": "0.9"}}, headers={"If-Match": first})
        assert changed.json()["weights"] == {"loud": "0.9"}
        assert changed.json()["name"] is None
        assert changed.headers["etag"] != first
        assert http.get(place, headers={"If-None-Match": first}).status_code == 200
        assert http.get(f"{place}/grant").json()["granted"] == {"loud": "0.25"}
        assert http.delete(place, headers={"If-Match": first}).status_code == 412
        assert http.delete(place, headers={"If-Match": changed.headers["etag"]}).status_code == 204
        for call in (http.get, http.delete):
            assert call(place).json()["error"]["code"] == "no-such-profile"


def test_of_many_who_change_one_version_one_wins(server: Running) -> None:
    with server.http() as http:
        made = http.post("/v1/soups", json=CALM)

        def change(number: int) -> int:
            body, tag = {"weights": {"calm": number / 100}}, {"If-Match": made.headers["etag"]}
            return http.put(made.headers["location"], json=body, headers=tag).status_code

        with ThreadPoolExecutor(16) as pool:
            found = list(pool.map(change, range(16)))
    assert sorted(found) == [200, *[412] * 15]


def test_an_if_match_that_no_version_had_changes_nothing(server: Running) -> None:
    with server.http() as http:
        place = http.post("/v1/soups", json=CALM).headers["location"]
        for tag in ('"2"', "1", "x", '"', '"٢"', '"99999999999999999999"', 'W/"1"'):
            assert http.put(place, json=CALM, headers={"If-Match": tag.encode()}).status_code == 412, tag
        assert http.put(place, json=CALM, headers={"If-Match": "*"}).status_code == 200


def test_a_name_is_taken_once_per_tenant(server: Running) -> None:
    with server.http() as acme, server.http("beta") as beta:
        assert acme.post("/v1/soups", json={**CALM, "name": "Bob"}).status_code == 201
        again = acme.post("/v1/soups", json={**CALM, "name": "Bob"})
        assert (again.status_code, again.json()["error"]["code"]) == (409, "name-taken")
        assert beta.post("/v1/soups", json={**CALM, "name": "Bob"}).status_code == 201
        place = acme.post("/v1/soups", json=CALM).headers["location"]
        assert acme.put(place, json={**CALM, "name": "Bob"}).status_code == 409


def test_the_policy_decides_anew_what_is_granted(server: Running) -> None:
    with server.http() as http:
        refused = http.post("/v1/soups", json={"weights": {"plain": 1}})
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "refused-by-rule")
        narrowed = http.post("/v1/soups", json={"weights": {"loud": 0.9}})
        assert narrowed.json()["weights"] == {"loud": "0.9"}


def test_profiles_come_in_pages(start: Callable[..., AbstractContextManager[Running]]) -> None:
    with start(profiles=7) as server, server.http("beta") as http:
        made = {http.post("/v1/soups", json=CALM).json()["id"] for _ in range(7)}
        full = http.post("/v1/soups", json=CALM)
        assert (full.status_code, full.json()["error"]["code"]) == (409, "too-many-profiles")
        seen: list[str] = []
        more = True
        while more:
            page = http.get("/v1/soups", params={"limit": 3, "after": seen[-1] if seen else ""}).json()
            seen += [each["id"] for each in page["data"]]
            more = page["has_more"]
        assert (set(seen), len(seen)) == (made, 7)


def test_an_export_is_a_recipe_that_merge_takes(
    server: Running, pico_store: Store, run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    with server.http() as http:
        asked = {"weights": {"calm": 0.5}, "name": "# x: y", "attributes": {"audience": "adult"}, "sources": "explicit"}
        place = http.post("/v1/soups", json=asked).headers["location"]
        recipe = tmp_path / "recipe.yaml"
        recipe.write_bytes(http.get(f"{place}/export").content)
    assert yaml.safe_load(recipe.read_text()) == {
        "weights": {"calm": "0.5"},
        "attributes": {"audience": "adult"},
        "sources": "explicit",
    }
    code, out, _ = run("merge", recipe, "--store", pico_store.folder, "--dry-run")
    assert (code, out.strip()) == (0, "calm=0.5")


@contextmanager
def statements(database: Engine) -> Iterator[list[str]]:
    """Every statement that the database is asked meanwhile, with its parameters left out."""
    found: list[str] = []

    def note(_: Any, __: Any, statement: str, *more: Any) -> None:
        found.append(statement)

    event.listen(database, "before_cursor_execute", note)
    yield found
    event.remove(database, "before_cursor_execute", note)


CALLS = {
    "read": ("GET", "/v1/soups/{id}", None),
    "grant": ("GET", "/v1/soups/{id}/grant", None),
    "export": ("GET", "/v1/soups/{id}/export", None),
    "change": ("PUT", "/v1/soups/{id}", CALM),
    "delete": ("DELETE", "/v1/soups/{id}", None),
    "model": ("GET", "/v1/models/soup:{id}", None),
    "chat": ("POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}], "model": "soup:{id}"}),
    "complete": ("POST", "/v1/completions", {"prompt": "hi", "model": "soup:{id}"}),
}


@pytest.mark.parametrize("call", sorted(CALLS))
def test_what_is_anothers_is_as_if_it_were_not_there(server: Running, call: str) -> None:
    """Same status, same answer, and the same statements in the database: nothing to see, to guess or to time."""
    method, path, body = CALLS[call]
    with server.http() as acme, server.http("beta") as beta:
        theirs = acme.post("/v1/soups", json=CALM).json()["id"]
        seen = []
        for name in (theirs, "A" * len(theirs)):
            ask = body and {**body, "model": body["model"].format(id=name)} if body and "model" in body else body
            with statements(server.state.profiles._database) as asked:
                answer = beta.request(method, path.format(id=name), json=ask)
            assert answer.status_code == 404
            headers = {key: value for key, value in answer.headers.items() if key not in ("x-request-id", "date")}
            seen.append((answer.text.replace(name, "<id>"), headers, asked))
        assert seen[0] == seen[1]
        assert acme.get(f"/v1/soups/{theirs}").json()["weights"] == {"calm": "0.5"}


def test_ids_say_nothing(server: Running) -> None:
    with server.http() as http:
        made = [http.post("/v1/soups", json=CALM).json()["id"] for _ in range(20)]
    assert all(len(each) == 24 for each in made)
    assert len({each[:4] for each in made}) > 15
    assert MODEL not in "".join(made)

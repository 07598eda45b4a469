"""Activated soups over HTTP: `soup.mode` of a request, of a profile, of a line of a batch, and where it is told."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import text

from soupmix.audit import read_records
from soupmix.backends.local import LocalBackend
from soupmix.engine import Engine, Sampling
from soupmix.errors import RecipeError
from soupmix.merge.recipe import read_recipe
from soupmix.policy import Policy
from soupmix.serve.state import ServerConfig
from soupmix.serve.tables import open_database
from tests.support.echo_backend import EchoBackend
from tests.support.serving import MODEL, Running

Start = Callable[..., AbstractContextManager[Running]]
TALK = [{"role": "user", "content": "why is the sky blue?"}]
NOTE = "mode answer: the prompt runs on the bare base, the answer on this soup"


def asked(**soup: Any) -> dict[str, Any]:
    return {
        "model": MODEL,
        "messages": TALK,
        "max_tokens": 8,
        "temperature": 0,
        "soup": {"weights": {"calm": 0.25}, **soup},
    }


def test_a_request_says_where_its_soup_acts(server: Running, plain: Engine, pico_store: Any) -> None:
    backend = server.state.backend
    assert isinstance(backend, LocalBackend)
    with server.http() as http:
        found = {
            mode: http.post("/v1/chat/completions", json=asked(**given)).raise_for_status().json()
            for mode, given in (("unsaid", {}), ("full", {"mode": "full"}), ("answer", {"mode": "answer"}))
        }
        with http.stream("POST", "/v1/chat/completions", json={**asked(mode="answer"), "stream": True}) as stream:
            lines = [json.loads(line[6:]) for line in stream.iter_lines() if line.startswith("data: {")]
    grant = Policy.open(tuple(pico_store)).clamp({"calm": 0.25})
    for mode in ("full", "answer"):
        text = plain.complete([TALK], [grant], sampling=Sampling(max_new_tokens=8), mode=mode)[0].text  # type: ignore[arg-type]
        assert found[mode]["choices"][0]["message"]["content"] == text
    streamed = "".join(choice["delta"].get("content", "") for line in lines for choice in line["choices"])
    assert streamed == found["answer"]["choices"][0]["message"]["content"]
    told = {mode: each["soup"] for mode, each in found.items()}
    assert told["unsaid"] == told["full"]
    assert "mode" not in told["full"]
    assert (told["answer"]["mode"], lines[0]["soup"]["mode"]) == ("answer", "answer")
    assert told["answer"]["explanation"] == f"{told['full']['explanation']}\n{NOTE}"
    assert told["answer"]["merge"] != told["full"]["merge"]
    assert told["answer"]["granted"] == told["full"]["granted"], "a grant is a grant"


def test_the_audit_log_says_it_too(server: Running) -> None:
    with server.http() as http:
        merges = [
            http.post("/v1/chat/completions", json=asked(mode=mode)).raise_for_status().json()["soup"]["merge"]
            for mode in ("answer", "full")
        ]
    assert server.state.audit is not None
    entries = [record["entry"] for _, record in read_records(server.state.audit.folder)][-2:]
    assert [each["merge"] for each in entries] == merges
    assert [each.get("mode") for each in entries] == ["answer", None]


@pytest.mark.parametrize("wrong", ["prompt", None, 1, True, ["answer"], {}, ""])
def test_what_is_no_mode_is_refused(server: Running, wrong: Any) -> None:
    with server.http() as http:
        for path, body in (
            ("/v1/chat/completions", asked(mode=wrong)),
            ("/v1/clamp", {"weights": {"calm": 0.25}, "mode": wrong}),
            ("/v1/soups", {"weights": {"calm": 0.25}, "mode": wrong}),
        ):
            refused = http.post(path, json=body)
            assert refused.status_code == 400, path
            assert "'full' or 'answer'" in refused.json()["error"]["message"]
            assert "\n" not in refused.json()["error"]["message"]


def test_a_profile_has_a_mode_and_a_request_may_have_another(server: Running, tmp_path: Path) -> None:
    with server.http() as http:
        made = http.post("/v1/soups", json={"weights": {"calm": 0.25}, "mode": "answer"}).raise_for_status().json()
        other = http.post("/v1/soups", json={"weights": {"calm": 0.25}}).raise_for_status().json()
        assert (made["mode"], other["mode"]) == ("answer", "full")
        talk = {"messages": TALK, "max_tokens": 2, "model": made["model"]}
        for soup, mode in ((None, "answer"), ({"attributes": {}}, "answer"), ({"mode": "full"}, None)):
            body = talk if soup is None else {**talk, "soup": soup}
            assert http.post("/v1/chat/completions", json=body).raise_for_status().json()["soup"].get("mode") == mode
        assert http.get(f"/v1/soups/{made['id']}/grant").json()["mode"] == "answer"
        exported = [http.get(f"/v1/soups/{each['id']}/export").text for each in (made, other)]
        changed = http.put(f"/v1/soups/{made['id']}", json={"weights": {"calm": 0.25}}).raise_for_status().json()
        assert changed["mode"] == "full", "what a change does not say it takes away"
    assert yaml.safe_load(exported[0])["mode"] == "answer"
    for number, each in enumerate(exported):
        (tmp_path / f"{number}.yaml").write_text(each)
    with pytest.raises(RecipeError, match="mode 'answer' cannot be merged: weights that are merged act on every token"):
        read_recipe(tmp_path / "0.yaml")
    assert read_recipe(tmp_path / "1.yaml").weights


def test_targets_are_asked_in_full_mode_only(server: Running) -> None:
    """What soups are expected to do was measured so."""
    with server.http() as http:
        refused = http.post("/v1/soups/ask", json={"targets": {"words": 60}, "mode": "answer"})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "mode")


def test_a_backend_without_the_mode_refuses_it_before_anything_is_recorded(
    start: Start, config: Callable[..., ServerConfig]
) -> None:
    with start(backend=EchoBackend) as server:
        assert server.state.audit is not None
        before = len(list(read_records(server.state.audit.folder)))
        with server.http() as http:
            refused = http.post("/v1/chat/completions", json=asked(mode="answer"))
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "mode")
        assert "mode 'answer' is not known; choose one of full" in refused.json()["error"]["message"]
        records = [record["entry"] for _, record in read_records(server.state.audit.folder)][before:]
        assert [each["event"] for each in records] in ([], ["refusal"])


def test_profiles_of_before_act_everywhere(tmp_path: Path) -> None:
    """A database of the version before is migrated: its profiles have full mode."""
    import alembic.command
    from alembic.config import Config
    from sqlalchemy import create_engine

    from soupmix.serve import tables

    path = tmp_path / "serve.db"
    old = create_engine(f"sqlite:///{path}")
    settings = Config()
    settings.set_main_option("script_location", str(tables._MIGRATIONS))
    with old.begin() as connection:
        settings.attributes["connection"] = connection
        alembic.command.upgrade(settings, "0001")
        said = "insert into profiles values ('acme', 'x', 'Ann', '{}', '{}', '{}', 1, 0, 0)"
        connection.execute(text(said))
    old.dispose()
    path.chmod(0o600)
    database = open_database(str(path))
    with database.connect() as connection:
        assert connection.execute(text("select name, mode from profiles")).all() == [("Ann", "full")]
    database.dispose()

"""The server as a process: signals, kills, and what is refused at the start."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from soupmix.audit import pseudonym, read_records, verify
from soupmix.base import Base
from soupmix.serve.keys import ApiKeys
from soupmix.serve.tables import open_database
from soupmix.store import Store
from tests.support.serving import MODEL, POLICY

BINARY = [sys.executable, "-c", "from soupmix.cli import run; run()", "serve"]


@dataclass
class Process:
    """A server of its own."""

    child: "subprocess.Popen[str]"
    lines: list[dict[str, Any]]
    key: str

    @property
    def http(self) -> httpx.Client:
        """A client with an operator's key."""
        port = next(each["port"] for each in self.lines if each["event"] == "listening")
        headers = {"Authorization": f"Bearer {self.key}"}
        return httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=30, trust_env=False)

    def wait(self, event: str) -> dict[str, Any]:
        """The first line of the log about an event."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            for line in self.lines:
                if line["event"] == event:
                    return line
            time.sleep(0.02)
        raise AssertionError(f"no {event!r} in {self.lines}")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "acme.yaml").write_text(POLICY)
    return tmp_path


@pytest.fixture
def spawn(home: Path, tiny_base: Base, pico_store: Store, session_cache: Path) -> Callable[..., Any]:
    """Run `soupmix serve` in `home`; kill it at the end, whatever happened."""
    database = open_database(str(home / "serve.db"))
    key = ApiKeys(database).create("acme", operator=True)
    database.dispose()
    words = ["--base", str(tiny_base.folder), "--store", str(pico_store.folder), "--policy", "acme.yaml"]
    words += ["--allow-unsigned", "--model", MODEL, "--dtype", "fp32", "--database", "serve.db", "--audit", "audit"]
    words += ["--port", "0", "--rows", "4", "--length", "256", "--drain", "10"]

    @contextmanager
    def run(*more: str) -> Iterator[Process]:
        environment = {**os.environ, "SOUPMIX_CACHE": str(session_cache)}
        child = subprocess.Popen([*BINARY, *words, *more], cwd=home, stderr=subprocess.PIPE, text=True, env=environment)
        made = Process(child, [], key)
        reader = threading.Thread(target=_read, args=(child, made.lines))
        reader.start()
        try:
            made.wait("listening")
            yield made
        finally:
            child.kill()
            child.wait()
            reader.join()
            child.stderr.close()  # type: ignore[union-attr]

    return run


def _read(child: "subprocess.Popen[str]", lines: list[dict[str, Any]]) -> None:
    for line in child.stderr or ():
        with suppress(ValueError):
            lines.append(json.loads(line))


def test_signals_reload_and_end_and_the_log_tells_no_secrets(spawn: Callable[..., Any], home: Path) -> None:
    with spawn() as process, process.http as http:
        before = http.get("/v1/policy").json()["digest"]
        (home / "acme.yaml").write_text(POLICY.replace("'0.25'", "'0.2'"))
        process.child.send_signal(signal.SIGHUP)
        assert process.wait("policy loaded")["before"] == before
        assert http.get("/v1/policy").json()["digest"] != before
        (home / "acme.yaml").write_text("rules: [")
        process.child.send_signal(signal.SIGHUP)
        assert process.wait("policy refused")["reason"]

        said = {"role": "user", "content": "my secret is 4711"}
        ask = {"model": MODEL, "messages": [said], "max_tokens": 150, "stream": True, "user": "anna-4711"}
        with http.stream("POST", "/v1/chat/completions", json=ask) as stream:
            events = stream.iter_lines()
            next(events)
            process.child.send_signal(signal.SIGTERM)
            process.wait("draining")
            rest = [line for line in events if line]
        assert rest[-1] == "data: [DONE]"
        assert process.child.wait(20) == 0
        process.wait("ended")
    told = json.dumps(process.lines)
    for secret in ("4711", "secret", process.key):
        assert secret not in told
    request = [line for line in process.lines if line["event"] == "request"][-1]
    assert (request["route"], request["status"], request["tenant"]) == ("/v1/chat/completions", 200, "acme")
    assert request["id"].startswith("req_")
    assert verify(home / "audit").ok
    assert "4711" not in "".join(path.read_text("latin-1") for path in (home / "audit").rglob("*.jsonl"))


@pytest.mark.parametrize("kills", [1, pytest.param(10, marks=pytest.mark.slow)])
def test_nothing_acknowledged_is_lost_when_the_server_is_killed(
    spawn: Callable[..., Any], home: Path, kills: int
) -> None:
    profiles: list[dict[str, Any]] = []
    people: list[str] = []

    def write(process: Process, writer: int) -> None:
        with suppress(httpx.HTTPError), process.http as http:
            for number in range(10**6):
                made = http.post("/v1/soups", json={"weights": {"calm": number % 100 / 100}})
                profiles.append(made.raise_for_status().json())
                name = f"{process.child.pid}-{writer}-{number}"
                ask = {"model": profiles[-1]["model"], "prompt": "x", "max_tokens": 1, "user": name}
                http.post("/v1/completions", json=ask).raise_for_status()
                people.append(name)

    for kill in range(kills):
        with spawn() as process:
            writers = [threading.Thread(target=write, args=(process, each)) for each in range(4)]
            for each in writers:
                each.start()
            time.sleep(1.5 + 0.13 * kill)
            process.child.kill()
            for each in writers:
                each.join()
    with spawn() as process, process.http as http:
        lost = [each for each in profiles if http.get(f"/v1/soups/{each['id']}").json() != each]
        assert http.post("/v1/completions", json={"model": MODEL, "prompt": "x", "max_tokens": 1}).status_code == 200
        process.child.send_signal(signal.SIGTERM)
        assert process.child.wait(20) == 0
    recorded = {record["who"] for _, record in read_records(home / "audit")}
    unrecorded = [name for name in people if pseudonym(home / "audit", f"acme/{name}") not in recorded]
    assert (lost, unrecorded) == ([], [])
    assert len(people) > 5 * kills
    assert verify(home / "audit").ok


REFUSED = {
    "no policy": (["--no-auth"], 2, "there is no policy"),
    "unsigned policy": (["--no-auth", "--policy", "acme.yaml"], 2, "not signed"),
    "policy and none": (["--open", "--policy", "acme.yaml", "--allow-unsigned"], 2, "leave out"),
    "everybody from everywhere": (["--open", "--no-auth", "--host", "0.0.0.0"], 2, "not this machine alone"),
    "a name that is not local": (["--open", "--no-auth", "--host", "example.org"], 2, "not this machine alone"),
    "an audit key without a log": (["--open", "--no-auth", "--audit-key", "k.pem"], 2, "--audit DIR"),
    "no keys": (["--open"], 2, "no API key"),
    "no such database": (["--open", "--database", "nosuch://x"], 2, "nosuch"),
    "no such driver": (["--open", "--database", "mysql://x/y"], 2, "driver"),
    "no database there": (["--open", "--database", "postgresql+psycopg://127.0.0.1:9/x"], 1, "cannot be opened"),
    "no such policy": (["--no-auth", "--policy", "absent.yaml", "--allow-unsigned"], 1, "absent.yaml"),
    "records owed": (["--no-auth", "--policy", "acme.yaml", "--allow-unsigned"], 1, "--audit DIR"),
}


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_what_nobody_should_do_unknowingly_is_refused(
    run: Callable[..., tuple[int, str, str]],
    home: Path,
    tiny_base: Base,
    pico_store: Store,
    monkeypatch: pytest.MonkeyPatch,
    case: str,
) -> None:
    monkeypatch.chdir(home)
    words, code, said = REFUSED[case]
    usual = ["--base", tiny_base.folder, "--store", pico_store.folder]
    usual += [] if "--database" in words else ["--database", home / "serve.db"]
    done = run("serve", *usual, *words)
    assert done[0] == code, done
    assert said in done[2]


def test_keys_are_made_listed_and_revoked(run: Callable[..., tuple[int, str, str]], home: Path) -> None:
    where = ["--database", home / "keys.db"]
    code, out, _ = run("serve", "keys", "create", "--tenant", "acme", "--attribute", "audience=minor", *where)
    assert code == 0
    key = out.strip()
    database = open_database(str(home / "keys.db"))
    assert ApiKeys(database).caller(key).attributes == {"audience": "minor", "tenant": "acme"}
    (listed,) = json.loads(run("serve", "keys", "list", "--json", *where)[1])
    assert (listed["tenant"], listed["revoked"]) == ("acme", None)
    secret = key.rsplit("-", 1)[1] if key.count("-") == 3 else key.split("-", 3)[3]
    assert secret.encode() not in (home / "keys.db").read_bytes() + (home / "keys.db-wal").read_bytes()
    assert run("serve", "keys", "revoke", listed["id"], *where)[0] == 0
    assert "revoked" in run("serve", "keys", "list", *where)[1]
    with pytest.raises(Exception, match="not known"):
        ApiKeys(database).caller(key)
    assert run("serve", "keys", "revoke", "0000", *where)[0] == 2
    assert run("serve", "keys", "create", "--tenant", "Acme Inc", *where)[0] == 2
    assert run("serve", "keys", "create", "--tenant", "a", "--attribute", "tenant=b", *where)[0] == 2
    assert (home / "keys.db").stat().st_mode & 0o077 == 0
    database.dispose()


def test_the_rest_of_soupmix_does_without(home: Path) -> None:
    """`import soupmix` and `soupmix --help` import nothing that speaks HTTP or SQL."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "from soupmix.cli import cli; cli(['--help'])"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    for name in ("fastapi", "sqlalchemy", "uvicorn", "prometheus_client", "starlette", "torch"):
        assert name not in done.stderr

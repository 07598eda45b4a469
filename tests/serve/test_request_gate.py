"""Who is let in, and how much is read of whom: before any of a body is, and never more than there is room for."""

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import httpx
import pytest

from tests.support.serving import MODEL, Running

Start = Callable[..., AbstractContextManager[Running]]
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
BODY = json.dumps(CHAT).encode()


def place(server: Running) -> tuple[str, int]:
    host, port = server.url.removeprefix("http://").split(":")
    return host, int(port)


def head(*lines: str, key: str | None = None, path: str = "/v1/chat/completions", method: str = "POST") -> bytes:
    said = [f"{method} {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", *lines]
    said += [f"Authorization: Bearer {key}"] if key else []
    return "\r\n".join([*said, "", ""]).encode()


def told(line: socket.socket) -> bytes:
    """Everything until the server hangs up."""
    line.settimeout(20)
    found = b""
    while data := line.recv(65536):
        found += data
    return found


def _until(true: Callable[[], bool], seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.005)
    return true()


BOTH = {
    "length first": ("Content-Length: {size}", "Transfer-Encoding: chunked"),
    "chunked first": ("Transfer-Encoding: chunked", "Content-Length: {size}"),
    "another case": ("CONTENT-LENGTH: {size}", "tRANSFER-eNCODING: chunked"),
}


@pytest.mark.parametrize("case", sorted(BOTH))
def test_a_body_of_two_lengths_is_refused_and_nothing_behind_it_is_read(server: Running, case: str) -> None:
    """Two readers that each believe another length see two different requests: smuggling."""
    chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
    lines = [line.format(size=len(chunked)) for line in BOTH[case]]
    with socket.create_connection(place(server)) as line:
        line.sendall(head(*lines, key=server.keys["acme"]) + chunked + head(method="GET", path="/health"))
        found = told(line)
    assert found.startswith(b"HTTP/1.1 400")
    assert found.count(b"HTTP/1.1 ") == 1
    assert b"bad-framing" in found


def test_who_has_no_key_is_told_so_before_the_body_comes(server: Running) -> None:
    for key in (None, "sk-soupmix-0000000000000000-" + "A" * 43, server.keys["acme"][:-1] + "!"):
        with socket.create_connection(place(server)) as line:
            line.sendall(head(f"Content-Length: {1 << 20}", key=key) + b"{")
            found = told(line)
        assert found.startswith(b"HTTP/1.1 401"), found[:200]


def test_nothing_that_a_stranger_sends_is_held(start: Start) -> None:
    with start() as server, ExitStack() as stack:
        lines = [stack.enter_context(socket.create_connection(place(server))) for _ in range(50)]
        for line in lines:
            line.sendall(head(f"Content-Length: {1 << 20}") + b"x" * 100)
        assert server.state.bodies.held == 0
        assert all(told(line).startswith(b"HTTP/1.1 401") for line in lines)


def test_a_stranger_is_answered_where_everybody_is(server: Running) -> None:
    with server.http(None) as http:
        for path in ("/health", "/ready", "/openapi.json", "/"):
            assert http.request("GET", path, content=b"x" * 1000).status_code == 200
        assert http.post("/v1/chat/completions", content=BODY * 100).status_code == 401
        assert http.post("/nowhere", content=BODY * 100).status_code == 404


def test_all_bodies_that_are_being_read_have_one_budget(start: Start) -> None:
    """Whoever fills a share of it is told to come again, and nobody else is."""
    with start(body=1 << 16, bodies=1 << 18) as server, ExitStack() as stack:
        lines = [stack.enter_context(socket.create_connection(place(server))) for _ in range(9)]
        for line in lines[:2]:
            line.sendall(head(f"Content-Length: {1 << 16}", key=server.keys["acme"]) + b" " * 65000)
        assert _until(lambda: server.state.bodies.held == 130_000)
        lines[2].sendall(head(f"Content-Length: {1 << 16}", key=server.keys["acme"]) + b" " * 65000)
        found = told(lines[2])
        assert found.startswith(b"HTTP/1.1 429")
        assert b"bodies-full" in found
        assert b"retry-after" in found
        with server.http("beta") as http:
            assert http.post("/v1/chat/completions", json=CHAT).status_code == 200
        for line in lines[:2]:
            line.close()
        assert _until(lambda: server.state.bodies.held == 0)
        with server.http() as http:
            assert http.post("/v1/chat/completions", json=CHAT).status_code == 200
    assert server.state.bodies.held == 0


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/policy/reload", "/v1/models", "/nowhere"])
def test_the_budget_is_given_back_however_a_request_ends(server: Running, path: str) -> None:
    with server.http() as http:
        for body in (BODY, b"{", b"x" * (1 << 21), b"", b"[" * 30_000):
            http.post(path, content=body, headers={"Content-Type": "application/json"})
            assert _until(lambda: server.state.bodies.held == 0)


def test_a_hostile_body_stalls_nobody(start: Start) -> None:
    """The worst of `test_hostile_bodies`, over HTTP: meanwhile everybody else is answered."""
    with start() as server, ExitStack() as stack:
        for item in (b"{}", b"[]", b'"', b"1.5", b"0"):
            body = b'{"model":"tiny","prompt":[' + b",".join([item] * 340_000)[: (1 << 20) - 100] + b"]}"
            line = stack.enter_context(socket.create_connection(place(server)))
            asked = head(f"Content-Length: {len(body)}", key=server.keys["acme"], path="/v1/completions")
            line.sendall(asked + body)
        slowest = 0.0
        with server.http(None) as http:
            for _ in range(40):
                began = time.monotonic()
                assert http.get("/health").status_code == 200
                slowest = max(slowest, time.monotonic() - began)
    assert slowest < 2, "one such body took 8 to 16 seconds of everybody's"


def test_a_text_that_cannot_fit_never_becomes_tokens(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forty of a megabyte at once would take 3 GiB."""

    def never(_: object) -> None:
        raise AssertionError("it became tokens")

    monkeypatch.setattr(server.state.backend, "tokens", never)
    long = "x" * 1_000_000
    chat = {**CHAT, "messages": [{"role": "user", "content": long[:500_000]}] * 2}
    with server.http() as http:
        for path, body in (("chat/completions", chat), ("completions", {"model": MODEL, "prompt": ["x", long]})):
            answer = http.post(f"/v1/{path}", json=body)
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "too-long")


ELSEWHERE = {
    "another site": {"Origin": "https://evil.example"},
    "another port of this machine": {"Origin": "http://localhost:1"},
    "no site": {"Origin": "null"},
    "another site, by what the browser says": {"Sec-Fetch-Site": "cross-site"},
    "another port, by what the browser says": {"Sec-Fetch-Site": "same-site"},
    "two origins": {"Origin": "http://{host} http://evil.example"},
    "a name that begins alike": {"Origin": "http://{host}.evil.example"},
    "a right origin, and the browser says otherwise": {"Origin": "http://{host}", "Sec-Fetch-Site": "cross-site"},
}
CHANGING = (
    ("POST", "/v1/policy/reload"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/clamp"),
    ("POST", "/v1/soups"),
    ("PUT", "/v1/soups/x"),
    ("DELETE", "/v1/soups/x"),
    ("DELETE", "/v1/people/ann"),
)


@pytest.fixture(scope="module")
def open_server(start: Start) -> Iterator[Running]:
    with start(no_auth=True, origins=("https://friend.example",)) as server:
        yield server


@pytest.mark.parametrize("case", sorted(ELSEWHERE))
def test_without_keys_no_page_elsewhere_changes_anything(open_server: Running, case: str) -> None:
    host = open_server.url.removeprefix("http://")
    headers = {name: value.format(host=host) for name, value in ELSEWHERE[case].items()}
    loaded = open_server.state.policies.held.loaded
    with httpx.Client(base_url=open_server.url, trust_env=False) as http:
        for method, path in CHANGING:
            answer = http.request(method, path, headers=headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "cross-site"), (method, path)
        assert (
            http.get("/v1/models", headers=headers).status_code == 200
        )  # a link may lead here, a page may not read it
    assert open_server.state.policies.held.loaded == loaded


def test_without_keys_the_page_itself_a_friend_and_a_program_are_answered(open_server: Running) -> None:
    host = open_server.url.removeprefix("http://")
    with httpx.Client(base_url=open_server.url, trust_env=False) as http:
        for headers in (
            {},
            {"Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"},
            {"Sec-Fetch-Site": "none"},
            {"Origin": "https://friend.example", "Sec-Fetch-Site": "cross-site"},
        ):
            assert http.post("/v1/policy/reload", headers=headers).status_code == 200, headers


def rss(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_three_hundred_strangers_take_little_memory(start: Start) -> None:
    """They took 290 MiB, a megabyte each, for as long as they liked."""
    with start() as server, ExitStack() as stack:
        before, peak = rss(os.getpid()), 0
        lines = [stack.enter_context(socket.create_connection(place(server))) for _ in range(300)]
        for line in lines:
            line.setblocking(False)
            line.send(head(f"Content-Length: {1 << 20}"))
        for _ in range(24):
            for line in lines:
                try:
                    line.send(b"x" * 65536)
                except (BlockingIOError, ConnectionError):
                    continue
            peak = max(peak, rss(os.getpid()) - before)
    assert peak < 100 << 20

"""Bad input, overload, clients that leave or do not read, and the end of a server."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

import httpx
import openai
import pytest

from soupmix.backends import Limits
from soupmix.batching.runner import Runner
from soupmix.serve.pending import PendingAnswers
from tests.support.serving import MODEL, Running

Start = Callable[..., AbstractContextManager[Running]]
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "temperature": 0}
LONG = {**CHAT, "max_tokens": 230, "soup": {"weights": {"calm": 0.5}}}

BODIES = {
    "nothing": b"",
    "not json": b"{",
    "not utf-8": b'{"model": "\xff"}',
    "a list": b"[]",
    "a key twice": b'{"model": "tiny", "model": "tiny", "messages": [{"role": "user", "content": "hi"}]}',
    "not a number": b'{"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "temperature": NaN}',
    "beyond any float": b'{"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "temperature": 1e999}',
    "deep": b'{"a":' * 50_000,
    "half a character": b'{"model": "tiny", "messages": [{"role": "user", "content": "\\ud800"}]}',
    "half a character as a key": b'{"\\ud800\\u0000": 1}',
    "a boolean as a number": b'{"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "n": true}',
    "text as a number": b'{"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "n": "1"}',
    "no messages": b'{"model": "tiny", "messages": []}',
    "a huge integer": b'{"model": "tiny", "prompt": "x", "seed": 1' + b"0" * 4000 + b"}",
    "a name of two lines": b'{"weights": {"calm": 1}, "name": "a\\nb"}',
    "a name with a null": b'{"weights": {"calm": 1}, "name": "a\\u0000b"}',
    "token ids below zero": b'{"model": "tiny", "prompt": [-1]}',
    "token ids beyond the vocabulary": b'{"model": "tiny", "prompt": [100000]}',
    "no tokens": b'{"model": "tiny", "prompt": [[]]}',
    "an empty prompt": b'{"model": "tiny", "prompt": ""}',
    "a stop text of nothing": b'{"model": "tiny", "prompt": "x", "stop": ""}',
}


@pytest.mark.parametrize("case", sorted(BODIES))
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/soups"])
def test_what_makes_no_sense_is_400(server: Running, path: str, case: str) -> None:
    with server.http() as http:
        answer = http.post(path, content=BODIES[case], headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].isprintable()


def test_control_characters_in_a_prompt_are_text(server: Running) -> None:
    with server.http() as http:
        said = "\x00\x1b[31m\u202e\U0010ffff\r\n"
        answer = http.post("/v1/chat/completions", json={**CHAT, "messages": [{"role": "user", "content": said}]})
    assert answer.status_code == 200


def test_what_is_no_json_is_400(server: Running) -> None:
    with server.http() as http:
        for kind in ("text/plain", "application/x-www-form-urlencoded"):  # what a page may send without asking
            answer = http.post("/v1/chat/completions", content=json.dumps(CHAT), headers={"Content-Type": kind})
            assert answer.status_code == 400


def test_a_large_request_is_413_whether_or_not_it_says_so(server: Running) -> None:
    def parts() -> Iterator[bytes]:
        for _ in range(40):
            yield b"x" * 65536

    with server.http() as http:
        for body in (b"x" * (1 << 21), parts()):
            with suppress(httpx.WriteError):  # the server may say so, and hang up, before all is sent
                assert http.post("/v1/chat/completions", content=body).status_code == 413


def test_a_request_that_never_arrives_is_408(start: Start) -> None:
    with start(patience=0.3) as server, socket.create_connection(_place(server)) as line:
        line.sendall(_head(server, 1000) + b"{")
        assert line.recv(4096).startswith(b"HTTP/1.1 408")


def _place(server: Running) -> tuple[str, int]:
    host, port = server.url.removeprefix("http://").split(":")
    return host, int(port)


def _head(server: Running, length: int) -> bytes:
    return (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.keys['acme']}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    ).encode()


def _until(true: Callable[[], bool], seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.005)
    return true()


def _under_way(server: Running) -> int:
    state = server.state.backend.state()
    return state.running + state.waiting


@contextmanager
def busy(server: Running, count: int = 1, **more: object) -> Iterator[list[threading.Thread]]:
    """So many long answers under way, one after the other, which take a second at least, however fast this machine is."""
    found: list[int] = []
    step = Runner.step

    def slow(runner: Runner, plan: Any) -> Any:
        time.sleep(0.005)
        return step(runner, plan)

    def ask() -> None:
        with server.http() as http:
            found.append(http.post("/v1/chat/completions", json={**LONG, **more}).status_code)

    threads = [threading.Thread(target=ask) for _ in range(count)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Runner, "step", slow)
        for number, thread in enumerate(threads, start=1):
            thread.start()
            assert _until(lambda: _under_way(server) == number and server.state.backend.state().running > 0)  # noqa: B023
        yield threads
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("stream", [False, True])
def test_whoever_hangs_up_leaves_the_batch(start: Start, stream: bool) -> None:
    with start(limits=Limits(rows=2, length=500)) as server:
        body = json.dumps({**LONG, "max_tokens": 450, "stream": stream}).encode()
        with socket.create_connection(_place(server)) as line:
            line.sendall(_head(server, len(body)) + body)
            assert _until(lambda: server.state.backend.state().generated_tokens > 2)
        assert _until(lambda: server.state.backend.state().running == 0)
        assert server.state.backend.state().generated_tokens < 400
        assert _until(lambda: 'soupmix_answers_total{finish="cancelled"} 1.0' in server.state.metrics.text().decode())


def test_whoever_does_not_read_leaves_the_batch(start: Start) -> None:
    """The client takes nothing; once the buffers in between are full, its row is given to somebody who reads."""
    with start(limits=Limits(rows=8, length=500), deltas=20, patience=3.0) as server:
        body = json.dumps({**LONG, "max_tokens": 480, "n": 8, "stream": True, "logprobs": True, "top_logprobs": 20})
        with socket.socket() as line:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            line.connect(_place(server))
            line.sendall(_head(server, len(body)) + body.encode())
            assert _until(lambda: "soupmix_slow_readers_total 1.0" in server.state.metrics.text().decode(), 30)
            assert _until(lambda: server.state.backend.state().running == 0)
            assert _until(lambda: _under_way(server) == 0)
        with server.http() as http:
            answer = http.post("/v1/chat/completions", json=CHAT)
            assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("stream", [False, True])
def test_whoever_reads_is_not_slow_because_the_server_was_busy(start: Start, stream: bool) -> None:
    """The loop does something else until the whole answer is made; then all of it comes at once."""
    submit = PendingAnswers.submit

    def held(answers: PendingAnswers) -> None:
        answers._loop.call_soon_threadsafe(_until, lambda: server.state.backend.state().generated_tokens >= 200)
        submit(answers)

    with pytest.MonkeyPatch.context() as patch, start(deltas=4) as server, server.http() as http:
        patch.setattr(PendingAnswers, "submit", held)
        answer = http.post("/v1/chat/completions", json={**LONG, "max_tokens": 200, "stream": stream})
        assert (answer.status_code, "not read in time" in answer.text) == (200, False)
        assert "soupmix_slow_readers_total 0.0" in server.state.metrics.text().decode()


def _grants(server: Running) -> list[str]:
    return [line for line in server.state.metrics.text().decode().splitlines() if line.startswith("soupmix_grants")]


def test_too_many_at_once_are_told_when_to_come_back(start: Start) -> None:
    with start(limits=Limits(rows=1, length=256, waiting=1)) as server, busy(server, 2), server.http() as http:
        assert _until(lambda: server.state.backend.state().waiting == 1)
        granted = _grants(server)
        answer = http.post("/v1/chat/completions", json=CHAT)
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, "queue-full")
        assert _grants(server) == granted  # nothing was done in vain
        assert 1 <= int(answer.headers["retry-after"]) <= 60
        with pytest.raises(openai.RateLimitError):
            server.openai().chat.completions.create(**CHAT)  # type: ignore[call-overload]


def test_a_tenant_that_has_its_share_keeps_nobody_else_waiting(start: Start) -> None:
    with start(limits=Limits(rows=4, length=256), share=2) as server, busy(server, 2):
        assert _until(lambda: server.state.backend.state().running == 2)
        with server.http() as acme, server.http("beta") as beta:
            answer = acme.post("/v1/chat/completions", json=CHAT)
            assert (answer.status_code, answer.json()["error"]["code"]) == (429, "share-full")
            assert beta.post("/v1/chat/completions", json={**CHAT, "max_tokens": 2}).status_code == 200
    assert not server.state.shares._held  # answers that are over, streamed or not, leave nothing behind


@pytest.mark.parametrize("stream", [False, True])
def test_a_share_is_given_back(start: Start, stream: bool) -> None:
    with start(share=1) as server, server.http() as http:
        for given in ({}, {"n": 2}, {"max_tokens": 9999}, {"model": "no"}, {}):
            status = http.post("/v1/chat/completions", json={**CHAT, "max_tokens": 2, "stream": stream, **given})
            assert status.status_code == (
                429 if "n" in given else 200 if not given else 400 if "max_tokens" in given else 404
            )
        assert not server.state.shares._held


def test_a_request_for_several_answers_takes_all_or_none(start: Start) -> None:
    with start(limits=Limits(rows=1, length=256, waiting=2)) as server, busy(server), server.http() as http:
        assert _until(lambda: server.state.backend.state().running == 1)
        assert http.post("/v1/chat/completions", json={**CHAT, "n": 4}).status_code == 429
        assert _until(lambda: server.state.backend.state().waiting == 0)


def test_a_fault_of_the_server_is_told_without_what_was_said(
    server: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: object) -> None:
        raise RuntimeError("a secret that somebody said")

    monkeypatch.setattr(server.state.backend, "tokens", broken)
    with server.http() as http:
        answer = http.post("/v1/chat/completions", json=CHAT)
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "fault")
    assert "secret" not in answer.text


def test_an_engine_that_died_is_503_and_unhealthy(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    with start() as server, server.http() as http:
        assert http.get("/health").status_code == 200
        server.state.backend.close()
        for path in ("/health", "/ready"):
            assert http.get(path).status_code == 503
        answer = http.post("/v1/chat/completions", json=CHAT)
        assert (answer.status_code, "retry-after" in answer.headers) == (503, True)


def test_a_server_that_ends_lets_running_answers_finish(start: Start) -> None:
    with start(drain=20.0) as server:
        stream = server.openai().chat.completions.create(**LONG_CLIENT, stream=True)  # type: ignore[call-overload]
        first = next(stream)
        server.stop()
        assert _until(server.state.closing.is_set)
        ends = [choice.finish_reason for chunk in stream for choice in chunk.choices]
    assert first.choices
    assert [each for each in ends if each] == ["length"]


def test_a_server_that_ends_tells_those_who_did_not_finish(start: Start) -> None:
    with start(drain=0.0) as server:
        stream = server.openai().chat.completions.create(**LONG_CLIENT, stream=True)  # type: ignore[call-overload]
        next(stream)
        server.stop()
        with pytest.raises(openai.APIError, match="closing"):
            list(stream)


LONG_CLIENT = {**{key: value for key, value in LONG.items() if key != "soup"}, "extra_body": {"soup": LONG["soup"]}}

"""The server over a backend that is none of ours: it needs what the protocol names, and no torch."""

import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from soupmix.errors import RecipeError
from tests.support.echo_backend import EchoBackend
from tests.support.serving import MODEL, Running

Start = Callable[..., AbstractContextManager[Running]]
SAID = [{"role": "user", "content": "hi"}]


def test_the_server_needs_nothing_but_the_protocol(start: Start) -> None:
    with start(backend=EchoBackend) as server, server.http() as http:
        client = server.openai()
        soup = {"soup": {"weights": {"calm": 0.5}}}
        answer = client.chat.completions.create(model=MODEL, messages=SAID, logprobs=True, extra_body=soup)
        assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("user: hi\n", "stop")
        assert answer.soup["granted"] == {"calm": "0.5"}
        assert "".join(each.token for each in answer.choices[0].logprobs.content) == "user: hi\n"
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (9, 9)
        stream = client.chat.completions.create(model=MODEL, messages=SAID, max_tokens=4, stream=True)
        parts = [each.choices[0] for each in stream]
        assert ("".join(each.delta.content or "" for each in parts), parts[-1].finish_reason) == ("user", "length")
        plain = client.completions.create(model=MODEL, prompt=["once", "hi"], n=2)
        assert [each.text for each in plain.choices] == ["once", "once", "hi", "hi"]
        marked = http.post(
            "/v1/chat/completions", json={"model": MODEL, "messages": [{**SAID[0], "content": "<|end|>"}]}
        )
        assert marked.json()["error"]["code"] == "special-token"
        unknown = http.post("/v1/completions", json={"model": MODEL, "prompt": [256]})
        assert unknown.json()["error"]["code"] == "no-such-token"
        metrics = http.get("/metrics").text
        assert "soupmix_rows 4.0" in metrics
        assert "soupmix_generated_tokens_total 25.0" in metrics
        assert http.get("/ready").status_code == 200
        server.state.backend.close()
        assert http.get("/health").status_code == 503
        assert http.post("/v1/chat/completions", json={"model": MODEL, "messages": SAID}).status_code == 503


def test_what_an_operator_shares_is_told_to_the_backend(start: Start, tmp_path: Path) -> None:
    (tmp_path / "system.txt").write_text("be kind\n")
    with start(backend=EchoBackend, shared=(tmp_path / "system.txt",)) as server:
        assert isinstance(server.state.backend, EchoBackend)
        assert server.state.backend.shared == [tuple(b"system: be kind\nuser: ")]


def test_a_method_that_the_backend_lacks_is_refused_at_the_start(start: Start) -> None:
    with pytest.raises(RecipeError, match="factor") as caught, start(backend=EchoBackend, method="factor"):
        pass
    assert caught.value.reason == "method"


def test_neither_the_server_nor_a_batch_loads_torch() -> None:
    code = (
        "import sys, soupmix.serve.state, soupmix.serve.server, soupmix.batch\n"
        "print(*({'torch', 'transformers', 'soupmix.engine', 'soupmix.batching'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"

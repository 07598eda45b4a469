"""A double of a vLLM server with the plug-in: the same HTTP, the same checks of rows, and the embedded engine behind it.

It answers greedily, and knows of vLLM's API what `soupmix.backends.vllm` asks.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import torch

from soupmix.engine import Engine
from soupmix.errors import SoupmixError
from soupmix.store import Store
from soupmix.vllm_plugin.checking import Checker, row_text

__all__ = ["VllmDouble", "double", "open_setup"]

KEY = bytes(range(32))


def open_setup(folder: Path, store: Store, *, documents: Sequence[Path] = ()) -> Path:
    """A setup file, with these policy documents or without a policy."""
    (folder / "key").write_bytes(KEY)
    said = {"store": str(store.folder), "key": "key", "open": not documents, "policy": list(map(str, documents))}
    (folder / "setup.json").write_text(json.dumps(said))
    return folder / "setup.json"


class VllmDouble(ThreadingHTTPServer):
    """Attributes: seen: the bodies of all requests for answers. hooked: whether it looks at rows, as plain vLLM does not."""

    daemon_threads, request_queue_size = True, 256

    def __init__(
        self, engine: Engine, checker: Checker, *, length: int = 64, hooked: bool = True, port: int = 0
    ) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.engine, self.checker, self.length, self.hooked = engine, checker, length, hooked
        self.seen: list[dict[str, Any]] = []
        self.one, self.failing = Lock(), False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def granted(self, body: dict[str, Any]) -> Any:
        """The grant under which the engine computes what a request asks. Raises as the plug-in does."""
        text = row_text(body.get("vllm_xargs")) if self.hooked else None
        if text is None:
            return self.checker.policy.clamp({})
        row = self.checker.check(text, body["prompt"], body.get("cache_salt"))
        weights = {name: micro / 1e6 for (name, _), micro in zip(self.checker.adapters, row.weights, strict=True)}
        return self.checker.policy.clamp(weights, **row.attributes)

    def tokens(self, body: dict[str, Any]) -> Iterator[tuple[int, list[float]]]:
        """(token, log probabilities of all tokens) one behind the other, greedily."""
        grant, ids = self.granted(body), list(body["prompt"])
        for _ in range(body["max_tokens"]):
            with self.one:
                logits = self.engine.logits(torch.tensor([ids]), [grant])[0, -1]
            logprobs = torch.log_softmax(logits.float(), -1).tolist()
            token = max(range(len(logprobs)), key=logprobs.__getitem__)
            yield token, logprobs
            ids.append(token)
            if token in body.get("stop_token_ids", ()):
                return


class _Handler(BaseHTTPRequestHandler):
    server: VllmDouble

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            self._json(200, {"data": [{"id": "m", "max_model_len": self.server.length}]})
        else:
            self._json(200, {})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.seen.append(body)
        try:
            self.server.granted(body)
        except SoupmixError as error:
            self._json(400, {"error": {"message": f"{error} [{error.reason}]"}})
            return
        self.send_response(200)
        self.end_headers()
        try:
            for token, logprobs in self.server.tokens(body):
                if self.server.failing:
                    return
                self._part(body, token, logprobs)
            self.wfile.write(b"data: [DONE]\n\n")
        except OSError:  # the other side has gone
            return

    def _part(self, body: dict[str, Any], token: int, logprobs: list[float]) -> None:
        choice: dict[str, Any] = {"index": 0, "token_ids": [token]}
        if body.get("logprobs") is not None:
            best = sorted(range(len(logprobs)), key=logprobs.__getitem__, reverse=True)[: body["logprobs"]]
            told = {f"token_id:{each}": logprobs[each] for each in {*best, token}}
            choice["logprobs"] = {"token_logprobs": [logprobs[token]], "top_logprobs": [told]}
        self.wfile.write(f"data: {json.dumps({'choices': [choice]})}\n\n".encode())

    def _json(self, status: int, said: dict[str, Any]) -> None:
        data = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def double(engine: Engine, checker: Checker, **more: Any) -> Iterator[VllmDouble]:
    """A double that listens."""
    server = VllmDouble(engine, checker, **more)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

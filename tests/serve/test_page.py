"""What browsers get: the page under a strict policy of contents, no other origin, no other name of this machine."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest

from soupmix.serve import app
from tests.support.serving import Running

Start = Callable[..., AbstractContextManager[Running]]
ORIGIN = {"Origin": "https://elsewhere.example"}


def test_the_page_is_served_and_may_load_nothing_from_elsewhere(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "index.html").write_text("<script src=page.js></script>")
    (tmp_path / "page" / "page.js").write_text("1")
    (tmp_path / "secret").write_text("2")
    monkeypatch.setattr(app, "_PAGE", tmp_path / "page")
    with start() as server, server.http(None) as http:
        first, script = http.get("/"), http.get("/page.js")
        assert (first.text, script.text) == ("<script src=page.js></script>", "1")
        for answer in (first, script):
            assert "default-src 'self'" in answer.headers["content-security-policy"]
            assert "unsafe" not in answer.headers["content-security-policy"]
            assert answer.headers["x-content-type-options"] == "nosniff"
        for path in ("/../secret", "/%2e%2e/secret", "/..%2fsecret", "/secret"):
            assert http.get(path).status_code == 404


def test_other_origins_may_not_read(server: Running) -> None:
    with server.http() as http:
        assert "access-control-allow-origin" not in http.get("/v1/models", headers=ORIGIN).headers
        ask = {**ORIGIN, "Access-Control-Request-Method": "POST"}
        assert http.options("/v1/chat/completions", headers=ask).status_code == 405


def test_an_origin_that_is_named_may(start: Start) -> None:
    with start(origins=("https://elsewhere.example",)) as server, server.http() as http:
        assert http.get("/v1/models", headers=ORIGIN).headers["access-control-allow-origin"] == ORIGIN["Origin"]
        other = {"Origin": "https://other.example"}
        assert "access-control-allow-origin" not in http.get("/v1/models", headers=other).headers


def test_without_keys_only_this_machine_is_answered(start: Start) -> None:
    """A page elsewhere whose name leads to 127.0.0.1 is refused, as its name is not localhost."""
    with start(no_auth=True) as server, httpx.Client(base_url=server.url, trust_env=False) as http:
        port = server.url.rsplit(":", 1)[1]
        for host, status in {"localhost": 200, f"127.0.0.1:{port}": 200, f"[::1]:{port}": 200}.items():
            assert http.get("/v1/models", headers={"Host": host}).status_code == status
        for host in ("evil.example", f"evil.example:{port}", "localhost.evil.example", "", "127.0.0.1.evil.example"):
            assert http.get("/v1/models", headers={"Host": host}).status_code == 403
        made = http.post("/v1/soups", json={"weights": {"calm": 1}}).json()
        assert http.get(f"/v1/soups/{made['id']}").status_code == 200

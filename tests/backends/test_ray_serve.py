"""The example with Ray Serve: alike replicas behind Ray's router, one of them killed, asked over HTTP (`make test-ray`)."""

import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from soupmix import Engine, Policy
from soupmix.base import Base
from soupmix.engine import Sampling
from soupmix.store import Store
from tests.support.batch_shop import policy_text
from tests.support.process_groups import wait_for
from tests.support.ray_real import needs_ray, ray_python

pytestmark = [pytest.mark.slow, needs_ray]
EXAMPLE = Path(__file__).parents[2] / "examples/ray_serve.py"
MOST = 12


@pytest.fixture
def client(tiny_base: Base, pico_store: Store, tmp_path: Path) -> Iterator[httpx.Client]:
    """Two replicas that listen."""
    (tmp_path / "org.yaml").write_text(policy_text(pico_store))
    database = tmp_path / "people.db"
    making = [ray_python().parent / "soupmix", "serve", "keys", "create", "--tenant", "acme", "--database", database]
    key = subprocess.run(list(map(str, making)), check=True, capture_output=True, text=True, timeout=300).stdout.strip()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shown = {
        "database": database,
        "policy": tmp_path / "org.yaml",
        "store": pico_store.folder,
        "base": tiny_base.folder,
    }
    limits = {"dtype": "fp32", "cpus": 0.5, "rows": 4, "length": 128, "port": port}
    words = [str(word) for name, value in {**shown, **limits}.items() for word in (f"--{name}", value)]
    log = tmp_path / "log"
    with log.open("wb") as said:
        process = subprocess.Popen([str(ray_python()), str(EXAMPLE), *words], stdout=said, stderr=said)
    try:
        with httpx.Client(
            base_url=f"http://127.0.0.1:{port}",
            headers={"Authorization": f"Bearer {key}"},
            timeout=120,
            trust_env=False,
        ) as asking:
            assert wait_for(lambda: process.poll() is not None or _is_well(asking), 600)
            assert process.poll() is None, log.read_text()
            yield asking
    finally:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(60)
        process.kill()


def test_replicas_answer_alike_and_one_may_die(client: httpx.Client, tiny_base: Base, pico_store: Store) -> None:
    weights = [number / 20 for number in range(10)]
    wanted = _of_one_process(tiny_base, pico_store, weights)
    assert [_ask(client, each)[1] for each in weights] == wanted
    assert len({_ask(client, 0.3)[0] for _ in range(40)}) == 1, "whoever answers grants the same"
    with client.stream("POST", "/v1/chat/completions", json=_body(0.3, stream=True)) as streamed:
        lines = [each for each in streamed.iter_lines() if each]
    assert lines[-1] == "data: [DONE]"
    profile = client.post("/v1/soups", json={"name": "ann", "weights": {"calm": 0.25}})
    assert profile.status_code == 201, profile.text
    assert (
        client.post("/v1/chat/completions", json=_body(0.3) | {"soup": {"weights": {"calm": "much"}}}).status_code
        == 400
    )

    replica = _replicas()[0]
    os.kill(replica, signal.SIGKILL)
    assert wait_for(lambda: len(_replicas()) == 2 and replica not in _replicas(), 120), "it is started anew"
    until, found = time.monotonic() + 60, []
    while time.monotonic() < until and found != wanted:
        found = [_ask(client, each)[1] for each in weights]
    assert found == wanted
    named = client.post("/v1/chat/completions", json={**_body(0), "model": "soup:ann", "soup": None})
    assert named.json()["soup"]["granted"] == {"calm": "0.25"}, "profiles outlive a replica"


def _body(weight: float, **more: Any) -> dict[str, Any]:
    said = [{"role": "user", "content": "say it"}]
    return {"model": "tiny-llama", "messages": said, "max_tokens": MOST, "temperature": 0, **more} | {
        "soup": {"weights": {"calm": weight}}
    }


def _ask(client: httpx.Client, weight: float) -> tuple[str, str]:
    """What was granted, and the answer; none where a replica is gone."""
    answer = client.post("/v1/chat/completions", json=_body(weight))
    if answer.status_code != 200:
        return answer.text, ""
    body = answer.json()
    return json.dumps(body["soup"]["granted"]), body["choices"][0]["message"]["content"]


def _of_one_process(base: Base, store: Store, weights: list[float]) -> list[str]:
    engine, policy = Engine.load(base, store, dtype="fp32"), Policy.open(store)
    said = [[{"role": "user", "content": "say it"}]] * len(weights)
    grants = [policy.clamp({"calm": min(each, 0.5)}) for each in weights]
    return [each.text for each in engine.complete(said, grants, sampling=Sampling(MOST, temperature=0))]


def _is_well(client: httpx.Client) -> bool:
    try:
        return client.get("/health").status_code == 200
    except httpx.HTTPError:
        return False


def _replicas() -> list[int]:
    found = []
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if re.match(rb"ray::ServeReplica", line.read_bytes()):
                found.append(int(line.parent.name))
    return sorted(found)

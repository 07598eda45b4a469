"""`soupmix serve` as a process of its own on loopback, and clients that stream from it: of benchmarks/serve.py and
benchmarks/peers_llamacpp.py."""

import asyncio
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from serve_peers import Told, Work

COMMAND = [sys.executable, "-c", "from soupmix.cli import run; run()", "serve", "--open", "--no-auth", "--port", "0"]


One = Callable[[httpx.AsyncClient, Work], Awaitable[Told]]
"""Sends one request and reads what streams back."""


@dataclass(frozen=True)
class Served:
    """A server that is a process of its own; called with what clients ask, it is a `Server`.

    Attributes:
        address: where it listens. one: how it is asked. pid: its process. ready_s: seconds until it answered.
    """

    address: str
    one: One
    pid: int
    ready_s: float

    def __call__(self, clients: Sequence[Sequence[Work]]) -> list[Told]:
        return asyncio.run(_all(self.address, clients, self.one))

    def peak_mb(self) -> int:
        """Most memory that was resident, in MiB."""
        return int(re.findall(r"VmHWM:\s+(\d+)", Path(f"/proc/{self.pid}/status").read_text())[0]) // 1024

    def cpu_s(self) -> float:
        """Processor time of all its threads so far."""
        told = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(told[11]) + int(told[12])) / os.sysconf("SC_CLK_TCK")


def endless(base: Path, folder: Path) -> Path:
    """A base model whose answers are as long as they are asked to be: no token ends them."""
    for each in base.iterdir():
        (folder / each.name).symlink_to(each.resolve())
    settings = folder / "generation_config.json"
    content = json.loads(settings.read_text()) if settings.exists() else {}
    settings.unlink(missing_ok=True)
    settings.write_text(json.dumps(content | {"eos_token_id": -1}))
    return folder


@contextmanager
def served(
    base: Path, home: Path, dtype: str, rows: int, people: Sequence[dict[str, float]], *, whole: bool = True
) -> Iterator[Served]:
    """`soupmix serve`: a request is answered with the weights of its person; `whole`: by as many tokens as it asks for."""
    model = home / "base"
    model.mkdir()
    log, options = home / "log", ["--dtype", dtype, "--rows", str(rows), "--length", "256", "--model", "base"]
    started = time.perf_counter()
    with log.open("w") as file:
        child = subprocess.Popen(
            [*COMMAND, *options, "--base", str(endless(base, model)), "--database", str(home / "serve.db")],
            stderr=file,
            env=os.environ | {"SOUPMIX_CACHE": str(home / "cache")},
        )
    try:
        address = _address(child, log)
        yield Served(address, partial(_one, people=people, whole=whole), child.pid, time.perf_counter() - started)
    finally:
        child.terminate()
        child.wait(60)


def _address(child: "subprocess.Popen[bytes]", log: Path) -> str:
    while child.poll() is None:
        if found := re.search(r'"port": ?(\d+)', log.read_text()):
            return f"http://127.0.0.1:{found[1]}"
        time.sleep(0.2)
    raise SystemExit(f"the server did not start: {log.read_text()}")


async def _all(address: str, clients: Sequence[Sequence[Work]], one: One) -> list[Told]:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)  # llama.cpp closes some in between
    async with httpx.AsyncClient(base_url=address, timeout=600, limits=limits, trust_env=False) as http:

        async def client(works: Sequence[Work]) -> list[Told]:
            return [await one(http, work) for work in works]

        return [each for some in await asyncio.gather(*map(client, clients)) for each in some]


async def _one(http: httpx.AsyncClient, work: Work, people: Sequence[dict[str, float]], *, whole: bool) -> Told:
    body: dict[str, Any] = {
        "model": "base",
        "prompt": list(work.prompt),
        "max_tokens": work.tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        "soup": {"weights": people[work.person]},
    }
    told, count = Told(time.perf_counter()), 0
    async with http.stream("POST", "/v1/completions", json=body) as answer:
        answer.raise_for_status()
        async for line in answer.aiter_lines():
            if line.startswith("data: {"):
                event = json.loads(line[6:])
                told.text += "".join(choice["text"] for choice in event["choices"])
                if any(choice["text"] or choice["finish_reason"] for choice in event["choices"]):
                    told.came.append(time.perf_counter())
                count = (event.get("usage") or {}).get("completion_tokens", count)
    if not count or (whole and count != work.tokens):
        raise SystemExit(f"the server answered {count} tokens of {work.tokens}")
    told.came = (told.came + [told.came[-1]] * count)[:count]  # some events hold several tokens, or none
    return told

"""Ten times more than a server can answer, for a minute: `python -m tests.soak.overload [SECONDS] [TIMES]`.

`soupmix serve` as a process of its own on loopback, SmolLM2-135M-Instruct with the shipped adapters, everybody their own soup.
First what it can do, by 32 clients that ask again when they are answered; then so many times that rate, whether answered or
not; then one client alone. Every request must be answered exactly once with 200, 429 or 503, 429 and 503 must say when to
come back, memory must stay flat, and two seconds after the storm a newcomer must be taken.
"""

import asyncio
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx

SERVER = [sys.executable, "-c", "from soupmix.cli import run; run()", "serve"]
OPTIONS = ["--open", "--no-auth", "--port", "0", "--rows", "16", "--waiting", "16", "--length", "256"]
NAMES = ("elementary", "expert", "concise", "informative", "friendly", "unfriendly")


@dataclass
class Load:
    """What came of a phase: status -> how often, and seconds of answered and of refused requests."""

    statuses: Counter[int] = field(default_factory=Counter)
    answered: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    silent: int = 0  # refusals that did not say when to come back
    sent: int = 0


def body(number: int) -> dict[str, object]:
    weights = {NAMES[number % 6]: f"0.{1 + number % 9}", NAMES[(number + 2) % 6]: f"0.{1 + number % 5}"}
    return {
        "model": "smollm2-135m-instruct",
        "messages": [{"role": "user", "content": f"Tell me about the number {number}."}],
        "max_tokens": 16,
        "soup": {"weights": weights},
    }


async def ask(http: httpx.AsyncClient, number: int, load: Load) -> int:
    started = time.monotonic()
    load.sent += 1
    answer = await http.post("/v1/chat/completions", json=body(number))
    load.statuses[answer.status_code] += 1
    (load.answered if answer.status_code == 200 else load.refused).append(time.monotonic() - started)
    if answer.status_code in (429, 503):
        load.silent += "Retry-After" not in answer.headers
    return answer.status_code


async def capacity(http: httpx.AsyncClient, seconds: float) -> float:
    """Answers per second with 32 clients that wait for their answers."""
    load, ends = Load(), time.monotonic() + seconds

    async def client(number: int) -> None:
        while time.monotonic() < ends:
            await ask(http, number, load)

    await asyncio.gather(*(client(number) for number in range(32)))
    return load.statuses[200] / seconds


async def storm(http: httpx.AsyncClient, rate: float, seconds: float) -> Load:
    """Send at a rate, whatever comes back."""
    load, tasks, started = Load(), [], time.monotonic()
    while (now := time.monotonic() - started) < seconds:
        while len(tasks) < now * rate:
            tasks.append(asyncio.create_task(ask(http, len(tasks), load)))
        await asyncio.sleep(0.005)
    tasks += [asyncio.create_task(ask(http, -1, load))]
    await asyncio.gather(*tasks)
    return load


async def recovery(http: httpx.AsyncClient) -> tuple[float, float]:
    """Seconds until a newcomer is taken, and those of its answer."""
    load, started = Load(), time.monotonic()
    while await ask(http, 0, load) != 200:
        await asyncio.sleep(0.05)
    return time.monotonic() - started - load.answered[0], load.answered[0]


def resident(pid: int) -> float:
    """MiB of a process in memory."""
    with Path(f"/proc/{pid}/status").open() as status:
        return int(next(line for line in status if line.startswith("VmRSS")).split()[1]) / 1024


async def watched(pid: int, found: list[float]) -> None:
    while True:
        found.append(resident(pid))
        await asyncio.sleep(0.5)


def percentile(values: list[float], percent: int) -> float:
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)] if values else 0.0


async def main(address: str, pid: int, seconds: float, times: float) -> bool:
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=address, timeout=300, limits=limits, trust_env=False) as http:
        await capacity(http, 5)  # warm
        can = await capacity(http, 15)
        memory: list[float] = []
        watcher = asyncio.create_task(watched(pid, memory))
        load = await storm(http, can * times, seconds)
        taken, alone = await recovery(http)
        watcher.cancel()
    middle = statistics.median(memory[len(memory) // 4 : len(memory) // 2])
    print(f"can answer {can:.1f} a second; offered {load.sent / seconds:.1f} a second for {seconds:.0f} s")
    print(
        f"sent {load.sent}, answered once each: {dict(sorted(load.statuses.items()))}, refusals that say nothing: {load.silent}"
    )
    print(f"answered: P50 {percentile(load.answered, 50):.2f} s, P99 {percentile(load.answered, 99):.2f} s; ", end="")
    print(
        f"refused: P50 {1000 * percentile(load.refused, 50):.0f} ms, P99 {1000 * percentile(load.refused, 99):.0f} ms"
    )
    print(
        f"memory: {middle:.0f} MiB in the second quarter, {memory[-1]:.0f} MiB at the end, {max(memory):.0f} MiB at most"
    )
    print(f"afterwards: a newcomer was taken after {taken:.2f} s and answered in {alone:.2f} s")
    good = sum(load.statuses.values()) == load.sent and set(load.statuses) <= {200, 429, 503} and not load.silent
    return good and taken < 2 and memory[-1] < 1.1 * middle


def run(seconds: float, times: float) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("w") as file:
            child = subprocess.Popen([*SERVER, *OPTIONS, "--database", f"{folder}/serve.db"], stderr=file)
        try:
            good = asyncio.run(main(f"http://127.0.0.1:{port(child, log)}", child.pid, seconds, times))
            child.send_signal(signal.SIGTERM)
            return good and child.wait(60) == 0
        finally:
            child.kill()
            child.wait()


def port(child: "subprocess.Popen[bytes]", log: Path) -> str:
    """Where a server listens, once it does."""
    while child.poll() is None:
        if found := re.search(r'"port": ?(\d+)', log.read_text()):
            return found[1]
        time.sleep(0.2)
    raise SystemExit(f"the server did not start: {log.read_text()}")


if __name__ == "__main__":
    given = [float(each) for each in sys.argv[1:]]
    sys.exit(0 if run(*given, *[60.0, 10.0][len(given) :]) else 1)

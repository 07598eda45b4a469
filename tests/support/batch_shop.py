"""Answering batches in this process, and lines of every kind with the status that each must get."""

import json
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from soupmix.audit import Record
from soupmix.backends import Limits
from soupmix.backends.local import LocalBackend
from soupmix.batch import (
    MOST_ANSWERS,
    Columns,
    Defaults,
    Desk,
    answer_lines,
    finish,
    open_input,
    open_journal,
    settings_of,
    waiting_room,
)
from soupmix.engine import Engine
from soupmix.policy import Policy
from soupmix.store import Store

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
DEFAULTS = Defaults("tiny", max_tokens=6, temperature=0.0)


def policy_text(store: Store) -> str:
    """calm at most 0.5; loud is refused to minors; answers must be disclosed as personalised."""
    adapters = "\n".join(f"      - {{name: {each.name}, digest: '{each.digest}'}}" for each in store)
    return f"""
tier: organisation
issuer: acme
version: 1
rules:
  - rule: approve
    adapters:
{adapters}
  - id: gently
    rule: bounds
    adapter: calm
    at_most: 0.5
    public_reason: not too calm
  - id: quiet
    rule: bounds
    adapter: loud
    at_most: 0
    mode: refuse
    scope: {{audience: [minor]}}
obligations:
  - {{oblige: disclose, what: personalisation}}
"""


@dataclass(frozen=True, slots=True)
class Shop:
    """An engine and a policy."""

    engine: Engine
    policy: Policy

    def backend(self, limits: Limits) -> LocalBackend:
        """Who answers."""
        return LocalBackend(self.engine, limits)

    def work(
        self,
        path: Path,
        out: Path,
        *,
        rows: int = 4,
        defaults: Defaults = DEFAULTS,
        columns: Iterable[str] = (),
        stopping: Callable[[], bool] = lambda: False,
        advance: Callable[[int], None] = lambda done: None,
        append: Callable[[Record], object] | None = None,
        force: bool = False,
    ) -> bool:
        """Begin a batch or go on with it, as the command does; whether it is finished."""
        file = open_input(path, out, Columns.parse(list(columns), limit=4096, model="tiny"))
        lines = file.count()
        settings = settings_of(file, lines, defaults, {"policy": self.policy.digest})
        limits = Limits(rows=rows, length=128, waiting=waiting_room(rows, MOST_ANSWERS))
        with open_journal(out, settings, force=force) as journal:
            with self.backend(limits) as backend:
                desk = Desk(backend, self.policy, defaults, append=append, who="the shop")
                answer_lines(
                    file,
                    journal,
                    desk,
                    backend,
                    stopping=stopping,
                    advance=advance,
                )
            if journal.done < lines:
                return False
            finish(file, journal, out, digest=settings["input"])
        return True


def chat(number: int, content: str = "why?", **body: Any) -> dict[str, Any]:
    """A line that asks for a chat completion."""
    said = {"model": "tiny", "messages": [{"role": "user", "content": content}], **body}
    return {"custom_id": f"c{number}", "method": "POST", "url": CHAT, "body": said}


def plain(number: int, prompt: Any = "once", **body: Any) -> dict[str, Any]:
    """A line that asks for a plain completion."""
    said = {"model": "tiny", "prompt": prompt, **body}
    return {"custom_id": f"c{number}", "method": "POST", "url": COMPLETIONS, "body": said}


def mixed(count: int, seed: int) -> tuple[bytes, list[int]]:
    """So many lines of every kind, as a file, and the status of each."""
    rng, lines, statuses = random.Random(seed), [], []
    for number in range(count):
        kind = rng.choice(sorted(KINDS))
        status, make = KINDS[kind]
        line = make(number, rng)
        lines.append(line if isinstance(line, bytes) else json.dumps(line).encode())
        statuses.append(status)
    return b"\n".join(lines) + (b"\n" if rng.random() < 0.5 else b""), statuses


def _soup(rng: random.Random) -> dict[str, Any]:
    return {
        "attributes": {"audience": "adult"},
        "weights": {name: round(rng.random(), 3) for name in rng.sample(["calm", "loud", "plain"], rng.randrange(4))},
    }


def _good(number: int, rng: random.Random) -> dict[str, Any]:
    sampling = rng.choice([{}, {"temperature": 0.9}, {"temperature": 1.5, "seed": rng.randrange(99)}])
    return chat(number, "hm" * rng.randrange(1, 20), soup=_soup(rng), max_tokens=rng.randrange(1, 40), **sampling)


def _plain(number: int, rng: random.Random) -> dict[str, Any]:
    prompt = rng.choice(["once", ["once", "twice"], [70, 80, 90], [[70], [80, 81]]])
    return plain(number, prompt, n=rng.randrange(1, 3), temperature=0.9, soup=_soup(rng))


KINDS: dict[str, tuple[int, Callable[[int, random.Random], Any]]] = {
    "chat": (200, _good),
    "chat again": (200, _good),
    "chat of nobody": (200, lambda n, _: chat(n)),
    "plain": (200, _plain),
    "refused": (403, lambda n, _: chat(n, soup={"weights": {"loud": 0.5}, "attributes": {"audience": "minor"}})),
    "unknown adapter": (400, lambda n, _: chat(n, soup={"weights": {"nobody": 1}})),
    "bad weight": (400, lambda n, _: chat(n, soup={"weights": {"calm": "lots"}})),
    "unknown attribute": (400, lambda n, _: chat(n, soup={"attributes": {"shoe": "44"}})),
    "unknown field": (400, lambda n, _: chat(n, toolz=[])),
    "another model": (400, lambda n, _: chat(n, model="gpt-9")),
    "streamed": (400, lambda n, _: chat(n, stream=True)),
    "too long": (400, lambda n, _: chat(n, "x" * 200)),
    "too long an answer": (400, lambda n, _: plain(n, ["a", "b" * 200])),
    "too many answers": (400, lambda n, _: plain(n, ["a"] * 9, n=2)),
    "no such token": (400, lambda n, _: plain(n, [70, 99_999])),
    "empty prompt": (400, lambda n, _: plain(n, "")),
    "no messages": (400, lambda n, _: chat(n, messages=[])),
    "blank": (400, lambda n, _: b"  "),
    "garbage": (400, lambda n, _: b'{"custom_id": '),
    "binary": (400, lambda n, rng: rng.randbytes(30).replace(b"\n", b"\xff") + b"\xff"),
    "over the limit": (400, lambda n, _: b"[" * 9000),
    "no method": (400, lambda n, _: {"custom_id": "x", "url": CHAT, "body": {}}),
}

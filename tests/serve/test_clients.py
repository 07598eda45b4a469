"""The clients that people have, unmodified, against a server: `docs/clients.md` is the table of what they do.

They need other versions of what we need, so they have an environment of their own: that of $SOUPMIX_CLIENTS, or a new one. With
SOUPMIX_UPDATE=1 the table is written.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from soupmix.backends import Limits, Message, Tool
from soupmix.backends.local import LocalBackend
from soupmix.base import Base
from soupmix.store import Store
from tests.support.echo_backend import EchoBackend
from tests.support.serving import MODEL, Running
from tests.support.tool_templates import TAGGED

OFFLINE = {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}
ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "clients.md"
CLIENTS = ("openai>=3.0", "llm>=0.30", "langchain-openai>=1.0", "litellm>=1.80")
HEAD = """\
# Clients

Written by `SOUPMIX_UPDATE=1 .venv/bin/pytest -m slow tests/serve/test_clients.py`: unmodified clients in an environment
of their own against a server with a picoscopic model, each in its usual way
([clients.py](../tests/serve/clients.py)). Answers to `openai` are validated by `openai.types`, strictly. An empty
cell was not tried: the client has no usual way for it. So small a model calls no tools of its own accord; behind the
columns on tools stands a server whose answer is what was said last, so that a call is made by saying it, and its result
comes back. A forced call (`tool_choice` required, or of one tool) is made by the model, and held to the tool's schema.

"""


class LastSaid(EchoBackend):
    """Says the last message back, so a call that is said is made once."""

    def __init__(self) -> None:
        super().__init__(Limits(rows=4, length=4096))

    def tokens(self, said: str | Sequence[Message], tools: Sequence[Tool] = ()) -> tuple[int, ...]:
        return super().tokens(said if isinstance(said, str) else said[-1:], tools)


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter with the clients."""
    given = os.environ.get("SOUPMIX_CLIENTS")
    if given:
        return Path(given) / "bin" / "python"
    folder = tmp_path_factory.mktemp("clients")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    subprocess.run([folder / "bin" / "pip", "install", "--quiet", *CLIENTS], check=True)
    return folder / "bin" / "python"


def table(found: dict[str, dict[str, str]]) -> str:
    kinds = list(dict.fromkeys(kind for each in found.values() for kind in each))
    rows = [
        f"| {client} | "
        + " | ".join("" if kind not in each else "no" if each[kind] else "yes" for kind in kinds)
        + " |"
        for client, each in found.items()
    ]
    return "\n".join([f"| | {' | '.join(kinds)} |", f"|---|{'---|' * len(kinds)}", *rows]) + "\n"


@pytest.mark.slow
def test_every_client_does_what_it_does(
    start: Callable[..., AbstractContextManager[Running]],
    python: Path,
    tiny_base: Base,
    pico_store: Store,
    tmp_path: Path,
) -> None:
    (tmp_path / "tools.jinja").write_text(TAGGED.replace("<|im_start|>", "").replace("<|im_end|>", ""))
    base, limits = tiny_base.with_chat_template(tmp_path / "tools.jinja"), Limits(rows=4, length=512)

    def told_of_tools() -> LocalBackend:
        return LocalBackend.open(base, pico_store, dtype="fp32", limits=limits)

    with start(backend=told_of_tools) as server, start(backend=LastSaid) as calling:
        told = [f"{server.url}/v1", server.keys["acme"], MODEL, f"{calling.url}/v1", calling.keys["acme"]]
        done = subprocess.run(
            [python, ROOT / "tests" / "serve" / "clients.py", *told],
            env={**{key: value for key, value in os.environ.items() if key != "PYTHONPATH"}, **OFFLINE},
            capture_output=True, text=True, check=False, timeout=600,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    if os.environ.get("SOUPMIX_UPDATE"):
        PAGE.write_text(HEAD + table(found))
    assert {client: {what: why for what, why in each.items() if why} for client, each in found.items()} == {
        client: {} for client in found
    }


def test_the_table_says_that_all_of_them_work() -> None:
    written = PAGE.read_text("utf-8")
    assert written.startswith(HEAD)
    assert " no " not in written.removeprefix(HEAD)
    assert all(client.partition(">")[0] in written for client in CLIENTS)

"""Real servers on loopback with a picoscopic model, ended by the test."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import pytest

from soupmix.backends import Limits
from soupmix.backends.local import LocalBackend
from soupmix.base import Base
from soupmix.serve.state import ServerConfig, Settings
from soupmix.store import Store
from tests.support.serving import MODEL, POLICY, Running, running
from tests.support.visits import Visit


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory, tiny_base: Base, pico_store: Store) -> Callable[..., ServerConfig]:
    """A config of a server in a folder of its own, under `POLICY`; settings, fields, limits and store by name."""

    def make(**given: Any) -> ServerConfig:
        home = tmp_path_factory.mktemp("home")
        policy = home / "acme.yaml"
        policy.write_text(POLICY)
        names = Settings.__dataclass_fields__.keys() & given.keys()
        settings = Settings(model=MODEL, **{"patience": 10.0, "drain": 5.0} | {name: given.pop(name) for name in names})
        limits = given.pop("limits", Limits(rows=8, length=256, waiting=32))
        store = given.pop("store", pico_store)
        made = ServerConfig(
            settings=settings,
            backend=lambda: LocalBackend.open(tiny_base, store, dtype="fp32", limits=limits, method=settings.method),
            adapters=store,
            database=str(home / "serve.db"),
            policies=lambda: (policy,),
            audit=home / "audit",
        )
        return replace(made, **given)

    return make


@pytest.fixture(scope="session")
def start(config: Callable[..., ServerConfig]) -> Callable[..., AbstractContextManager[Running]]:
    """Run a server of a test's own: `with start(rows=..) as server`."""
    return lambda **given: running(config(**given))


@pytest.fixture(scope="session")
def server(start: Callable[..., AbstractContextManager[Running]]) -> Iterator[Running]:
    """One server for all tests that leave it as it was."""
    with start() as made:
        yield made


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a window, where there is one."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("there is no Chromium on the path")
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_api.sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=found, args=sandbox)
        yield made
        made.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Visit]]:
    """Open the page in a tab of its own."""
    made: list[Visit] = []

    def open_(url: str, **options: Any) -> Visit:
        made.append(Visit(browser, url, **options))
        return made[-1]

    yield open_
    for each in made:
        each.tab.close()

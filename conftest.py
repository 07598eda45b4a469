"""README and docs are executed: every python block, in a scratch folder beside a link to examples/."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

ROOT = Path(__file__).parent


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder to work in, as a reader of the documents would have."""
    folder, before = tmp_path_factory.mktemp("reader"), Path.cwd()
    (folder / "examples").symlink_to(ROOT / "examples")
    os.chdir(folder)
    yield folder
    os.chdir(before)


def _quiet(namespace: dict[str, Any]) -> None:
    namespace["__name__"] = "document"


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser()],
    patterns=["README.md", "docs/*.md"],
    excludes=["docs/api.md"],  # signatures
    fixtures=["scratch"],
    setup=_quiet,
).pytest()

"""The OpenAPI document is true: schemathesis asks everything that it allows, and much that it does not."""

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.support.serving import Running

# without "use_after_free": of evidence that was forgotten an empty list is left, and test_profiles.py holds the rest
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "ignored_auth",
    "unsupported_method",
    "ensure_resource_availability",
)


SETTINGS = """\
[checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 405, 409, 412, 413, 422]
"""


def explore(server: Running, tmp_path: Path, examples: int, phases: str) -> None:
    settings = tmp_path / "schemathesis.toml"
    settings.write_text(SETTINGS)
    done = subprocess.run(
        [
            str(Path(sys.executable).parent / "schemathesis"),
            f"--config-file={settings}",
            "run",
            f"{server.url}/openapi.json",
            f"--header=Authorization: Bearer {server.keys['acme']}",
            f"--max-examples={examples}",
            f"--checks={','.join(CHECKS)}",
            f"--phases={phases}",
            "--mode=all",
            "--seed=1",
            "--no-color",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    said = [line if len(line) < 400 else f"{line[:400]}..." for line in (done.stdout + done.stderr).splitlines()]
    assert done.returncode == 0, "\n".join(said[-200:])


def test_schemathesis_finds_nothing(server: Running, tmp_path: Path) -> None:
    explore(server, tmp_path, 3, "fuzzing,stateful")


@pytest.mark.slow
def test_schemathesis_finds_nothing_in_many_tries(
    start: Callable[..., AbstractContextManager[Running]], tmp_path: Path
) -> None:
    with start() as server:
        explore(server, tmp_path, 100, "examples,coverage,fuzzing,stateful")


def test_no_answer_is_documented_that_is_never_given(server: Running) -> None:
    with server.http() as http:
        document = http.get("/openapi.json").json()
    assert "HTTPValidationError" not in json.dumps(document)
    told = {path for path, each in document["paths"].items() for one in each.values() if "422" in one["responses"]}
    assert all(path.startswith("/v1/soups/{id}/") for path in told), (
        "what cannot be taken as evidence, and nothing else"
    )
    assert {"/v1/chat/completions", "/v1/soups/{id}", "/metrics"} <= document["paths"].keys()

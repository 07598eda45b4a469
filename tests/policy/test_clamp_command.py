import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from soupmix.cli import cli
from soupmix.cli.options import parse_attributes
from soupmix.errors import AdapterError, PolicyError, PolicyRefusal, RecipeError, SoupmixError, WeightError
from soupmix.policy.recorded import read_record
from soupmix.store import Manifest, ManifestEntry, write_manifest

HEX = "a" * 64


@pytest.fixture
def store(tmp_path: Path) -> Path:
    entries = {
        name: ManifestEntry(
            name=name, dimension=dimension, pole=name, rank=8, alpha=16, scaling="lora", target_modules=("q_proj",),
            config_sha256=HEX, tensors_sha256=f"{index}" * 64, base="tiny", base_digest=f"sha256:{HEX}", licence="MIT",
            delta_norm=1.0,
        )
        for index, (name, dimension) in enumerate([("elementary", "expertise"), ("friendly", "style")])
    }  # fmt: skip
    folder = tmp_path / "store"
    folder.mkdir()
    triangle = (1.0, 0.0, 1.0)
    manifest = Manifest.model_validate({"adapters": entries, "total_budget": 1_200_000, "gram": {"total": triangle}})
    write_manifest(folder, manifest)
    return folder


@pytest.fixture
def acme(tmp_path: Path) -> Path:
    path = tmp_path / "acme.yaml"
    rule = {"rule": "bounds", "adapter": "elementary", "at_most": "0.5", "scope": {"audience": ["minor"]}}
    path.write_text(json.dumps({"tier": "organisation", "issuer": "Acme", "version": "1", "rules": [rule]}))
    return path


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(cli, ["clamp", *map(str, arguments)])


def failed(result: Result, kind: type[SoupmixError], code: int) -> str:
    assert isinstance(result.exception, kind)
    assert result.exception.exit_code == code
    return str(result.exception)


def test_explains_on_stdout_and_talks_on_stderr(store: Path, acme: Path) -> None:
    result = run("-w", "elementary=0.9", "--weight", "friendly=0.3", "--policy", acme, "--attribute", "audience=minor",
                 "--store", store)  # fmt: skip
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "elementary 0.9 -> 0.5   acme.yaml (organisation): at most 0.5 for audience minor",
        "friendly 0.3",
    ]
    assert "no document approves adapters by digest" in result.stderr


def test_json_is_the_grant(store: Path, acme: Path) -> None:
    result = run("-w", "elementary=0.9,friendly=0.3", "--policy", acme, "--store", store, "--json")
    record = json.loads(result.stdout)
    assert record["granted"] == {"elementary": "0.5", "friendly": "0.3"}
    assert read_record(record).clamped


def test_no_policy_is_said_aloud(store: Path) -> None:
    result = run("-w", "elementary=1,friendly=1", "--store", store)
    assert result.exit_code == 0
    assert "no policy is applied" in result.stdout
    assert "elementary 1 -> 0.6   built-in: all weights together at most 1.2" in result.stdout


def test_strict_refuses_what_it_would_clamp(store: Path, acme: Path) -> None:
    options = ("--policy", acme, "--store", store, "--strict")
    assert run("-w", "elementary=0.5", *options).exit_code == 0
    result = run("-w", "elementary=0.6", *options)
    failed(result, PolicyRefusal, 3)
    assert "elementary 0.6 -> 0.5" in result.stdout


def test_bad_input(store: Path, acme: Path, tmp_path: Path) -> None:
    options = ("--policy", acme, "--store", store)
    assert "unknown adapter 'expert'" in failed(run("-w", "expert=1", *options), WeightError, 2)
    assert "nan" in failed(run("-w", "friendly=nan", *options), WeightError, 2)
    assert "given twice" in failed(run("-w", "friendly=1", "-w", "friendly=1", *options), WeightError, 2)
    assert "known are" in failed(run("-w", "friendly=1", "--attribute", "age=3", *options), RecipeError, 2)
    for name in ("sources", "self", "requested", "weights", "attributes"):
        said = failed(run("-w", "friendly=1", "--attribute", f"{name}=explicit", *options), RecipeError, 2)
        assert f"unknown attribute '{name}'; known are" in said
    assert "KEY=VALUE" in failed(run("-w", "friendly=1", "--attribute", "age", *options), RecipeError, 2)
    missing = run("-w", "friendly=1", "--policy", tmp_path / "no.yaml", "--store", store)
    assert "cannot read policy" in failed(missing, PolicyError, 1)
    failed(run("-w", "friendly=1", "--store", tmp_path), AdapterError, 1)
    assert run("--store", store).exit_code == 2


def test_attributes_are_given_once() -> None:
    assert parse_attributes(["audience=minor", "tenant=acme"]) == {"audience": "minor", "tenant": "acme"}
    with pytest.raises(RecipeError, match="'audience' is given twice"):
        parse_attributes(["audience=adult", "audience=minor"])


def test_needs_no_torch(store: Path) -> None:
    code = (
        "import sys; from soupmix.cli import cli;"
        f"cli(['clamp', '-w', 'friendly=1', '--store', {str(store)!r}], standalone_mode=False);"
        "sys.exit(any(m in sys.modules for m in ('torch', 'transformers', 'peft', 'numpy')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "friendly 1"), done.stderr

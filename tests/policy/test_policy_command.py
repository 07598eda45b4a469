"""`soupmix policy`: exit codes, what is printed, and that the examples pass their own cases."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from soupmix.cli import cli
from soupmix.errors import PolicyError

EXAMPLES = Path(__file__).parents[2] / "examples" / "policies"
LAW, ACME, TOGETHER = (EXAMPLES / f"{name}.example.yaml" for name in ("law", "organisation", "combinations"))
MORE = sorted(set(EXAMPLES.glob("*.yaml")) - {EXAMPLES / "cases.example.yaml"})


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(cli, ["policy", *map(str, arguments)])


def document(path: Path, *rules: dict[str, Any], tier: str = "organisation") -> Path:
    path.write_text(json.dumps({"tier": tier, "issuer": "x", "version": "1", "rules": list(rules)}))
    return path


def test_check_names_what_has_no_effect(tmp_path: Path) -> None:
    cap = {"rule": "bounds", "adapter": "friendly", "at_most": "0.5", "id": "cap"}
    made = document(tmp_path / "a.yaml", cap, {**cap, "at_most": "0.9", "id": "loose"})
    shown = run("check", made)
    assert shown.exit_code == 0
    assert "without effect: a.yaml (organisation) loose" in shown.stdout
    assert run("check", made, "--strict").exit_code == 1
    said = json.loads(run("check", made, "--json").stdout)
    assert said["without_effect"] == ["a.yaml (organisation) loose"]
    assert said["rules"] == 2


def test_check_names_a_conflict(tmp_path: Path) -> None:
    made = document(
        tmp_path / "a.yaml",
        {"rule": "require", "adapter": "friendly", "at_least": "0.3", "id": "floor"},
        {"rule": "combinations", "allow": [], "id": "nothing"},
    )
    shown = run("check", made)
    assert isinstance(shown.exception, PolicyError)
    assert "floor" in str(shown.exception)
    assert "nothing" in str(shown.exception)


def test_diff_prints_a_witness_and_fails(tmp_path: Path) -> None:
    old = document(tmp_path / "old.yaml", {"rule": "bounds", "adapter": "friendly", "at_most": "0.5"})
    new = document(tmp_path / "new.yaml", {"rule": "bounds", "adapter": "friendly", "at_most": "0.500001"})
    shown = run("diff", old, new)
    assert (shown.exit_code, shown.stdout) == (1, "let through now (no attributes stated): friendly 0.500001\n")
    back = run("diff", new, old)
    assert back.exit_code == 0
    assert "lets nothing new through" in back.stdout
    said = json.loads(run("diff", old, new, "--json").stdout)
    assert said["contained"] is False
    assert said["widenings"][0]["weights"] == {"friendly": "0.500001"}


def test_a_folder_is_its_documents_outer_tier_first(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for folder in (old, new):
        folder.mkdir()
        document(folder / "a.yaml", {"rule": "bounds", "adapter": "friendly", "at_most": "0.5"})
    document(new / "b.yaml", {"rule": "deny", "adapter": "expert"}, tier="law")
    assert run("diff", old, new).exit_code == 0
    assert run("diff", new, old).exit_code == 1
    (tmp_path / "empty").mkdir()
    assert "holds no policy document" in str(run("check", tmp_path / "empty").exception)


def test_the_examples_pass_their_cases() -> None:
    shown = run("test", EXAMPLES / "cases.example.yaml", LAW, ACME, TOGETHER)
    assert shown.exit_code == 0, shown.stdout
    assert shown.stdout.count("ok ") == 3
    assert "never bound: organisation.example.yaml (organisation) friendly-capped" in shown.stdout
    assert run("test", EXAMPLES / "cases.example.yaml", LAW, ACME, TOGETHER, "--strict").exit_code == 1
    assert json.loads(run("test", EXAMPLES / "cases.example.yaml", LAW, ACME, "--json").stdout)["ok"] is False


@pytest.mark.parametrize("path", MORE, ids=lambda path: path.name)
def test_every_example_says_that_it_is_one_and_compiles(path: Path) -> None:
    text = path.read_text("utf-8")
    assert text.startswith("# EXAMPLE. NOT LEGAL ADVICE")
    assert "# checked_on: 2026-" in text
    assert run("check", path).exit_code == 0


def test_schema_is_printed() -> None:
    assert json.loads(run("schema").stdout)["title"] == "soupmix policy document"


def test_merge_and_recipes_say_where_weights_come_from(tmp_path: Path) -> None:
    made = document(tmp_path / "a.yaml", {"rule": "source", "allow": ["explicit"]})
    words = ["merge", "-w", "friendly=0.4", "--policy", str(made), "--dry-run"]
    assert CliRunner().invoke(cli, words).stdout.strip() == ""
    assert CliRunner().invoke(cli, [*words, "--source", "explicit"]).stdout.strip() == "friendly=0.4"
    assert CliRunner().invoke(cli, [*words, "--source", "friendly=explicit"]).stdout.strip() == "friendly=0.4"
    recipe = tmp_path / "r.yaml"
    recipe.write_text("weights: {friendly: 0.4}\npolicies: [a.yaml]\nsources: explicit\n")
    assert CliRunner().invoke(cli, ["merge", str(recipe), "--dry-run"]).stdout.strip() == "friendly=0.4"
    wrong = CliRunner().invoke(cli, [*words, "--source", "explicit", "--source", "friendly=stored"])
    assert "once for each adapter" in str(wrong.exception)


@pytest.mark.parametrize("name", ["10-law.YAML", "10-law.Yml", "10-law.yml"])
def test_a_document_counts_however_its_name_is_spelled(tmp_path: Path, name: str) -> None:
    document(tmp_path / "20.yaml")
    document(tmp_path / name, {"rule": "deny", "adapter": "friendly"}, tier="law")
    assert json.loads(run("check", tmp_path, "--json").stdout)["rules"] == 1


@pytest.mark.parametrize(
    "name", ["law.json", "law.yaml.txt", "law", "README.md", "law.yaml.gpg", "law.toml", "LAW.JSON"]
)
def test_what_is_no_document_stops_a_folder(tmp_path: Path, name: str) -> None:
    document(tmp_path / "20.yaml")
    document(tmp_path / name)
    refused = run("check", tmp_path).exception
    assert isinstance(refused, PolicyError)
    assert refused.reason == "not-a-document"
    assert f"{name} in the policy folder" in str(refused)


def test_what_is_no_file_stops_a_folder(tmp_path: Path) -> None:
    made = {
        "folder.yaml": lambda path: path.mkdir(),
        "pipe.yaml": os.mkfifo,
        "nowhere.yaml": lambda path: path.symlink_to("not-there"),
    }
    for name, make in made.items():
        folder = tmp_path / name
        folder.mkdir()
        document(folder / "20.yaml")
        make(folder / name)
        refused = run("check", folder).exception
        assert isinstance(refused, PolicyError)
        assert refused.reason == "not-a-document"


def test_what_lies_beside_documents_is_named(tmp_path: Path) -> None:
    names = [".law.yaml", ".law.yaml.swp", "#law.yaml#", "law.yaml~", "law.yaml.bak", "law.yaml.ORIG"]
    for name in names:
        document(tmp_path / name, {"rule": "deny", "adapter": "friendly"})
    empty = run("check", tmp_path)
    assert isinstance(empty.exception, PolicyError)
    assert empty.exception.reason == "empty"
    document(tmp_path / "20.yaml")
    shown = run("check", tmp_path, "--json")
    assert json.loads(shown.stdout)["rules"] == 0
    assert all(name in shown.stderr for name in names)

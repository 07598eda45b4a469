"""`soupmix merge` and `soupmix verify` as a user meets them: streams, exit codes, nothing half-written."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from soupmix.base import Base
from soupmix.cli import cli
from soupmix.merge import Soup, merge
from soupmix.merge.sink import Sink
from soupmix.policy import Policy
from soupmix.store.store import Store

Run = Callable[..., tuple[int, str, str]]


def left_over(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "store")


def test_flags_make_an_adapter_and_verify_agrees(run: Run, three: Store, tmp_path: Path) -> None:
    options = ("--store", three.folder, "-w", "friendly=0.5,concise=1.5", "--json")
    code, out, err = run("merge", *options, tmp_path / "out")
    summary = json.loads(out)
    assert code == 0
    assert summary["grant"]["granted"] == {"concise": "1", "friendly": "0.5"}
    assert summary["errors"]["truncation"] == 0.0
    assert "concise 1.5 -> 1   built-in: every weight at most 1" in err
    assert run("verify", tmp_path / "out")[0] == 0
    assert json.loads(run("verify", tmp_path / "out", "--json")[1])["ok"] is True


def test_a_recipe_makes_a_model_and_its_own_recipe_makes_it_again(
    run: Run, three: Store, tiny_base: Base, tmp_path: Path
) -> None:
    recipe = tmp_path / "soup.yaml"
    recipe.write_text(f"base: {tiny_base.folder}\nstore: store\nweights: {{friendly: 0.5}}\nas: model\ndtype: bf16\n")
    assert run("merge", recipe, tmp_path / "one")[0] == 0
    code, out, err = run("merge", tmp_path / "one/soupmix_recipe.yaml", tmp_path / "two")
    assert (code, out) == (0, f"{tmp_path / 'two'}\n")
    assert "rounding loss" in err
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_a_recorded_recipe_does_not_escape_its_policy(run: Run, three: Store, tmp_path: Path) -> None:
    policy = tmp_path / "acme.yaml"
    policy.write_text(
        "tier: organisation\nissuer: Acme\nversion: '1'\nrules:\n"
        "- {rule: bounds, id: calm, adapter: friendly, at_most: '0.25'}\n"
    )
    code, _, err = run("merge", "--store", three.folder, "-w", "friendly=0.5", "--policy", policy, tmp_path / "one")
    assert code == 0
    assert "friendly 0.5 -> 0.25   acme.yaml" in err
    again = ("merge", tmp_path / "one/soupmix_recipe.yaml", tmp_path / "two")
    code, _, err = run(*again)
    assert code == 1
    assert "carried out under policy" in err
    named = f"acme.yaml: organisation, by Acme, version 1, {Policy.load(policy, adapters=three).documents[0].digest}"
    assert named in err  # who merges it again is told which documents to bring
    assert f"granted under {named}" in run("verify", tmp_path / "one")[1]
    (told,) = json.loads(run("verify", tmp_path / "one", "--json")[1])["policies"]
    written = yaml.safe_load((tmp_path / "one/soupmix_recipe.yaml").read_text())["record"]["policies"]
    assert [told] == written == json.loads((tmp_path / "one/soupmix_grant.json").read_text())["documents"]
    assert named in run("policy", "explain", policy)[1].splitlines()[0].replace("; sha256", ", sha256")
    assert f"- {named}" in (tmp_path / "one/README.md").read_text()
    assert run(*again, "--policy", policy)[0] == 0
    assert (tmp_path / "one/README.md").read_bytes() == (tmp_path / "two/README.md").read_bytes()


def test_what_was_made_under_a_digest_of_before_is_still_read(run: Run, three: Store, tmp_path: Path) -> None:
    """Records of schema 1 verify, and their recipes are carried out again; under other documents they are not."""
    policy, of_before = Policy.open(three), Policy.open(three)
    object.__setattr__(of_before, "_digest", policy.former_digest)
    soup = merge(three, of_before.clamp("friendly=0.5"))
    soup.save_adapter(tmp_path / "old")
    assert policy.former_digest in (tmp_path / "old/soupmix_recipe.yaml").read_text()
    assert run("verify", tmp_path / "old")[0] == 0
    assert run("merge", tmp_path / "old/soupmix_recipe.yaml", tmp_path / "new")[0] == 0
    assert policy.digest in (tmp_path / "new/soupmix_recipe.yaml").read_text()
    law = tmp_path / "law.yaml"
    law.write_text("tier: law\nissuer: EU\nversion: '1'\nrules: []\n")
    assert run("merge", tmp_path / "old/soupmix_recipe.yaml", tmp_path / "no", "--policy", law)[0] == 1


def test_dry_run_writes_nothing(run: Run, three: Store, tmp_path: Path) -> None:
    code, out, err = run("merge", "--store", three.folder, "-w", "friendly=2", "--dry-run")
    assert (code, out) == (0, "friendly=1\n")
    assert "friendly 2 -> 1" in err
    assert left_over(tmp_path) == []


def test_dry_run_needs_no_torch(three: Store) -> None:
    code = "import sys; from soupmix.cli import main\ntry:\n main()\nfinally:\n print('torch' in sys.modules, file=sys.stderr)"
    arguments = ["merge", "--store", str(three.folder), "-w", "friendly=1", "--dry-run"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout == "friendly=1\n"
    assert done.stderr.endswith("False\n")


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["-w", "friendly=0.5"], 2, "give OUT"),
        (["-w", "friendly=0.5", "a", "b", "c"], 2, "give OUT"),
        (["recipe.yaml"], 2, "give the folder to write as well"),
        (["OUT"], 2, "command line, weights: is missing"),
        (["-w", "frendly=0.5", "OUT"], 2, "did you mean 'friendly'"),
        (["-w", "friendly=nan", "OUT"], 2, "'nan' is not a plain decimal number"),
        (["-w", "friendly=1e999", "OUT"], 2, "not a plain decimal number"),
        (["-w", "friendly=0.5,friendly=0.5", "OUT"], 2, "given twice"),
        (["-w", "friendly=0", "OUT"], 2, "no adapter was granted"),
        (["-w", "friendly=1", "--rank", "0", "OUT"], 2, "command line, rank"),
        (["-w", "friendly=1", "--as", "model", "--rank", "2", "OUT"], 2, "rank is for an adapter"),
        (["-w", "friendly=1", "--as", "model", "--base", "nowhere", "OUT"], 1, "no base model 'nowhere'"),
        (["gone.yaml", "OUT"], 1, "gone.yaml cannot be read"),
        (["-w", "friendly=1", "--policy", "gone.yaml", "OUT"], 1, "gone.yaml"),
        (["-w", "friendly=1", "store"], 1, "exists already"),
        (["-w", "friendly=1", "store/manifest.json/out"], 1, "cannot write"),
    ],
)
def test_bad_input_is_one_sentence_and_the_right_code(
    arguments: list[str], code: int, told: str, run: Run, three: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    got, out, err = run("merge", "--store", three.folder, *arguments)
    assert (got, out) == (code, "")
    assert told in err
    assert "Traceback" not in err
    assert left_over(tmp_path) == []


def test_verify_names_what_changed_and_exits_1(run: Run, soup: Soup, tmp_path: Path) -> None:
    soup.save_adapter(tmp_path / "out")
    (tmp_path / "out/README.md").write_text("better")
    code, out, err = run("verify", tmp_path / "out", "--no-rebuild")
    assert code == 1
    assert out == "output-changed  README.md  README.md is not the file that was written\n"
    assert "is not as recorded" in err
    code, out, err = run("verify", tmp_path)
    assert (code, out) == (1, "")
    assert "is no result of soupmix" in err


def test_a_full_disk_leaves_nothing(three: Store, tiny_base: Base, tmp_path: Path, session_cache: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from soupmix.cli import run; run()",
            "merge",
            "--store",
            three.folder,
            "-w",
            "friendly=1",
            "--as",
            "model",
            "--base",
            tiny_base.folder,
            tmp_path / "out",
        ],
        preexec_fn=limit,
        capture_output=True,
        text=True,
        env=os.environ | {"SOUPMIX_CACHE": str(session_cache)},
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"soupmix: cannot write {tmp_path / 'out'}: File too large")
    assert "Traceback" not in done.stderr
    assert left_over(tmp_path) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_place_is_one_sentence(run: Run, three: Store, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    code, _, err = run("merge", "--store", three.folder, "-w", "friendly=1", tmp_path / "closed/out")
    assert code == 1
    assert "cannot write" in err


def test_ctrl_c_in_the_middle_leaves_nothing(
    run: Run, three: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(self: Sink, name: str, data: bytes) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)

    monkeypatch.setattr(Sink, "write", interrupt)
    code, out, err = run("merge", "--store", three.folder, "-w", "friendly=1", tmp_path / "out")
    assert (code, out) == (130, "")
    assert "interrupted; nothing was left half-written" in err
    assert left_over(tmp_path) == []


@pytest.mark.parametrize("name", ["merge", "verify"])
def test_help_shows_an_example_of_every_option(name: str) -> None:
    result: Result = CliRunner().invoke(cli, [name, "--help"])
    assert result.exit_code == 0
    assert "--store DIR" in result.output

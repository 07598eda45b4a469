"""`soupmix adapters`, as a shell sees it."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from soupmix.base import Base
from soupmix.cli import cli
from soupmix.errors import SoupmixError
from soupmix.policy.rules import Approve
from soupmix.store import Store


def _run(*arguments: object) -> Result:
    result = CliRunner().invoke(cli, ["adapters", *map(str, arguments)])
    if result.exception and not isinstance(result.exception, SystemExit | SoupmixError):
        raise result.exception
    return result


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, session_cache: Path) -> None:
    monkeypatch.setenv("SOUPMIX_CACHE", str(session_cache))


@pytest.mark.usefixtures("cache")
def test_add_list_show(handmade: Callable[..., Path], tiny_base: Base, tmp_path: Path) -> None:
    where = ("--store", tmp_path / "s")
    added = _run(
        "add", handmade(), "--dimension", "expertise", "--pole", "expert", "--base", tiny_base.folder, *where,
        "--tag", "mild", "--tag", "tested", "--licence", "Apache-2.0",
    )  # fmt: skip
    entry = Store(tmp_path / "s")["expert"]
    assert added.stdout == f"{entry.digest}\n"
    assert "added expert" in added.stderr
    assert (entry.tags, entry.licence, entry.base) == (("mild", "tested"), "Apache-2.0", "tiny-llama")
    listed = json.loads(_run("list", "--json", *where).stdout)
    assert [(item["name"], item["digest"]) for item in listed] == [("expert", entry.digest)]
    shown = json.loads(_run("show", "expert", "--json", *where).stdout)
    assert shown == {"digest": entry.digest, **entry.model_dump(mode="json")}
    assert entry.digest in _run("show", "expert", *where).stdout
    assert "expertise" in _run("list", *where).stdout


def test_the_approve_rule_approves_exactly_this_store(stored: Store) -> None:
    rule = _run("list", "--approve", "--store", stored.folder).stdout
    entry = stored["expert"]
    (parsed,) = yaml.safe_load(rule)
    adapters = [{"name": "expert", "digest": entry.digest, "dimension": "expertise", "pole": "expert"}]
    assert parsed == {"rule": "approve", "adapters": adapters}


def test_a_policy_reads_the_approve_rule(stored: Store) -> None:
    (rule,) = yaml.safe_load(_run("list", "--approve", "--store", stored.folder).stdout)
    assert Approve.model_validate(rule).adapters[0].digest == stored["expert"].digest


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("show", "experts"), 2, "did you mean 'expert'"),
        (("list", "--json", "--approve"), 2, "exclude each other"),
        (("add", "nowhere", "--dimension", "d", "--pole", "p"), 1, "no base model 'nothing'"),
    ],
)
@pytest.mark.usefixtures("cache")
def test_a_mistake_is_one_sentence_and_a_code(stored: Store, arguments: tuple[str, ...], code: int, words: str) -> None:
    more = ("--base", "nothing") if arguments[0] == "add" else ()
    command = [sys.executable, "-c", "from soupmix.cli import run; run()", "adapters", *arguments, *more]
    said = subprocess.run([*command, "--store", stored.folder], capture_output=True, text=True, check=False)
    assert said.returncode == code
    assert words in said.stderr
    assert "Traceback" not in said.stderr
    assert said.stdout == ""


def test_list_and_show_do_without_torch(stored: Store) -> None:
    code = (
        "import sys; from soupmix.cli import cli; "
        "[cli.main(['adapters', *words, '--store', sys.argv[1]], standalone_mode=False) "
        "for words in (['list'], ['show', 'expert'])]; "
        "print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code, stored.folder], capture_output=True, text=True, check=True)
    assert said.stdout.splitlines()[-1] == "[]"


@pytest.mark.usefixtures("cache")
def test_what_is_worth_knowing_is_said_in_words_and_in_json(
    handmade: Callable[..., Path], tiny_base: Base, tmp_path: Path
) -> None:
    where = ("--base", tiny_base.folder, "--store", tmp_path / "s", "--dimension", "d", "--pole", "p", "--force")
    folder = handmade(target_modules=["q_proj", "v_proj"])
    added = _run("add", folder, *where)
    assert "note: adapter_config.json targets model.layers.0.self_attn.v_proj and 1 more" in added.stderr
    said = json.loads(_run("add", folder, *where, "--json").stdout)
    assert (said["name"], said["digest"]) == ("p", added.stdout.strip())
    assert [(note["kind"], note["subject"]) for note in said["notes"]] == [("no-factors", "adapter_model.safetensors")]


@pytest.mark.usefixtures("cache")
def test_what_training_left_beside_goes_into_the_manifest(
    handmade: Callable[..., Path], tiny_base: Base, tmp_path: Path
) -> None:
    folder = handmade()
    (folder / "training.json").write_text('{"seed": 3}')
    where = ("--store", tmp_path / "s")
    words = ("add", folder, "--dimension", "d", "--pole", "p", "--base", tiny_base.folder, *where)
    _run(*words)
    entry = Store(tmp_path / "s")["p"]
    assert (entry.training, entry.effect) == ({"seed": 3}, {})
    for bad in ("[1]", '{"a": NaN}', "{", "[" * 100_000, " " * ((1 << 20) + 1)):
        (folder / "effect.json").write_text(bad)
        added = _run(*words, "--force", "--json")
        assert [(note["kind"], note["subject"]) for note in json.loads(added.stdout)["notes"]] == [
            ("facts", "effect.json")
        ]
        assert "note: effect.json is left out: " in added.stderr
    entry = Store(tmp_path / "s")["p"]
    assert (entry.training, entry.effect) == ({"seed": 3}, {})


@pytest.mark.usefixtures("cache")
def test_budget_is_recorded_and_lifted(handmade: Callable[..., Path], tiny_base: Base, tmp_path: Path) -> None:
    where = ("--store", tmp_path / "s")
    _run("add", handmade(), "--dimension", "d", "--pole", "p", "--base", tiny_base.folder, *where)
    _run("budget", "0.75", *where)
    assert Store(tmp_path / "s").total_budget == 750_000
    for bad in ("-1", "nan", "much"):
        assert isinstance(_run("budget", *where, "--", bad).exception, SoupmixError)
    assert Store(tmp_path / "s").total_budget == 750_000
    _run("budget", "none", *where)
    assert Store(tmp_path / "s").total_budget is None

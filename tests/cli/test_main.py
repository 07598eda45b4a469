"""The binary itself: exit codes, one sentence on stderr, never a traceback; heavy imports stay inside commands."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import click
import pytest
from click.testing import CliRunner

import soupmix
from soupmix.base import Base
from soupmix.cli import cli, main
from soupmix.store import Store

BINARY = str(Path(sys.executable).parent / "soupmix")
SNAPSHOT = Path(__file__).parents[2] / "docs" / "cli.md"


def commands(group: click.Group = cli, *above: str) -> Iterator[str]:
    """Every command there is, and its own behind it."""
    yield " ".join(above)
    context = click.Context(group)
    for name in group.list_commands(context):
        made = group.get_command(context, name)
        if isinstance(made, click.Group):
            yield from commands(made, *above, name)
        elif made is not None and not made.hidden:
            yield " ".join((*above, name))


def run(*words: str, cwd: Path | None = None, **extra: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [BINARY, *words], cwd=cwd, capture_output=True, text=True, env={**os.environ, **extra}, check=False
    )


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, tiny_base: Base, tiny_adapter: Callable[..., Path]) -> Path:
    """A store of two picoscopic adapters."""
    store = Store(tmp_path_factory.mktemp("shop"), create=True)
    for seed, name in enumerate(("calm", "loud")):
        store.add(tiny_adapter(seed=seed), name=name, dimension="tone", pole=name, base=tiny_base)
    return store.folder


BAD = {
    "unknown adapter": (["-w", "clam=1"], 2, "calm"),
    "not a number": (["-w", "calm=nan"], 2, "nan"),
    "too large": (["-w", "calm=1e999"], 2, "1e999"),
    "infinite": (["-w", "calm=inf"], 2, "inf"),
    "twice": (["-w", "calm=0.1", "-w", "calm=0.2"], 2, "calm"),
    "underscore": (["-w", "calm=0_1"], 2, "0_1"),
    "full-width digit": (["-w", "calm=１"], 2, "calm"),
    "no name": (["-w", "=1"], 2, "name"),
    "no such policy": (["-w", "calm=1", "--policy", "absent.yaml"], 1, "absent.yaml"),
    "bad attribute": (["-w", "calm=1", "--attribute", "audience"], 2, "KEY=VALUE"),
    "unknown attribute": (["-w", "calm=1", "--attribute", "shoe=44"], 2, "shoe"),
    "no store": (["-w", "calm=1", "--store", "nowhere"], 1, "nowhere"),
}


@pytest.mark.parametrize("command", ["batch in out", "chat hi", "evaluate out", "learn", "serve --open --no-auth"])
def test_a_method_that_no_row_can_have_is_refused_with_what_it_is_for(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["soupmix", *command.split(), "--method", "ties"])
    with pytest.raises(SystemExit) as stop:
        main()
    said = " ".join(capsys.readouterr().err.split())
    assert stop.value.code == 2
    assert "'ties' makes adapters and models at load time" in said
    assert "use delta or factor" in said
    assert "`soupmix merge --method ties --as model OUT`" in said


@pytest.mark.parametrize("case", sorted(BAD))
@pytest.mark.parametrize("command", ["clamp", "merge"])
def test_bad_input_is_one_sentence_and_nothing_written(
    shop: Path,
    tmp_path: Path,
    command: str,
    case: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words, code, hint = BAD[case]
    target = ["out"] if command == "merge" else []
    monkeypatch.setattr(sys, "argv", ["soupmix", command, "--store", str(shop), *words, *target])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main()
    shown = capsys.readouterr()
    assert stop.value.code == code, shown.err
    assert hint in shown.err
    assert shown.out == ""
    assert len(shown.err.splitlines()) == 1, shown.err
    assert list(tmp_path.iterdir()) == []


def test_a_refusal_is_no_traceback(shop: Path, tmp_path: Path) -> None:
    done = run("merge", "--store", str(shop), "-w", "calm=nan", "out", cwd=tmp_path)
    assert (done.returncode, done.stdout, list(tmp_path.iterdir())) == (2, "", [])
    assert "Traceback" not in done.stderr


def test_a_usage_error_is_exit_code_2() -> None:
    done = run("clamp")
    assert done.returncode == 2
    assert "-w" in done.stderr


@pytest.mark.parametrize("moment", [1.0, 1.4, 2.5])
def test_ctrl_c_leaves_nothing(shop: Path, tmp_path: Path, tiny_base: Base, moment: float) -> None:
    words = ["merge", "--store", str(shop), "-w", "calm=1", "--as", "model", "--base", str(tiny_base.folder), "out"]
    process = subprocess.Popen([BINARY, *words], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    time.sleep(moment)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    left = [path.name for path in tmp_path.iterdir()]
    # the signal itself: before Python ran a line of ours; 1: what was being imported made an error of its own of it
    assert process.returncode in (0, 1, 130, -signal.SIGINT), stderr
    assert left == ["out"] if process.returncode == 0 else left in ([], ["out"])
    if left:  # it was finished before the signal came, and then it is whole
        assert soupmix.verify(tmp_path / "out", rebuild=False).ok
    assert "Traceback" not in stderr or process.returncode in (1, -signal.SIGINT)


def test_help_is_quick_to_import() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from soupmix.cli import cli; CliRunner().invoke(cli, ['--help']);"
        "sys.exit(','.join(sorted({'torch', 'transformers', 'peft', 'numpy'} & set(sys.modules))) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"imported by --help: {done.stderr}"


@pytest.mark.parametrize("words", [["clamp", "-w", "calm=0.5"], ["adapters", "list"], ["adapters", "show", "calm"]])
def test_commands_that_only_read_the_manifest_need_no_torch(shop: Path, words: list[str]) -> None:
    call = f"cli.main({[*words, '--store', str(shop)]!r}, standalone_mode=False)"
    code = f"import sys; from soupmix.cli import cli; {call}; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def help_texts() -> str:
    """docs/cli.md: every help text."""
    runner = CliRunner()
    parts = ["# Command line", "", "Generated from `--help`; `SOUPMIX_UPDATE=1 pytest tests/cli` writes it anew."]
    for name in commands():
        shown = runner.invoke(
            cli, [*name.split(), "--help"], prog_name="soupmix", terminal_width=100, max_content_width=100
        )
        assert shown.exit_code == 0, shown.output
        parts += ["", f"## soupmix {name}".rstrip(), "", "```text", shown.output.rstrip(), "```"]
    return "\n".join(parts) + "\n"


def test_help_texts_are_as_documented() -> None:
    if os.environ.get("SOUPMIX_UPDATE"):
        SNAPSHOT.write_text(help_texts(), "utf-8")
    assert SNAPSHOT.read_text("utf-8") == help_texts()


def test_public_names_are_sorted_and_exist() -> None:
    assert list(soupmix.__all__) == sorted(soupmix.__all__)
    for name in soupmix.__all__:
        found = getattr(soupmix, name)
        assert callable(found) or isinstance(found, ModuleType) or name == "__version__"
    assert soupmix.merge.Soup is soupmix.Soup
    with pytest.raises(AttributeError, match="nonsense"):
        _ = soupmix.nonsense  # type: ignore[attr-defined]


def test_doctor_says_what_is_there() -> None:
    done = run("doctor", "--json")
    assert '"torch"' in done.stdout
    assert '"triton"' in done.stdout
    assert "Traceback" not in done.stderr

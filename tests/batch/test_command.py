"""`soupmix batch` itself: files in, files out, what is refused, and what Ctrl-C and kill -9 leave."""

import csv
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from soupmix.audit import read_records, verify
from soupmix.base import Base
from soupmix.store import Store
from tests.support.batch_shop import chat, mixed

BINARY = str(Path(sys.executable).parent / "soupmix")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def words(tiny_base: Base, pico_store: Store, policy_file: Path, tmp_path: Path) -> list[str]:
    """The command line, with files still to come, from within a folder of its own."""
    shown = {"--base": tiny_base.folder, "--store": pico_store.folder, "--policy": policy_file, "--model": "tiny"}
    limits = {"--rows": 4, "--length": 128, "--line-bytes": 4096, "--max-new-tokens": 8}
    return ["batch", *(str(word) for pair in {**shown, **limits}.items() for word in pair)]


@pytest.fixture
def some(tmp_path: Path) -> Path:
    """A batch of three lines: one answered, one refused, one bad."""
    refused = {"weights": {"loud": 0.5}, "attributes": {"audience": "minor"}}
    lines = [chat(0, soup={"weights": {"calm": 0.9}}), chat(1, soup=refused, user="anna")]
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + "nonsense")
    return path


def test_lines_in_lines_out(run: Run, words: list[str], some: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    code, shown, said = run(*words, some, out, "--json")
    assert code == 0
    assert json.loads(shown) == {"lines": 3, "answered": 1, "refused": 1, "bad": 1, "failed": 0}
    assert "3 lines: 1 answered, 1 refused, 1 bad, 0 failed" in said
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert [each["response"]["status_code"] for each in found] == [200, 403, 400]
    assert found[0]["response"]["body"]["soup"]["granted"] == {"calm": "0.5"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


def test_seeds_decide_and_nothing_else_does(run: Run, words: list[str], some: Path, tmp_path: Path) -> None:
    outs = [tmp_path / f"{n}.jsonl" for n in range(3)]
    for out, seed in zip(outs, (1, 1, 2), strict=True):
        assert run(*words, some, out, "--seed", seed)[0] == 0
    first, again, other = (out.read_bytes() for out in outs)
    assert first == again
    texts = [json.loads(each.splitlines()[0])["response"]["body"]["choices"] for each in (first, other)]
    assert texts[0] != texts[1]


def test_tables(run: Run, words: list[str], tmp_path: Path) -> None:
    rows = [["question", "calm", "who"], ["why?", "0.9", "a"], ["", "", "b"], ["how?", "lots", "c"], ["hi", "", "d"]]
    with (tmp_path / "in.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    columns = ["--column", "prompt=question", "--column", "weights.calm=calm", "--column", "custom_id=who"]
    assert run(*words, *columns, tmp_path / "in.csv", tmp_path / "out.csv")[0] == 0
    with (tmp_path / "out.csv").open(newline="") as file:
        head, *found = csv.reader(file)
    assert head == [*rows[0], "answer", "granted", "error"]
    assert [each[:3] for each in found] == rows[1:]
    assert [bool(each[3]) for each in found] == [True, False, False, True]
    assert [each[4] for each in found] == ["calm=0.5", "", "", ""]
    assert [each[5].partition(":")[0] for each in found] == ["", "empty-prompt", "string_pattern_mismatch", ""]
    assert run(*words, *columns, tmp_path / "in.csv", tmp_path / "out.jsonl")[0] == 0
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["custom_id"] for line in lines] == ["a", "b", "c", "d"]
    assert lines[0]["response"]["body"]["choices"][0]["message"]["content"] == found[0][3]


def test_an_output_is_replaced_with_leave_only(run: Run, words: list[str], some: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text("precious")
    code, _, said = run(*words, some, out)
    assert (code, out.read_text()) == (1, "precious")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]
    assert "--force" in said
    assert run(*words, some, out, "--force")[0] == 0
    assert len(out.read_text().splitlines()) == 3


def test_it_goes_on_under_the_same_settings_only(
    run: Run, words: list[str], some: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, whole = tmp_path / "out.jsonl", tmp_path / "whole.jsonl"
    assert run(*words, some, whole)[0] == 0
    with monkeypatch.context() as broken:
        broken.setattr(Path, "replace", _full)
        code, _, said = run(*words, some, out)
    assert (code, out.exists()) == (1, False)
    assert "No space left" in said
    part = tmp_path / "out.jsonl.part"
    part.write_bytes(b"".join(part.read_bytes().splitlines(keepends=True)[:2]))
    assert "seed was 0 and is 5" in run(*words, some, out, "--seed", "5")[2]
    assert run(*words, some, out, "--temperature", "0.5")[0] == 2
    some.write_bytes(some.read_bytes() + b"\n")
    code, _, said = run(*words, some, out)
    assert (code, "input was" in said, "lines was" in said) == (2, True, False)
    some.write_bytes(some.read_bytes()[:-1])
    code, _, said = run(*words, some, out, "--rows", "1")
    assert code == 0
    assert "going on behind 1 of 3 results" in said
    assert out.read_bytes() == whole.read_bytes()


def _full(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_killed_between_the_last_two_steps_it_only_has_to_tidy_up(
    run: Run, words: list[str], some: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, part = tmp_path / "out.jsonl", tmp_path / "out.jsonl.part"
    with monkeypatch.context() as broken:
        broken.setattr(Path, "replace", _full)
        assert run(*words, some, out)[0] == 1
    journal = part.read_bytes()
    assert run(*words, some, out)[0] == 0
    whole = out.read_bytes()
    part.write_bytes(journal)
    assert run(*words, some, out)[0] == 0
    assert (out.read_bytes(), part.exists()) == (whole, False)
    part.write_bytes(journal)
    out.write_bytes(b"somebody else's")
    assert run(*words, some, out)[0] == 1
    assert (out.read_bytes(), part.read_bytes()) == (b"somebody else's", journal)


@pytest.mark.parametrize(
    ("change", "code", "hint"),
    [
        (["--column", "speed=x"], 2, "TARGET=COLUMN"),
        (["--base", "nowhere"], 1, "no base model"),
        (["--attribute", "shoe=44"], 2, "shoe"),
        (["--attribute", "sources=explicit"], 2, "unknown attribute 'sources'"),
        (["--policy", "absent.yaml"], 1, "absent.yaml"),
        (["--who", "me"], 2, "--audit"),
        (["--method", "magic"], 2, "magic"),
    ],
)
def test_what_makes_no_sense_is_refused_and_nothing_is_written(
    run: Run, words: list[str], some: Path, tmp_path: Path, change: list[str], code: int, hint: str
) -> None:
    found = run(*words, *change, some, tmp_path / "out.jsonl")
    assert found[0] == code, found[2]
    assert hint in found[2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl"]


def test_grants_are_on_record(run: Run, words: list[str], some: Path, tmp_path: Path) -> None:
    log = tmp_path / "audit"
    assert run(*words, some, tmp_path / "out.jsonl", "--audit", log, "--who", "shop")[0] == 0
    assert verify(log).ok
    entries = [json.loads(line)["entry"] for line, _ in read_records(log)]
    assert [(each["event"], each["reason"]) for each in entries] == [("grant", None), ("refusal", "refused-by-rule")]
    told = json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])["response"]["body"]["soup"]
    assert entries[0]["merge"] == told["merge"]


def test_ctrl_c_keeps_what_there_is_and_says_how_to_go_on(run: Run, words: list[str], tmp_path: Path) -> None:
    path, out, whole = tmp_path / "in.jsonl", tmp_path / "out.jsonl", tmp_path / "whole.jsonl"
    lines = [json.dumps(chat(n, f"tell me {n}", max_tokens=40)) for n in range(40)]
    path.write_bytes("\n".join(lines).encode() + b"\n" + mixed(20, 0)[0])
    part = out.with_name("out.jsonl.part")
    with _interrupting(lambda: part.exists() and part.read_bytes().count(b"\n") > 10):
        code, _, said = run(*words, path, out)
    assert (code, out.exists()) == (130, False)
    match = re.search(r"interrupted; \S+ keeps ([0-9]+) of 60 results, and the same command goes on", said)
    assert match is not None
    assert int(match[1]) >= 10
    code, _, said = run(*words, path, out)
    assert code == 0
    assert f"going on behind {match[1]} of 60 results" in said
    assert run(*words, path, whole)[0] == 0
    assert out.read_bytes() == whole.read_bytes()
    assert not part.exists()


@contextmanager
def _interrupting(when: Callable[[], bool]) -> Iterator[None]:
    """Ctrl-C, once something is so."""
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            if when():
                os.kill(os.getpid(), signal.SIGINT)
                return
            time.sleep(0.005)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_the_binary_is_killed_or_interrupted_and_goes_on(
    words: list[str], tmp_path: Path, session_cache: Path, number: int, code: int
) -> None:
    path, out, whole = tmp_path / "in.jsonl", tmp_path / "out.jsonl", tmp_path / "whole.jsonl"
    path.write_text("".join(json.dumps(chat(n, f"tell me {n}", max_tokens=90)) + "\n" for n in range(150)))
    part = out.with_name("out.jsonl.part")
    environment = {**os.environ, "SOUPMIX_CACHE": str(session_cache)}
    process = subprocess.Popen([BINARY, *words, path, out], stderr=subprocess.PIPE, text=True, env=environment)
    while process.poll() is None and (not part.exists() or part.read_bytes().count(b"\n") < 20):
        time.sleep(0.01)
    process.send_signal(number)
    said = process.communicate(timeout=120)[1]
    assert (process.returncode, out.exists()) == (code, False), said
    assert "Traceback" not in said
    for target in (out, whole):
        assert subprocess.run([BINARY, *words, path, target], env=environment, check=False).returncode == 0
    assert out.read_bytes() == whole.read_bytes()


def test_on_a_terminal_it_says_how_fast_it_is(
    run: Run, words: list[str], some: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = pty.openpty()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with os.fdopen(theirs, "w") as terminal, monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", terminal)
        assert run(*words, some, tmp_path / "out.jsonl")[0] == 0
        terminal.flush()
        shown = os.read(ours, 1 << 20)
    os.close(ours)
    text = re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", shown).decode()
    assert "3/3" in text
    assert re.search(r"[0-9.]+ answers/s, [0-9.]+ tokens/s", text)
    assert "ETA" in text

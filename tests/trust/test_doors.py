"""Every command that grants under signed sets stops when the first of them expires, whatever it has loaded before."""

import io
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from securesystemslib.signer import CryptoSigner

from soupmix.base import Base
from soupmix.policy.clock import Clock
from soupmix.store import Store
from soupmix.trust import RoleKeys, create, publish

Run = Callable[..., tuple[int, str, str]]
LAW = b"tier: law\nissuer: Example\nversion: '1'\nrules: []\n"
SIGNED = datetime(2026, 11, 24, 12, tzinfo=UTC)
ENDED = "the signed set of the law, which this policy rests on, ended at 2026-12-01 12:00:00 UTC"


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_base: Base, pico_store: Store) -> list[object]:
    """Options with a signed set of the law that expires a week after `SIGNED`."""
    monkeypatch.setenv("SOUPMIX_STATE", str(tmp_path / "state"))
    root, keys = CryptoSigner.generate_ed25519(), RoleKeys(*(CryptoSigner.generate_ed25519() for _ in range(2)))
    pinned = create(tmp_path / "law", root_keys=[root.public_key], threshold=1, signers=[root], keys=keys, now=SIGNED)
    (tmp_path / "root.json").write_bytes(pinned)
    publish(tmp_path / "law", {"law.yaml": LAW}, keys=keys, now=SIGNED)
    trust = f"law={tmp_path / 'law'},{tmp_path / 'root.json'}"
    return ["--trust", trust, "--store", pico_store.folder, "-w", "calm=0.5"]


@pytest.fixture
def expires_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """From now on the machine's clock is read so often before the set expires, and every time after that later."""

    def set_clock(good: int) -> None:
        left = iter([SIGNED] * good)
        clock = Clock(lambda: next(left, SIGNED + timedelta(days=7)), lambda: 0.0)
        monkeypatch.setattr("soupmix.policy.clock._MACHINE", clock)

    return set_clock


def test_clamp(run: Run, words: list[object], expires_after: Callable[[int], None]) -> None:
    expires_after(2)
    assert run("clamp", *words)[0] == 0
    expires_after(1)
    code, out, err = run("clamp", *words)
    assert (code, out) == (3, "")
    assert ENDED in err


def test_merge(run: Run, words: list[object], expires_after: Callable[[int], None], tmp_path: Path) -> None:
    expires_after(1)
    code, _, err = run("merge", tmp_path / "out", *words)
    assert code == 3
    assert ENDED in err
    assert not (tmp_path / "out").exists()


def test_one_answer(run: Run, words: list[object], expires_after: Callable[[int], None], tiny_base: Base) -> None:
    """The policy ends while the model is loaded."""
    expires_after(2)
    code, out, err = run("chat", "hi", "--base", tiny_base.folder, "--max-new-tokens", 2, *words)
    assert (code, out) == (3, "")
    assert ENDED in err


def test_a_conversation(
    run: Run,
    words: list[object],
    expires_after: Callable[[int], None],
    tiny_base: Base,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("one\ntwo\nthree\n"))
    expires_after(4)
    code, out, err = run("chat", "--lines", "--base", tiny_base.folder, "--max-new-tokens", 2, *words)
    assert (code, out.count("\n")) == (3, 2)
    assert ENDED in err


def test_a_batch_stops_and_goes_on_once_the_set_is_renewed(
    run: Run, words: list[object], expires_after: Callable[[int], None], tiny_base: Base, tmp_path: Path
) -> None:
    asked = {"model": "tiny", "prompt": "hi", "max_tokens": 1}
    lines = [{"custom_id": str(n), "method": "POST", "url": "/v1/completions", "body": asked} for n in range(6)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    limits = ("--rows", 1, "--length", 32, "--model", "tiny", "--base", tiny_base.folder)
    command = ("batch", tmp_path / "in.jsonl", tmp_path / "out.jsonl", *limits, *words)
    expires_after(5)
    code, _, err = run(*command)
    assert code == 3
    assert ENDED in err
    assert not (tmp_path / "out.jsonl").exists()
    expires_after(100)
    assert run(*command)[0] == 0
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [each["response"]["status_code"] for each in found] == [200] * 6

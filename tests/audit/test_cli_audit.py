"""`soupmix audit`, and `--audit` on `clamp` and `merge`: recorded before anything else, or nothing happens."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from soupmix.audit import AuditLog, Checkpoint, pseudonym, read_records, verify
from soupmix.audit.segments import segments
from soupmix.base import Base
from soupmix.store import Store

Run = Callable[..., tuple[int, str, str]]
Opened = Callable[..., tuple[Path, Path]]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, tiny_base: Base, tiny_adapter: Callable[..., Path]) -> Path:
    """A store of one picoscopic adapter."""
    store = Store(tmp_path_factory.mktemp("shop"), create=True)
    store.add(tiny_adapter(seed=1), name="calm", dimension="tone", pole="calm", base=tiny_base)
    return store.folder


def entries(folder: Path) -> list[dict[str, object]]:
    return [record["entry"] for _, record in read_records(folder)]


def test_a_clamp_is_recorded(run: Run, shop: Path, folder: Path) -> None:
    words = ("clamp", "--store", shop, "-w", "calm=1.5", "--attribute", "audience=minor")
    plain = run(*words)
    assert run(*words, "--audit", folder, "--who", "anna") == plain
    assert plain[0] == 0
    (entry,) = entries(folder)
    assert (entry["event"], entry["granted"], entry["requested"]) == ("grant", {"calm": 1_000_000}, {"calm": 1_500_000})
    assert (entry["attributes"], entry["open"], entry["signed"]) == ({"audience": "minor"}, True, False)
    assert entry["binding"] == ["built-in/soupmix/one-dimension", "built-in/soupmix/unit-interval"]
    assert next(read_records(folder))[1]["who"] == pseudonym(folder, "anna")


def test_a_conversation_is_recorded_before_it_begins(run: Run, shop: Path, folder: Path, tiny_base: Base) -> None:
    words = ("chat", "hi", "--store", shop, "--base", tiny_base.folder, "-w", "calm=1.5", "--max-new-tokens", 2)
    assert run(*words, "--audit", folder, "--who", "anna")[0] == 0
    (entry,) = entries(folder)
    assert (entry["event"], entry["granted"]) == ("grant", {"calm": 1_000_000})
    with AuditLog.open(folder):
        code, out, err = run(*words, "--audit", folder, "--who", "anna")
    assert (code, out) == (1, "")
    assert "another process is writing the audit log" in err


def test_refusals_are_recorded_by_their_reason(run: Run, shop: Path, folder: Path) -> None:
    audit = ("--store", shop, "--audit", folder, "--who", "anna")
    code, out, _ = run("clamp", *audit, "-w", "calm=1.5", "--strict")
    assert (code, out.split()[:4]) == (3, ["no", "policy", "is", "applied:"])
    assert run("clamp", *audit, "-w", "clam=1")[0] == 2
    assert run("merge", *audit, "-w", "clam=1", folder.with_name("out"))[0] == 2
    assert run("clamp", *audit, "-w", "calm=1", "--policy", "gone.yaml")[0] == 1
    found = entries(folder)
    assert [entry["event"] for entry in found] == ["refusal"] * 4
    assert [entry["reason"] for entry in found][:3] == ["clamped", "unknown-adapter", "unknown-adapter"]
    assert [entry["policy"] is None for entry in found] == [False, False, False, True]
    assert [entry["open"] for entry in found] == [True, True, True, False]
    assert [len(entry["binding"]) for entry in found] == [2, 0, 0, 0]  # the unit interval and the one dimension
    assert all(entry["granted"] == {} and entry["merge"] is None for entry in found)


@pytest.mark.parametrize("kind", ["adapter", "model"])
def test_a_merge_is_recorded_with_the_identity_that_it_gets(
    run: Run, shop: Path, folder: Path, tmp_path: Path, tiny_base: Base, kind: str
) -> None:
    words = ["merge", "--store", shop, "-w", "calm=0.5", "--as", kind, "--audit", folder, "--who", "anna", "--json"]
    special = ["--base", tiny_base.folder, "--dtype", "bf16"] if kind == "model" else ["--rank", "2", "--dtype", "fp16"]
    for number, extra in enumerate([special[:2] if kind == "model" else [], special]):
        code, out, _ = run(*words, *extra, tmp_path / f"out{number}")
        assert code == 0
        assert entries(folder)[number]["merge"] == json.loads(out)["identity"]
    code, _, _ = run(*words, *special, "--dry-run")
    assert code == 0
    assert entries(folder)[2]["merge"] is None


def test_what_cannot_be_recorded_does_not_happen(run: Run, shop: Path, folder: Path, tmp_path: Path) -> None:
    audit = ("--store", shop, "-w", "calm=0.5", "--audit", folder, "--who", "anna")
    with AuditLog.open(folder):
        for command in (["clamp", *audit], ["merge", *audit, tmp_path / "out"]):
            code, out, err = run(*command)
            assert (code, out) == (1, "")
            assert "another process is writing the audit log" in err
            assert "calm" not in err
    assert not (tmp_path / "out").exists()
    assert entries(folder) == []


def test_who_and_audit_go_together(run: Run, shop: Path, folder: Path) -> None:
    for words in (["--who", "anna"], ["--audit", folder], ["--audit-key", "k.pem"]):
        code, _, err = run("clamp", "--store", shop, "-w", "calm=1", *words)
        assert code == 2
        assert "go together" in err
    assert not folder.exists()


def test_verify_says_what_is_wrong_and_exits_1(
    run: Run, folder: Path, fill: Callable[..., AuditLog], keys: Opened, tmp_path: Path
) -> None:
    fill(folder, 5).close()
    private, public = keys("ours")
    code, note, err = run("audit", "checkpoint", folder, "--sign", private)
    assert (code, err) == (0, "")
    assert Checkpoint.parse(note).signatures
    assert run("audit", "checkpoint", folder, "--last")[1] == note
    (tmp_path / "held").write_text(note)
    code, out, err = run("audit", "verify", folder, "--held", tmp_path / "held")
    assert (code, err) == (0, "")
    assert "5 records in 1 files as they were written" in out
    assert "signatures not checked (no --key)" in out
    code, out, _ = run("audit", "verify", folder, "--key", public)
    assert (code, out.split()[0]) == (1, "unsigned")  # the one that was written without a key
    path = segments(folder)[0].path
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:4]))
    (folder / "checkpoints.jsonl").unlink()
    assert run("audit", "verify", folder)[0] == 0
    code, out, err = run("audit", "verify", folder, "--held", tmp_path / "held", "--json")
    found = json.loads(out)
    assert (code, found["ok"], found["findings"][0]["kind"]) == (1, False, "truncated")
    assert "is not as it was written" in err


def test_export_erase_and_prove(run: Run, folder: Path, fill: Callable[..., AuditLog], tmp_path: Path) -> None:
    fill(folder, 7).close()
    code, out, _ = run("audit", "export", folder)
    assert (code, len(out.splitlines())) == (0, 7)
    assert out.encode() == segments(folder)[0].path.read_bytes()
    code, out, _ = run("audit", "export", folder, "--who", "person 1", "--first", "2", "--json")
    assert [record["sequence"] for record in json.loads(out)] == [4]
    assert run("audit", "checkpoint", folder)[2].startswith("soupmix: note: this checkpoint is not signed")
    (tmp_path / "held").write_text(run("audit", "checkpoint", folder, "--last")[1])
    code, out, _ = run("audit", "erase", folder, "--who", "person 1")
    assert (code, out) == (0, "the key is destroyed\n")
    assert json.loads(run("audit", "erase", folder, "--who", "person 1", "--json")[1]) == {"erased": False}
    code, out, err = run("audit", "export", folder, "--who", "person 1")
    assert (code, out) == (1, "")
    assert "has no key for this person" in err
    code, out, _ = run("audit", "export", folder, "--event", "erasure")
    assert json.loads(out)["sequence"] == 7
    proof = json.loads(run("audit", "prove", folder, "3")[1])
    assert json.loads(proof["record"])["sequence"] == 3
    assert json.loads(run("audit", "prove", folder, "--held", tmp_path / "held")[1])["older"].splitlines()[1] == "7"
    assert run("audit", "prove", folder)[0] == 2
    assert run("audit", "prove", folder, "8")[0] == 1
    assert verify(folder).ok


def test_bad_places_are_one_sentence(run: Run, tmp_path: Path) -> None:
    for words in (
        ["verify", tmp_path],
        ["export", tmp_path],
        ["checkpoint", tmp_path],
        ["checkpoint", tmp_path, "--last"],
        ["erase", tmp_path, "--who", "x"],
        ["prove", tmp_path, "0"],
    ):
        code, out, err = run("audit", *words)
        assert (code, out) == (1, "")
        assert len(err.splitlines()) == 1
        assert "is no audit log" in err
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_log_is_exported_up_to_the_damage(run: Run, folder: Path, fill: Callable[..., AuditLog]) -> None:
    fill(folder, 5).close()
    path = segments(folder)[0].path
    path.write_bytes(path.read_bytes().replace(b'"sequence":3', b'"sequence":4'))
    code, out, err = run("audit", "export", folder)
    assert (code, len(out.splitlines())) == (1, 3)
    assert "line 4" in err

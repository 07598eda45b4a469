"""Somebody with write access to the folder, but without the key and without the checkpoint that an outsider holds."""

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from soupmix.audit import (
    AuditLog,
    Checkpoint,
    Signer,
    Verifier,
    prove_consistency,
    prove_inclusion,
    read_records,
    verify,
)
from soupmix.audit.records import Chain
from soupmix.audit.segments import note_line, read_origin, segments
from soupmix.errors import AuditError
from soupmix.files import compact_json

Opened = Callable[..., tuple[Path, Path]]
TRIALS = 500
SIZE = 40


@pytest.fixture
def original(folder: Path, fill: Callable[..., AuditLog], signer: Signer) -> tuple[Path, Checkpoint]:
    """A log of 40 records in several files, and the checkpoint that an outsider holds."""
    with fill(folder, SIZE, signer=signer, checkpoint_every=16, segment_bytes=4000) as log:
        held = log.checkpoint()
    assert len(segments(folder)) >= 5
    return folder, held


def lines_of(folder: Path) -> list[tuple[Path, list[bytes]]]:
    return [(each.path, each.path.read_bytes().splitlines(keepends=True)) for each in segments(folder)]


def edit(rng: random.Random, folder: Path) -> None:
    path = rng.choice(segments(folder)).path
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def reweight(rng: random.Random, folder: Path) -> None:
    """A number in one record, the line otherwise perfect."""
    path, lines = rng.choice(lines_of(folder))
    place = rng.randrange(len(lines))
    record = json.loads(lines[place])
    record["entry"]["granted"]["elementary"] = rng.randrange(10**6)
    if compact_json(record) + b"\n" == lines[place]:
        record["entry"]["granted"] = {}
    lines[place] = compact_json(record) + b"\n"
    path.write_bytes(b"".join(lines))


def drop(rng: random.Random, folder: Path) -> None:
    path, lines = rng.choice(lines_of(folder))
    del lines[rng.randrange(len(lines))]
    path.write_bytes(b"".join(lines))


def swap(rng: random.Random, folder: Path) -> None:
    path, lines = rng.choice([each for each in lines_of(folder) if len(each[1]) > 1])
    one, two = rng.sample(range(len(lines)), 2)
    lines[one], lines[two] = lines[two], lines[one]
    path.write_bytes(b"".join(lines))


def duplicate(rng: random.Random, folder: Path) -> None:
    path, lines = rng.choice(lines_of(folder))
    lines.insert(rng.randrange(len(lines) + 1), rng.choice(lines))
    path.write_bytes(b"".join(lines))


def truncate(rng: random.Random, folder: Path) -> None:
    """The end of the log, wherever it is cut, with all its own checkpoints about it."""
    found = segments(folder)
    keep = rng.randrange(len(found))
    for each in found[keep + 1 :]:
        each.path.unlink()
    data = found[keep].path.read_bytes()
    found[keep].path.write_bytes(data[: rng.randrange(len(data))])
    (folder / "checkpoints.jsonl").unlink()


def reorder(rng: random.Random, folder: Path) -> None:
    one, two = (each.path for each in rng.sample(segments(folder), 2))
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)


def lose(rng: random.Random, folder: Path) -> None:
    rng.choice(segments(folder)).path.unlink()


def rename(rng: random.Random, folder: Path) -> None:
    path = rng.choice(segments(folder)).path
    path.rename(path.with_name(f"records-{rng.randrange(10**9):012d}.jsonl"))


def rewrite(rng: random.Random, folder: Path) -> None:
    """The whole log from some record on, chain, numbers, files and unsigned checkpoints all in order."""
    origin, start = read_origin(folder), rng.randrange(SIZE)
    chain, made = Chain(origin), []
    for line, record in list(read_records(folder)):
        entry = record["entry"]
        if record["sequence"] >= start:
            entry = {**entry, "granted": {"elementary": 1_000_000}}
        made.append(chain.add(compact_json(entry), record["time"], record["who"]) + b"\n")
        assert record["sequence"] >= start or made[-1] == line + b"\n"
    bounds = [each.first for each in segments(folder)] + [len(made)]
    for each, end in zip(segments(folder), bounds[1:], strict=True):
        each.path.write_bytes(b"".join(made[each.first : end]))
    (folder / "checkpoints.jsonl").write_bytes(note_line(Checkpoint.of(origin, chain)))


ATTACKS = (edit, reweight, drop, swap, duplicate, truncate, reorder, lose, rename, rewrite)


def test_five_hundred_tamperings_against_a_held_checkpoint(
    original: tuple[Path, Checkpoint], tmp_path: Path, keys: Opened, verifier: Verifier
) -> None:
    folder, held = original
    stranger = Signer.load(keys("stranger")[0])

    def forge(rng: random.Random, copy: Path) -> None:
        """Rewritten, with checkpoints signed by a key of the attacker's own."""
        rewrite(rng, copy)
        chain = Chain(held.origin)
        for line, _ in read_records(copy):
            chain.follow(line)
        (copy / "checkpoints.jsonl").write_bytes(note_line(Checkpoint.of(held.origin, chain).signed(stranger)))

    assert verify(folder, verifier=verifier, held=[held]).ok
    attacks, kinds, undetected = (*ATTACKS, forge), set(), []
    for seed in range(TRIALS):
        rng, copy = random.Random(seed), tmp_path / "copy"
        shutil.copytree(folder, copy)
        attack = attacks[seed % len(attacks)]
        attack(rng, copy)
        verdict = verify(copy, verifier=verifier, held=[held])
        kinds |= {each.kind for each in verdict.findings}
        if verdict.ok:
            undetected.append((seed, attack.__name__))
        shutil.rmtree(copy)
    assert undetected == []
    assert kinds >= {"bad-record", "wrong-sequence", "broken-chain", "missing-segment", "truncated", "wrong-root"}
    assert kinds >= {"unsigned", "bad-signature"}


@pytest.mark.parametrize(
    ("attack", "kinds"),
    [
        (rewrite, {"unsigned", "wrong-root"}),
        (lose, {"missing-segment", "truncated"}),
        (truncate, {"truncated"}),
    ],
)
def test_what_the_held_checkpoint_and_the_key_are_for(
    original: tuple[Path, Checkpoint], verifier: Verifier, attack: Callable[..., None], kinds: set[str]
) -> None:
    """A clever attacker leaves a log that agrees with itself; only what is kept elsewhere shows it."""
    folder, held = original
    attack(random.Random(1), folder)
    if attack is not lose:
        assert verify(folder).ok
    found = {each.kind for each in verify(folder, verifier=verifier, held=[held]).findings}
    assert found <= kinds
    assert found & kinds


def test_the_first_bad_place_is_named(original: tuple[Path, Checkpoint]) -> None:
    folder, _ = original
    segment = segments(folder)[2]
    lines = segment.path.read_bytes().splitlines(keepends=True)
    lines[4] = lines[4].replace(b'"audience":"minor"', b'"audience":"adult"')
    segment.path.write_bytes(b"".join(lines))
    (finding,) = verify(folder).findings
    assert finding.kind == "broken-chain"
    assert finding.message.startswith(f"{segment.path.name} line 6: ")  # the line behind it does not fit any more


def test_a_changed_last_record_contradicts_its_checkpoint(original: tuple[Path, Checkpoint]) -> None:
    folder, _ = original
    path = segments(folder)[-1].path
    path.write_bytes(path.read_bytes().replace(b'"friendly":39', b'"friendly":38'))
    (finding,) = verify(folder).findings
    assert finding.kind == "wrong-root"
    assert "records 32 to 39" in finding.message


def test_a_segment_that_is_no_plain_file_is_not_read(original: tuple[Path, Checkpoint], tmp_path: Path) -> None:
    folder, _ = original
    path = segments(folder)[1].path
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert [each.kind for each in verify(folder).findings] == ["damaged"]


def test_damaged_checkpoints_are_findings(original: tuple[Path, Checkpoint]) -> None:
    folder, held = original
    path = folder / "checkpoints.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    for bad in (b"{}\n", b'"x"\n', b"\xff\n", lines[0]):
        path.write_bytes(b"".join([lines[1], bad]))
        assert [each.kind for each in verify(folder).findings] == ["bad-checkpoint"]
    path.write_bytes(b"".join(lines))
    other = Checkpoint.of("soupmix.audit/" + "0" * 32, held.chain())
    assert [each.kind for each in verify(folder, held=[other]).findings] == ["other-log"]


def test_a_forged_signature_under_the_name_of_the_right_key(
    original: tuple[Path, Checkpoint], signer: Signer, verifier: Verifier
) -> None:
    folder, held = original
    ours = held.signatures[held.origin]
    for raw in (ours[:4] + bytes(64), ours[:-1] + bytes([ours[-1] ^ 1]), ours[:4], ours + b"x"):
        forged = replace(held, signatures={held.origin: raw})
        assert [each.kind for each in verify(folder, verifier=verifier, held=[forged]).findings] == ["bad-signature"]
    under_another_name = replace(held, signatures={"me": ours})
    assert [each.kind for each in verify(folder, verifier=verifier, held=[under_another_name]).findings] == ["unsigned"]


def test_a_checkpoint_with_the_right_root_and_another_last_record_is_wrong(original: tuple[Path, Checkpoint]) -> None:
    folder, held = original
    assert [each.kind for each in verify(folder, held=[replace(held, last=bytes(32))]).findings] == ["wrong-root"]


# --- proofs


def test_proofs_from_a_log(original: tuple[Path, Checkpoint], fill: Callable[..., AuditLog], signer: Signer) -> None:
    folder, held = original
    fill(folder, 20, signer=signer).close()
    onward = prove_consistency(folder, held)
    assert onward.ok
    assert (onward.older, onward.newer.size) == (held, 60)
    for sequence in (0, 21, 59):
        proof = prove_inclusion(folder, sequence)
        assert proof.ok
        assert json.loads(proof.record)["sequence"] == sequence
        assert Checkpoint.parse(proof.to_dict()["checkpoint"]) == proof.checkpoint
    with pytest.raises(AuditError, match="records 0 to 59"):
        prove_inclusion(folder, 60)


def test_the_checkpoint_of_another_log_proves_nothing(original: tuple[Path, Checkpoint]) -> None:
    folder, held = original
    other = replace(held, origin="soupmix.audit/" + "0" * 32)
    assert not replace(prove_consistency(folder, held), older=other).ok
    with pytest.raises(AuditError) as refused:
        prove_consistency(folder, other)
    assert refused.value.reason == "other-log"


def test_a_rewritten_log_has_no_proof_for_who_holds_an_older_checkpoint(
    original: tuple[Path, Checkpoint], fill: Callable[..., AuditLog]
) -> None:
    folder, held = original
    rewrite(random.Random(5), folder)
    with pytest.raises(AuditError) as refused:
        prove_consistency(folder, held)
    assert refused.value.reason == "wrong-root"

"""The journal: whatever is cut off or scribbled behind it, the whole results before are there, and nothing else."""

import fcntl
import os
import random
from pathlib import Path

import pytest

from soupmix.batch.journal import journal_path, open_journal
from soupmix.errors import OutputError, RecipeError

SETTINGS = {"input": "abc", "seed": 0, "attributes": {"audience": "minor"}}
RESULTS = [b'{"n":0}', b"", b"x" * 60, b'{"n":3}', b"0" * 8]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """The output of a batch whose journal holds `RESULTS`."""
    with open_journal(tmp_path / "out.jsonl", SETTINGS) as journal:
        for result in RESULTS:
            journal.append(result)
    return tmp_path / "out.jsonl"


def held(out: Path) -> list[bytes]:
    with open_journal(out, SETTINGS) as journal:
        found = list(journal.results())
        assert journal.done == len(found)
    return found


def test_what_was_appended_is_there_again(out: Path) -> None:
    assert held(out) == RESULTS
    with open_journal(out, SETTINGS) as journal:
        journal.append(b"more")
        assert (journal.done, journal.cut) == (6, 0)
    assert held(out) == [*RESULTS, b"more"]


def test_cut_anywhere_the_whole_results_before_are_there(out: Path) -> None:
    path = journal_path(out)
    whole = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == 10]
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        expected = sum(end <= size for end in ends[1:])
        assert held(out) == RESULTS[:expected], size
        with open_journal(out, SETTINGS) as journal:  # and it can be gone on with
            for result in RESULTS[expected:]:
                journal.append(result)
        assert path.read_bytes() == whole


def test_what_a_crashed_machine_left_behind_the_synced_part_is_cut(out: Path) -> None:
    path = journal_path(out)
    whole, rng = path.read_bytes(), random.Random(0)
    lines = whole.splitlines(keepends=True)
    for _ in range(200):
        kept = rng.randrange(1, len(lines) + 1)
        tail = rng.choice([bytes(rng.randrange(1, 5000)), rng.randbytes(rng.randrange(1, 300)), lines[kept - 1], b"\n"])
        path.write_bytes(b"".join(lines[:kept]) + tail)
        assert held(out) == RESULTS[: kept - 1]
        assert path.read_bytes() == b"".join(lines[:kept])


@pytest.mark.parametrize("place", range(len(RESULTS)))
def test_a_result_counts_in_its_place_only(out: Path, place: int) -> None:
    path = journal_path(out)
    head, *lines = path.read_bytes().splitlines(keepends=True)
    for other in range(len(lines)):
        moved = list(lines)
        moved[place], moved[other] = moved[other], moved[place]
        path.write_bytes(b"".join([head, *moved]))
        assert held(out) == (RESULTS if other == place else RESULTS[: min(place, other)])
        path.write_bytes(b"".join([head, *lines]))


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({**SETTINGS, "input": "abd"}, "input"),
        ({**SETTINGS, "seed": 1}, "seed"),
        ({**SETTINGS, "attributes": {}}, "attributes"),
        ({**SETTINGS, "method": "factor"}, "method"),
        ({"input": "abc", "seed": 0}, "attributes"),
    ],
)
def test_other_settings_are_refused_and_nothing_is_lost(out: Path, settings: dict[str, object], named: str) -> None:
    before = journal_path(out).read_bytes()
    with pytest.raises(RecipeError, match=rf"{named} was .* and is .*--force") as caught, open_journal(out, settings):
        pass
    assert caught.value.reason == "batch-changed"
    assert journal_path(out).read_bytes() == before
    with open_journal(out, settings, force=True) as journal:
        assert (journal.done, journal.force) == (0, True)


def test_leave_to_replace_the_output_outlives_the_process(out: Path) -> None:
    for _ in range(2):
        with open_journal(out, SETTINGS) as journal:
            assert not journal.force
    with open_journal(out, SETTINGS, force=True) as journal:
        journal.append(b"new")
    with open_journal(out, SETTINGS) as journal:
        assert (journal.force, journal.done) == (True, 1)


@pytest.mark.parametrize("content", [b"my notes\n", b"soupmix batch 1 {}\n", b"soupmix batch 2 {}\n", b"my notes"])
def test_a_file_of_somebody_else_stays(tmp_path: Path, content: bytes) -> None:
    path = journal_path(tmp_path / "out.jsonl")
    path.write_bytes(content)
    with pytest.raises(OutputError, match="--force") as caught, open_journal(tmp_path / "out.jsonl", SETTINGS):
        pass
    assert (caught.value.reason, path.read_bytes()) == ("no-batch", content)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"")
    journal_path(tmp_path / "out.jsonl").symlink_to(victim)
    with pytest.raises(OutputError), open_journal(tmp_path / "out.jsonl", SETTINGS):
        pass
    assert victim.read_bytes() == b""


def test_one_writer_at_a_time(out: Path) -> None:
    with open_journal(out, SETTINGS):
        with pytest.raises(OutputError, match="another process is writing") as caught, open_journal(out, SETTINGS):
            pass
        assert caught.value.reason == "in-use"
    assert held(out) == RESULTS


def test_a_journal_that_was_finished_while_we_waited_is_not_written(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = fcntl.flock

    def finished_first(handle: int, how: int) -> None:
        real(handle, how)
        journal_path(out).unlink()

    monkeypatch.setattr(fcntl, "flock", finished_first)
    with pytest.raises(OutputError, match="another process is writing"), open_journal(out, SETTINGS):
        pass


def test_a_full_disk_is_said_and_what_was_written_stays(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, room = os.pwrite, [40]

    def little(handle: int, data: bytes, offset: int) -> int:
        if room[0] <= 0:
            raise OSError(28, "No space left on device")
        taken = real(handle, bytes(data[: room[0]]), offset)
        room[0] -= taken
        return taken

    with open_journal(out, SETTINGS) as journal:
        monkeypatch.setattr(os, "pwrite", little)
        with pytest.raises(OutputError, match="No space left"):
            journal.append(b"y" * 100)
    monkeypatch.undo()
    with open_journal(out, SETTINGS) as journal:
        assert (journal.done, journal.cut) == (len(RESULTS), 40)

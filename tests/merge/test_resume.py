"""A merge that is killed is gone on with: what was finished is taken over, nothing half-written is; the same bytes."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from soupmix.base import Base
from soupmix.locks import locked_folder
from soupmix.merge import Soup, merge, verify
from soupmix.merge.export import Saved
from soupmix.merge.parts import Parts
from soupmix.policy import Grant
from soupmix.store.store import Store

SHARD = 20_000  # the tiny base is several
JOURNAL = ".soupmix-parts"


def save(soup: Soup, base: Base, out: Path, tell: Callable[[int, int], None] | None = None, **said: object) -> Saved:
    return soup.save_model(out, base=base, **{"shard_size": SHARD, **said}, tell=tell)  # type: ignore[arg-type]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def left(where: Path) -> list[Path]:
    return [path for path in where.iterdir() if path.name.startswith(".soupmix")]


def killed(soup: Soup, base: Base, out: Path, after: int) -> None:
    """Merge in a process that kills itself when it has made so many tensors, and noted what it had finished."""
    child = os.fork()
    if child == 0:
        calls = iter(range(after))

        def tell(done: int, total: int) -> None:
            if next(calls, None) is None:
                time.sleep(0.2)
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            save(soup, base, out, tell)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert not out.exists()


@pytest.fixture
def whole(soup: Soup, tiny_base: Base, tmp_path: Path) -> dict[str, bytes]:
    save(soup, tiny_base, tmp_path / "whole")
    found = files(tmp_path / "whole")
    assert sum(name.endswith(".safetensors") for name in found) > 4
    return found


@pytest.mark.parametrize("after", [0, 9, 15])
def test_what_was_killed_is_gone_on_with(
    after: int, soup: Soup, tiny_base: Base, whole: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    killed(soup, tiny_base, out, after)
    (folder,) = left(tmp_path)
    noted = (folder / JOURNAL).read_bytes().count(b"\n") if (folder / JOURNAL).exists() else 0
    made: list[int] = []
    saved = save(soup, tiny_base, out, lambda done, total: made.append(done))
    assert files(out) == whole
    assert len(saved.kept) == noted
    assert bool(saved.kept) == (after > 0)
    assert made == sorted(set(made))
    assert not left(tmp_path)
    assert verify(out, rebuild=False).ok


def test_a_merge_is_killed_again_and_again(
    soup: Soup, tiny_base: Base, whole: dict[str, bytes], tmp_path: Path
) -> None:
    for _ in range(3):
        killed(soup, tiny_base, tmp_path / "out", 5)
    assert save(soup, tiny_base, tmp_path / "out").kept
    assert files(tmp_path / "out") == whole


@pytest.mark.parametrize("harm", ["changed", "short", "gone", "link", "torn", "forged", "other"])
def test_what_is_not_whole_is_made_anew(
    harm: str, soup: Soup, tiny_base: Base, whole: dict[str, bytes], tmp_path: Path
) -> None:
    killed(soup, tiny_base, tmp_path / "out", 15)
    (folder,) = left(tmp_path)
    journal = folder / JOURNAL
    first, *_ = sorted(folder.glob("*.safetensors"))
    match harm:
        case "changed":
            first.write_bytes(first.read_bytes()[:-1] + b"\x7f")
        case "short":
            first.write_bytes(first.read_bytes()[:-9])
        case "gone":
            first.unlink()
        case "link":
            first.rename(tmp_path / "elsewhere")
            first.symlink_to(tmp_path / "elsewhere")
        case "torn":
            journal.write_bytes(journal.read_bytes()[:-7])
        case "forged":
            journal.write_bytes(
                b'{"name": "../whole/config.json", "digest": "x", "norms": {}}\nnull\n[]\n{"name": 3}\n\xff\n'
            )
        case "other":
            (folder / "more.txt").write_text("not ours")
    saved = save(soup, tiny_base, tmp_path / "out")
    assert files(tmp_path / "out") == whole
    assert (first.name in saved.kept) == (harm in ("torn", "other"))


def test_other_work_takes_nothing_over(
    three: Store, grant: Callable[..., Grant], soup: Soup, tiny_base: Base, tmp_path: Path
) -> None:
    killed(soup, tiny_base, tmp_path / "out", 15)
    other = merge(three, grant(three, friendly=0.5, concise=0.9, expert=0.5))
    assert not save(other, tiny_base, tmp_path / "out").kept
    assert not left(tmp_path), "what nobody goes on with is swept"
    assert not save(soup, tiny_base, tmp_path / "again", shard_size=SHARD + 1).kept


def test_a_folder_that_somebody_works_in_is_left_alone(
    soup: Soup, tiny_base: Base, whole: dict[str, bytes], tmp_path: Path
) -> None:
    killed(soup, tiny_base, tmp_path / "out", 15)
    (folder,) = left(tmp_path)
    with locked_folder(folder):
        before = files(folder)
        assert not save(soup, tiny_base, tmp_path / "out").kept
        assert files(folder) == before
    assert files(tmp_path / "out") == whole
    assert left(tmp_path) == [folder]
    save(soup, tiny_base, tmp_path / "out", force=True)
    assert not left(tmp_path)


def test_what_others_can_write_is_not_believed(soup: Soup, tiny_base: Base, tmp_path: Path) -> None:
    killed(soup, tiny_base, tmp_path / "out", 15)
    (folder,) = left(tmp_path)
    folder.chmod(0o777)
    assert not save(soup, tiny_base, tmp_path / "out").kept


def test_a_failure_leaves_nothing(soup: Soup, tiny_base: Base, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done > SHARD * 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save(soup, tiny_base, tmp_path / "out", stop)
    assert not left(tmp_path)


def test_a_disk_that_refuses_is_told(
    soup: Soup, tiny_base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from soupmix.errors import OutputError

    def refuse(self: Parts, *_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Parts, "_note", refuse)
    with pytest.raises(OutputError, match="No space left"):
        save(soup, tiny_base, tmp_path / "out")
    assert not (tmp_path / "out").exists()

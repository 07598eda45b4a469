"""A journal that somebody edited: its checksums fit, and nothing that the policy did not grant comes of it."""

import json
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from soupmix.batch import run
from soupmix.batch.journal import journal_path, open_journal
from soupmix.errors import OutputError, RecipeError, SoupmixError
from soupmix.openai.errors import error_body, status_of
from tests.support.batch_shop import Shop, chat, plain

Edit = Callable[[dict[str, Any]], object]
LINES = [
    chat(0, soup={"weights": {"calm": 0.9, "plain": 0.2}}, n=2),
    chat(1, soup={"weights": {"loud": 0.5}, "attributes": {"audience": "minor"}}),  # refused
    plain(2, "once", soup={"weights": {"plain": 0.3}}, logprobs=1),
    chat(3, "x" * 200),  # too long
    chat(4),
]


def framed(number: int, result: dict[str, Any]) -> bytes:
    data = json.dumps(result, sort_keys=True, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(data, number), data)


def begun(shop: Shop, where: Path, done: int) -> tuple[Path, Path]:
    """A batch of which so many lines are answered, and the path of its output."""
    source, out = where / "in.jsonl", where / "out.jsonl"
    source.write_text("\n".join(map(json.dumps, LINES)) + "\n")
    with pytest.MonkeyPatch.context() as patch:  # killed between the last result and the output
        patch.setattr("tests.support.batch_shop.finish", lambda *_, **__: None)
        shop.work(source, out)
    lines = journal_path(out).read_bytes().splitlines(keepends=True)
    journal_path(out).write_bytes(b"".join(lines[: done + 1]))
    return source, out


def forge(out: Path, number: int, edit: Edit) -> None:
    head, *lines = journal_path(out).read_bytes().splitlines(keepends=True)
    assert len(lines) > number
    result = json.loads(lines[number][9:])
    assert framed(number, result) == lines[number]
    edit(result)
    lines[number] = framed(number, result)
    journal_path(out).write_bytes(b"".join([head, *lines]))


def refused(shop: Shop, source: Path, out: Path, number: int) -> str:
    before = journal_path(out).read_bytes()
    with pytest.raises(RecipeError, match=rf"a result for line {number + 1} that this batch would not have") as caught:
        shop.work(source, out)
    assert caught.value.reason == "batch-changed"
    assert journal_path(out).read_bytes() == before, "nothing is lost"
    assert not out.exists()
    return str(caught.value)


def said(out: Path) -> list[Any]:
    """All results, but for the last digits of logarithms, in which a batch may differ with who runs beside whom."""
    found = [json.loads(line) for line in out.read_bytes().splitlines()]
    for result in found:
        for choice in body(result).get("choices", []):
            choice["logprobs"] = None
    return found


def body(result: dict[str, Any]) -> dict[str, Any]:
    return result["response"]["body"]  # type: ignore[no-any-return]


EDITS: dict[str, tuple[int, Edit]] = {
    "granted": (0, lambda r: body(r)["soup"]["granted"].update(calm="1")),
    "nothing clamped": (0, lambda r: body(r)["soup"].update(clamped=False, granted={"calm": "0.9"}, binding=[])),
    "explanation": (0, lambda r: body(r)["soup"].update(explanation="calm 0.9")),
    "obligations": (0, lambda r: body(r)["soup"].update(obligations=[])),
    "identity": (0, lambda r: body(r)["soup"].update(merge="sha256:" + "0" * 64)),
    "policy": (0, lambda r: body(r)["soup"]["policy"].update(digest="sha256:" + "0" * 64)),
    "signed": (0, lambda r: body(r)["soup"]["policy"].update(signed=True)),
    "attributes": (2, lambda r: body(r)["soup"].update(attributes={"audience": "adult"})),
    "more in the soup": (0, lambda r: body(r)["soup"].update(approved=True)),
    "more in the body": (0, lambda r: body(r).update(granted={"loud": "1"})),
    "more in a choice": (0, lambda r: body(r)["choices"][1].update(soup={"granted": {"loud": "1"}})),
    "more in a message": (0, lambda r: body(r)["choices"][0]["message"].update(role="assistant", soup={})),
    "another role": (0, lambda r: body(r)["choices"][0]["message"].update(role="system")),
    "a choice less": (0, lambda r: body(r)["choices"].pop()),
    "choices exchanged": (0, lambda r: body(r)["choices"].reverse()),
    "text that is none": (0, lambda r: body(r)["choices"][0]["message"].update(content={"soup": 1})),
    "an end that is none": (2, lambda r: body(r)["choices"][0].update(finish_reason="cancelled")),
    "counts that are none": (2, lambda r: body(r)["usage"].update(total_tokens="many")),
    "more counts": (2, lambda r: body(r)["usage"].update(granted=1)),
    "another line's id": (2, lambda r: r.update(custom_id="c0")),
    "a refusal that is none": (0, lambda r: (r["response"].update(status_code=403, body={}), r.update(error={"code": "x"}))),
    "failed as the engine fails": (
        0, lambda r: r.update(error={"code": "step-failed", "message": "the step failed", "soup": {"granted": {"calm": "1"}}})
    ),
    "refused for another reason": (1, lambda r: r["error"].update(message="refused by the moon")),
    "an answer to what is refused": (
        1, lambda r: (r["response"].update(status_code=200, body={"choices": [], "soup": {"granted": {"loud": "0.5"}}}),
                      r.update(error=None)),
    ),
    "an answer to what is too long": (3, lambda r: r.update(error=None)),
    "true for 1": (4, lambda r: r["response"].update(status_code=200.0)),
    "no result": (4, lambda r: r.clear()),
}  # fmt: skip


@pytest.mark.parametrize("name", EDITS)
def test_what_the_policy_does_not_give_is_not_taken(shop: Shop, tmp_path: Path, name: str) -> None:
    number, edit = EDITS[name]
    source, out = begun(shop, tmp_path, len(LINES) - (number % 2))  # of every line a result, or not yet of the last
    forge(out, number, edit)
    refused(shop, source, out, number)


@pytest.mark.parametrize("data", [b"[]", b"7", b'"x"', b"null", b'{"a": 1, "a": 2}', b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_result_is_not_taken(shop: Shop, tmp_path: Path, data: bytes) -> None:
    source, out = begun(shop, tmp_path, 2)
    head, *lines = journal_path(out).read_bytes().splitlines(keepends=True)
    lines[0] = b"%08x %s\n" % (zlib.crc32(data, 0), data)
    journal_path(out).write_bytes(b"".join([head, *lines]))
    refused(shop, source, out, 0)


@pytest.mark.parametrize("done", range(len(LINES) + 1))
def test_what_nobody_edited_goes_on_and_is_recorded_once(shop: Shop, tmp_path: Path, done: int) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    whole = begun(shop, tmp_path / "whole", 0)
    shop.work(*whole)
    source, out = begun(shop, tmp_path / "cut", done)
    told: list[Any] = []
    assert shop.work(source, out, append=told.append)
    assert said(out) == said(whole[1])
    assert len(told) == sum(number != 3 for number in range(done, len(LINES))), (
        "what was granted before is not granted twice"
    )


def test_a_failure_of_the_engine_is_taken_as_it_is(shop: Shop, tmp_path: Path) -> None:
    source, out = begun(shop, tmp_path, 2)
    message = "the model's output for this soup is not finite; choose smaller weights"

    status = status_of(SoupmixError(message, reason="not-finite"))
    told = {"status_code": status, "body": error_body(message, status, "not-finite")}
    forge(out, 0, lambda result: result["response"].update(told))
    forge(out, 0, lambda result: result.update(error={"code": "not-finite", "message": message}))
    assert shop.work(source, out)
    assert json.loads(out.read_bytes().splitlines()[0])["error"]["code"] == "not-finite"


def test_a_file_that_changes_after_it_was_checked_is_not_taken(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In place, or by another file under its name, between the check and the output."""
    source, out = begun(shop, tmp_path, 4)
    real = run.check_held

    def edited(*arguments: Any) -> None:
        real(*arguments)
        forge(out, 0, EDITS["granted"][1])

    monkeypatch.setattr(run, "check_held", edited)
    with pytest.raises(OutputError, match="changed while it was in use") as caught:
        shop.work(source, out)
    assert caught.value.reason == "changed-meanwhile"
    assert not out.exists()


def test_another_file_under_the_name_of_an_open_journal_is_not_read(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with open_journal(out, {}) as journal:
        journal.append(b"mine")
        other = tmp_path / "other"
        other.write_bytes(b"soupmix batch 1 {}\n%08x %s\n" % (zlib.crc32(b"evil", 0), b"evil"))
        other.replace(journal.path)
        assert list(journal.results()) == [b"mine"]


def _hard_link(victim: Path, path: Path) -> None:
    os.link(victim, path)


def _soft_link(victim: Path, path: Path) -> None:
    path.symlink_to(victim)


def _pipe(victim: Path, path: Path) -> None:
    os.mkfifo(path)


def _folder(victim: Path, path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("make", [_hard_link, _soft_link, _pipe, _folder])
def test_what_is_no_file_of_its_own_is_not_written(
    tmp_path: Path, make: Callable[[Path, Path], None], force: bool
) -> None:
    victim, out = tmp_path / "victim", tmp_path / "out.jsonl"
    for content in (b"", b"soupmix batch 1 ", b"my diary\n"):
        victim.write_bytes(content)
        make(victim, journal_path(out))
        with (
            pytest.raises(OutputError, match="other names too") as caught,
            open_journal(out, {}, force=force),
        ):
            pass
        assert caught.value.reason == "not-a-file"
        assert victim.read_bytes() == content
        journal_path(out).rmdir() if journal_path(out).is_dir() else journal_path(out).unlink()
        make(victim, out)
        with pytest.raises(OutputError) as caught:
            run.check_new(out, force=force)
        assert caught.value.reason == "not-a-file"
        out.rmdir() if out.is_dir() else out.unlink()


def test_a_link_that_is_made_between_two_looks_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from soupmix.batch import journal

    monkeypatch.setattr(journal, "check_plain", lambda path: None)
    victim = tmp_path / "victim"
    for make in (_hard_link, _soft_link, _pipe):
        victim.write_bytes(b"")
        make(victim, journal_path(tmp_path / "out.jsonl"))
        with pytest.raises(OutputError), open_journal(tmp_path / "out.jsonl", {}):
            pass
        assert victim.read_bytes() == b""
        journal_path(tmp_path / "out.jsonl").unlink()

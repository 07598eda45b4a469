"""Attacks on `soupmix verify` through a folder that somebody sent, and on writers through the place to write to."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from soupmix.errors import OutputError, RecipeError
from soupmix.files import canonical_json, new_folder, write_file
from soupmix.merge import verify
from soupmix.merge.record import DIGESTS, GRANT, RECIPE, is_result
from soupmix.policy import Policy
from tests.attacks.attack import Attack

__all__ = ["ATTACKS"]


def _result(name: str, tries: str, reason: str, make: Callable[[Path], object]) -> Attack:
    """Verify an empty folder in which something was made."""

    def run(where: Path) -> None:
        (where / "result").mkdir()
        make(where / "result")
        verify(where / "result")

    return Attack(name, tries, run, RecipeError, reason)


def _record(content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / DIGESTS).write_bytes(content)


def _sealed(**files: bytes) -> Callable[[Path], None]:
    """A folder whose digests fit, whatever the files say."""

    def make(folder: Path) -> None:
        named = {
            GRANT: files.get("grant", canonical_json(Policy.open(()).clamp({}).to_dict())),
            RECIPE: files.get("recipe", b"weights: {friendly: 1}\n"),
        }
        for name, data in named.items():
            (folder / name).write_bytes(data)
        outputs = {name: f"sha256:{hashlib.sha256(data).hexdigest()}" for name, data in named.items()}
        (folder / DIGESTS).write_text(json.dumps({"inputs": {}, "outputs": outputs}))

    return make


def _writes(name: str, tries: str, reason: str, write: Callable[[Path], object]) -> Attack:
    return Attack(name, tries, write, OutputError, reason)


def _fill(target: Path, **options: Any) -> None:
    with new_folder(target, **options) as folder:
        (folder / "x").write_bytes(b"x")


def _behind_a_file(where: Path) -> None:
    (where / "file").touch()
    _fill(where / "file" / "out")


def _taken(where: Path) -> None:
    (where / "out").symlink_to(where / "nowhere")
    _fill(where / "out")


def _taken_meanwhile(where: Path) -> None:
    with new_folder(where / "out"):
        (where / "out").mkdir()


def _into_a_folder(where: Path) -> None:
    (where / "out").mkdir()
    write_file(where / "out", b"x")


def _photos(where: Path) -> None:
    (where / "photos").mkdir()
    (where / "photos" / "one.jpg").touch()
    _fill(where / "photos", force=True, own=is_result)


def _false_record(where: Path) -> None:
    (where / "photos").mkdir()
    (where / "photos" / "one.jpg").touch()
    _sealed()(where / "photos")
    _fill(where / "photos", force=True, own=is_result)


def _over_a_link(where: Path) -> None:
    (where / "result").mkdir()
    (where / "out").symlink_to(where / "result")
    _fill(where / "out", force=True, own=is_result)


def _over_a_fifo(where: Path) -> None:
    os.mkfifo(where / "out")
    _fill(where / "out", force=True, own=is_result)


def _over_the_source(where: Path) -> None:
    (where / "out" / "store").mkdir(parents=True)
    _fill(where / "out", force=True, own=lambda folder: True, reads=[where / "out" / "." / "store"])


def _over_the_ground(where: Path) -> None:
    (where / "out" / "here").mkdir(parents=True)
    os.chdir(where / "out" / "here")
    _fill(Path(".."), force=True, own=lambda folder: True)


def _file_over_a_fifo(where: Path) -> None:
    os.mkfifo(where / "out")
    write_file(where / "out", b"x")


def _file_over_a_link(where: Path) -> None:
    (where / "precious").touch()
    (where / "out").symlink_to(where / "precious")
    write_file(where / "out", b"x")


ATTACKS = (
    _result("no-record", "pass without a record", "no-record", lambda folder: None),
    _result("record-fifo", "wait for a writer for ever", "no-record", lambda folder: os.mkfifo(folder / DIGESTS)),
    _result(
        "record-link",
        "read another folder's record",
        "no-record",
        lambda folder: (folder / DIGESTS).symlink_to("/etc/passwd"),
    ),
    _result(
        "record-sparse",
        "fill the memory from a sparse file",
        "no-record",
        lambda folder: (_record(b"")(folder), os.truncate(folder / DIGESTS, 1 << 40)),
    ),
    _result("record-empty", "index behind the end", "bad-record", _record(b"")),
    _result("record-deep", "overflow the stack", "bad-record", _record(b"[" * 500_000)),
    _result(
        "record-duplicate",
        "one of them is checked",
        "bad-record",
        _record(b'{"inputs": {}, "outputs": {}, "outputs": {}}'),
    ),
    _result("record-as-list", "an attribute of a list", "bad-record", _record(b"[]")),
    _result(
        "record-leaves-the-folder",
        "hash files elsewhere",
        "bad-record",
        _record(b'{"inputs": {}, "outputs": {"../../etc/passwd": "sha256:0"}}'),
    ),
    _result(
        "record-of-numbers",
        "a number where text is expected",
        "bad-record",
        _record(b'{"inputs": {}, "outputs": {"x": 1}}'),
    ),
    _result("grant-as-list", "an attribute of a list", "bad-record", _sealed(grant=b"[]")),
    _result("grant-empty", "a grant of defaults", "bad-record", _sealed(grant=b"{}")),
    _result("grant-as-number", "an attribute of a number", "bad-record", _sealed(grant=b"7")),
    _result("grant-deep", "overflow the stack", "bad-record", _sealed(grant=b"[" * 500_000)),
    _result(
        "recorded-recipe-broken", "a recipe past the checks", "bad-yaml", _sealed(recipe=b"weights: &w {friendly: 1}")
    ),
    _writes("target-behind-a-file", "an error nobody thought of", "write-failed", _behind_a_file),
    _writes(
        "target-name-too-long", "an error nobody thought of", "write-failed", lambda where: _fill(where / ("x" * 300))
    ),
    _writes("target-is-a-link", "write through a link", "exists", _taken),
    _writes("target-taken-meanwhile", "replace what came during the merge", "exists", _taken_meanwhile),
    _writes("target-is-a-folder", "replace a folder by a file", "not-ours", _into_a_folder),
    _writes("forced-into-photos", "delete somebody's folder", "not-ours", _photos),
    _writes("forced-with-a-false-record", "delete what a record does not list", "not-ours", _false_record),
    _writes("forced-over-a-link", "replace a link, or what it leads to", "not-ours", _over_a_link),
    _writes("forced-over-a-fifo", "replace what others wait at", "not-ours", _over_a_fifo),
    _writes("forced-over-the-source", "delete what is read", "not-ours", _over_the_source),
    _writes("forced-over-its-own-ground", "delete the folder one stands in", "not-ours", _over_the_ground),
    _writes("forced-file-over-a-fifo", "replace what others wait at", "not-ours", _file_over_a_fifo),
    _writes("forced-file-over-a-link", "write through a link", "not-ours", _file_over_a_link),
)

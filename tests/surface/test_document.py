"""surface.json: what is written is read again; what was changed, damaged or is of others is refused."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from soupmix.errors import EvaluationError
from soupmix.files import canonical_json
from soupmix.surface import SURFACE, Surface, SurfaceDocument, read_surface, write_surface
from soupmix.weights import Weights
from tests.support.planted_soups import ENTRIES, document, entry


@pytest.fixture(scope="module")
def fitted() -> SurfaceDocument:
    return document()


def test_what_is_written_is_read_again_byte_for_byte(fitted: SurfaceDocument, tmp_path: Path) -> None:
    assert read_surface(tmp_path) is None
    write_surface(tmp_path, fitted)
    raw = (tmp_path / SURFACE).read_bytes()
    assert read_surface(tmp_path) == fitted
    write_surface(tmp_path, fitted)
    assert (tmp_path / SURFACE).read_bytes() == raw == canonical_json(json.loads(raw))
    assert [each.name for each in tmp_path.iterdir()] == [SURFACE]


def _at(content: dict[str, Any], path: str) -> tuple[dict[str, Any], str]:
    *inner, last = path.split(".")
    for key in inner:
        content = content[key]
    return content, last


def _set(path: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        place, key = _at(content, path)
        place[key] = value

    return change


HOSTILE = {
    "another coefficient": _set("measures.grade.coefficients", "1 2 3 4 5 6"),
    "another digest": _set("digest", "sha256:" + "0" * 64),
    "another report": _set("report", "sha256:" + "0" * 64),
    "no digest": lambda content: content.pop("digest"),
    "an unknown field": _set("more", 1),
    "a null": _set("measures.grade.span", None),
    "a text for a number": _set("measures.grade.span", "9"),
    "true for a number": _set("prompts", True),
    "a span of nothing": _set("measures.grade.span", 0),
    "a huge number": _set("measures.grade.coefficients", "1e300 1 1 1 1 1"),
    "no number": _set("measures.grade.coefficients", "nan 1 1 1 1 1"),
    "too few coefficients": _set("measures.grade.coefficients", "1 2"),
    "too small a triangle": _set("measures.grade.factor", "1"),
    "a term of an adapter that is not there": _set("measures.grade.terms", [[], [0], [1], [2], [3], [9]]),
    "a term of three": _set("measures.grade.terms", [[], [0], [1], [2], [3], [0, 1, 2]]),
    "a negative place": _set("measures.grade.terms", [[], [0], [1], [2], [3], [-1]]),
    "a term twice": _set("measures.grade.terms", [[], [0], [1], [2], [3], [3]]),
    "no constant": _set("measures.grade.terms", [[0], [1], [2], [3], [4], [0, 1]]),
    "an adapter twice": lambda content: content["adapters"].__setitem__(0, content["adapters"][1]),
    "an adapter more": lambda content: content["adapters"].append("sha256:" + "0" * 64),
    "a title with a line break": _set("measures.grade.title", "a\nb"),
    "a unit that moves the cursor": _set("measures.grade.unit", "\x1b[2J"),
    "a measure whose name is a path": lambda content: content["measures"].update({"../x": content["measures"]["grade"]}),
    "no measures": _set("measures", {}),
    "another version": _set("schema_version", 2),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_what_was_changed_or_makes_no_sense_is_refused(name: str, fitted: SurfaceDocument, tmp_path: Path) -> None:
    content = fitted.model_dump(mode="json")
    HOSTILE[name](content)
    (tmp_path / SURFACE).write_text(json.dumps(content))
    with pytest.raises(EvaluationError, match="is not a surface") as caught:
        read_surface(tmp_path)
    assert caught.value.reason == "bad-surface"
    assert str(caught.value).isprintable()


def test_other_files_are_refused(fitted: SurfaceDocument, tmp_path: Path) -> None:
    path = tmp_path / SURFACE
    twice = canonical_json(fitted.model_dump(mode="json")).replace(b'"prompts": 20', b'"prompts": 99, "prompts": 20')
    for raw in (b"", b"[]", b"{", b"\xff", b"[" * 100_000, twice):
        path.write_bytes(raw)
        with pytest.raises(EvaluationError, match="is not a surface"):
            read_surface(tmp_path)
    path.write_bytes(b" " * (9 << 20))
    with pytest.raises(EvaluationError) as caught:
        read_surface(tmp_path)
    assert caught.value.reason == "too-large"
    path.unlink()
    path.symlink_to("/etc/hostname")
    with pytest.raises(EvaluationError) as caught:
        read_surface(tmp_path)
    assert caught.value.reason == "symlink"


def test_of_other_adapters_or_another_base_it_is_refused(fitted: SurfaceDocument, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="of the base") as caught:
        Surface.of(fitted, [entry("easy", base="sha256:" + "c" * 64)])
    assert caught.value.reason == "wrong-base"
    with pytest.raises(EvaluationError, match="other adapters") as caught:
        Surface.of(fitted, [entry("new", "tone")])
    assert caught.value.reason == "other-adapters"
    with pytest.raises(EvaluationError, match="soupmix evaluate") as caught:
        Surface.beside(tmp_path, ENTRIES)
    assert caught.value.reason == "no-surface"


def test_adapters_are_found_by_digest_whatever_else_a_store_holds(fitted: SurfaceDocument) -> None:
    """One that is added changes nothing for the others; one that is renamed is the same; one that is gone has weight 0."""
    whole = Surface.of(fitted, ENTRIES)
    more = Surface.of(fitted, [*ENTRIES, entry("new", "tone")])
    soup = Weights("easy=0.5,short=0.5")
    assert more.expect(soup) == whole.expect(soup)
    assert (whole.unknown, more.unknown) == ({}, {"new": "tone"})
    renamed = [each if each.name != "easy" else each.model_copy(update={"name": "plain"}) for each in ENTRIES]
    assert Surface.of(fitted, renamed).expect(Weights("plain=0.5,short=0.5")) == whole.expect(soup)
    few = Surface.of(fitted, [entry("easy"), entry("short")])
    assert few.expect(soup) == whole.expect(soup)
    assert few.measures == ("grade", "words")
    for surface, name in ((more, "new"), (few, "warm")):
        with pytest.raises(EvaluationError, match=f"says nothing of '{name}'") as caught:
            surface.expect(Weights({name: 0.5}))
        assert caught.value.reason == "other-adapters"


def test_nothing_is_foretold_of_what_was_not_measured(fitted: SurfaceDocument) -> None:
    surface = Surface.of(fitted, ENTRIES)
    for far in ("easy=1.01", "easy=-0.1", "easy=1,short=1,warm=0.1"):  # at most 2 in all were measured
        with pytest.raises(EvaluationError, match="as far out as") as caught:
            surface.expect(Weights(far))
        assert caught.value.reason == "not-measured"
    assert surface.expect(Weights("easy=1,short=1,warm=0"))
    words = surface.expect(Weights())["words"]
    assert math.log(words.high / words.value) == pytest.approx(math.log(words.value / words.low))
    assert words.answers_low < words.low < words.value < words.high < words.answers_high

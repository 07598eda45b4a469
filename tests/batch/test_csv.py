"""CSV: a line for every row in order, and every row in the output as it was."""

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soupmix.batch.columns import Columns
from soupmix.batch.inputs import open_input
from soupmix.errors import RecipeError
from tests.support.batch_files import REFUSED, result, source, written

CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=12)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("csv")


@given(rows=st.lists(st.lists(CELLS, min_size=3, max_size=3)), bom=st.booleans())
def test_rows_come_in_order_and_stand_in_the_output_as_they_were(
    folder: Path, rows: list[list[str]], bom: bool
) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([["question", "who", "elem"], *rows])
    path = written(folder, "in.csv", (b"\xef\xbb\xbf" if bom else b"") + text.getvalue().encode())
    file = source(path, "prompt=question", "user=who", "weights.elementary=elem")
    lines = list(file.lines())
    assert file.count() == len(lines) == len(rows)
    for line, (question, who, elem) in zip(lines, rows, strict=True):
        assert (line.error is None) == bool(question)
        if question:
            assert line.body["messages"] == [{"role": "user", "content": question}]
            assert line.body.get("user", "") == who
            assert line.body.get("soup", {}).get("weights", {}).get("elementary", "") == elem
    out = io.BytesIO()
    results = [result(f"a\r{n}", {"elementary": "0.5"}) if n % 2 else REFUSED for n in range(len(rows))]
    file.write(out, iter(results))
    read = list(csv.reader(io.StringIO(out.getvalue().decode(), newline="")))
    assert read == [
        ["question", "who", "elem", "answer", "granted", "error"],
        *(
            [*row, f"a\r{n}", "elementary=0.5", ""] if n % 2 else [*row, "", "", "refused-by-rule: not for minors"]
            for n, row in enumerate(rows)
        ),
    ]


def test_rows_of_another_length_and_bytes_that_are_no_text_keep_their_place(tmp_path: Path) -> None:
    path = written(tmp_path, "in.csv", b"prompt,id\nhi,1\nhi\nhi,3,4\n\xff\xfe,5\n\nlast,6\n")
    file = source(path, "custom_id=id")
    lines = list(file.lines())
    assert [line.custom_id for line in lines] == ["1", None, None, "5", "6"]
    assert [str(line.error)[:6] for line in lines] == ["None", "row 2:", "row 3:", "row 4:", "None"]
    out = io.BytesIO()
    file.write(out, iter([REFUSED] * 5))
    assert out.getvalue().splitlines()[4].startswith(b"\xff\xfe,5,,,refused")


@pytest.mark.parametrize(
    ("data", "hint"),
    [
        (b'prompt\n"open\nmore\n', "line 3"),
        (b"prompt\n" + b"x" * 5000 + b"\n", "line 2"),
        (b'prompt\n"a"b\n', "line 2"),
    ],
)
def test_a_file_in_which_rows_are_not_sure_is_refused_whole(tmp_path: Path, data: bytes, hint: str) -> None:
    with pytest.raises(RecipeError, match=rf"{hint}.*nothing was answered") as caught:
        source(written(tmp_path, "in.csv", data)).count()
    assert caught.value.reason == "bad-input"


@pytest.mark.parametrize(
    ("header", "columns", "hint"),
    [
        ("question", (), "'question'"),
        ("prompt,prompt", (), "2 columns 'prompt'"),
        ("prompt,answer", (), "'answer' already"),
        ("prompt", ("custom_id=id",), "'id'"),
        ("", (), "prompt"),
    ],
)
def test_columns_that_are_not_there(tmp_path: Path, header: str, columns: tuple[str, ...], hint: str) -> None:
    with pytest.raises(RecipeError, match=hint) as caught:
        source(written(tmp_path, "in.csv", f"{header}\nx\n".encode()), *columns).count()
    assert caught.value.reason == "bad-column"


def test_numbers_are_numbers_or_the_row_is_bad(tmp_path: Path) -> None:
    cells = ["7", "7.0", "", "seven", "1e999", "true", "NaN", "0x7", "7_0", "1.5"]
    path = written(tmp_path, "in.csv", b"prompt,s\n" + "".join(f"hi,{c}\n" for c in cells).encode())
    lines = list(source(path, "seed=s").lines())
    assert [line.body.get("seed") for line in lines] == [
        7,
        7,
        None,
        *[None] * 6,
        1.5,
    ]  # the last is for the server's check
    assert [line.error is None for line in lines] == [True, True, True, *[False] * 6, True]


@pytest.mark.parametrize("text", ["prompt", "prompt=", "=x", "speed=x", "weights=x", "weights.=x", "soup.a=x"])
def test_targets_that_do_not_exist(text: str) -> None:
    with pytest.raises(RecipeError, match=r"TARGET=COLUMN") as caught:
        Columns.parse([text], limit=1, model="tiny")
    assert caught.value.reason == "bad-column"


def test_a_target_comes_once() -> None:
    with pytest.raises(RecipeError):
        Columns.parse(["seed=a", "seed=b"], limit=1, model="tiny")


def test_one_column_may_serve_twice() -> None:
    columns = Columns.parse(["prompt=q", "custom_id=q", "attributes.audience=a", "sources.calm=s"], limit=99, model="m")
    line = columns.line(0, {"q": "why", "a": "minor", "s": "stored"})
    assert (line.custom_id, line.body["model"]) == ("why", "m")
    assert line.body["soup"] == {"attributes": {"audience": "minor"}, "sources": {"calm": "stored"}}


def test_a_row_over_the_limit_is_bad() -> None:
    line = Columns.parse([], limit=10, model="m").line(3, {"prompt": "x" * 11})
    assert line.error is not None
    assert line.error.reason == "too-long"


@pytest.mark.parametrize(
    ("name", "out", "reason"),
    [
        ("in.txt", "out.txt", "bad-kind"),
        ("in.jsonl", "out.csv", "bad-kind"),
        ("in.csv", "out.parquet", "bad-kind"),
        ("in.csv", "in.csv", "same-file"),
        ("absent.jsonl", "out.jsonl", "missing"),
    ],
)
def test_names_say_what_files_are(tmp_path: Path, name: str, out: str, reason: str) -> None:
    if name != "absent.jsonl":
        (tmp_path / name).touch()
    with pytest.raises(RecipeError) as caught:
        open_input(tmp_path / name, tmp_path / out, Columns.parse([], limit=99, model="m"))
    assert caught.value.reason == reason


def test_a_table_may_become_jsonl(tmp_path: Path) -> None:
    path = written(tmp_path, "in.csv", b"prompt\nhi\n")
    assert open_input(path, tmp_path / "out.jsonl", Columns.parse([], limit=99, model="m")).count() == 1

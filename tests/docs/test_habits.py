"""What the documents promise of themselves: one meaning a word, a README that is read in minutes, lines that fit a screen."""

import ast
import re
from pathlib import Path

import pytest

import soupmix

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "kernels/README.md"])
GENERATED = {"api.md", "attacks.md", "cli.md", "families.md"}
WIDTH = 120


def text_of(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def words() -> list[tuple[str, str]]:
    rows = re.findall(r"^\| (.+?) \| (.+) \|$", text_of("docs/words.md"), re.MULTILINE)
    return [row for row in rows if row != ("word", "its meaning")]


def test_every_word_has_one_line() -> None:
    found = [word.strip("`").lower() for word, _ in words()]
    assert len(found) > 80
    assert sorted(found) == sorted(set(found))
    assert all(len(f"| {word} | {meaning} |") <= 130 for word, meaning in words())


def test_every_class_among_the_words_is_there() -> None:
    classes = {
        node.name
        for path in [*ROOT.glob("src/**/*.py"), *ROOT.glob("kernels/**/*.py")]
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ClassDef)
    }
    named = {name for row in words() for cell in row for name in re.findall(r"`([A-Z]\w+)`", cell)}
    assert len(named) > 20
    assert named - classes == set()


def test_the_readme_is_read_in_minutes() -> None:
    assert len(text_of("README.md").split()) <= 1000


def test_the_changelog_is_dated_and_knows_this_version() -> None:
    releases = re.findall(r"^## (.+)$", text_of("CHANGELOG.md"), re.MULTILINE)
    dated = [each for each in releases if re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", each)]
    assert [each for each in releases if each not in dated] in ([], ["[Unreleased]"])
    assert f"[{soupmix.__version__}]" in dated[0]


def test_decisions_are_numbered_and_dated() -> None:
    lines = [line for line in text_of("docs/decisions.md").splitlines() if line.startswith("- ")]
    found = [re.match(r"- \*\*(\d+) · (\d{4}-\d\d-\d\d) · ", line) for line in lines]
    assert [int(each[1]) for each in found if each] == list(range(1, len(lines) + 1))
    dates = [each[2] for each in found if each]
    assert dates == sorted(dates)


def test_headings_of_the_log_say_what_came_out() -> None:
    headings = re.findall(r"^## (.+)$", text_of("docs/log.md"), re.MULTILINE)
    assert len(headings) > 10
    assert [each for each in headings if not re.fullmatch(r"\d{4}-\d\d-\d\d · .+: .+", each)] == []


def test_a_release_takes_eight_steps_at_most() -> None:
    section = text_of("CONTRIBUTING.md").partition("## A release")[2].partition("\n## ")[0]
    assert 3 <= len(re.findall(r"^\d+\. ", section, re.MULTILINE)) <= 8


@pytest.mark.parametrize("path", [each for each in PAGES if each.name not in GENERATED], ids=lambda path: path.name)
def test_lines_fit_a_screen(path: Path) -> None:
    """But tables, and what a benchmark writes into its page as one line."""
    prose = re.sub(r"^```.*?^```$", "", path.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    long = [line for line in prose.splitlines() if len(line) > WIDTH and not re.match(r"\||!?\[.*\)$|    ", line)]
    assert [line for line in long if " " in line[:WIDTH].strip("- ")] == [] or path.name in MEASURED


MEASURED = {
    "audit_cost.md",
    "clamp.md",
    "cpu_kernels.md",
    "decode.md",
    "merge.md",
    "peers.md",
    "methods_bench.md",
    "methods_do.md",
    "model_merge.md",
    "mutants_policy.md",
    "reliability.md",
}
MEASURED |= {"ask_bench.md", "roofline.md", "row_leaks.md", "serve_bench.md", "sweep.md"}


def test_the_map_shows_what_is_there() -> None:
    table = text_of("CONTRIBUTING.md").partition("## Map")[2].partition("Three ways")[0]
    source, kernels = ROOT / "src/soupmix", ROOT / "kernels/soupmix_kernels"
    files = [*source.glob("*.py"), *source.glob("*/*.py"), *kernels.glob("*.py")]
    rooms = {path.parent.name for path in files} - {"soupmix", "soupmix_kernels"}
    named = set(re.findall(r"`([a-z_]+)/?`", table))
    assert rooms - named == set()
    assert {path.stem for path in files if path.parent.name != "cli"} - named <= {"__init__"}
    folders = {path.name for path in source.rglob("*") if path.is_dir()}
    assert named - rooms - folders - {path.stem for path in files} == {"jit"}


def test_a_class_name_has_one_home() -> None:
    homes: dict[str, list[str]] = {}
    for path in [*ROOT.glob("src/**/*.py"), *ROOT.glob("kernels/**/*.py")]:
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes.setdefault(node.name, []).append(path.name)
    assert {name: paths for name, paths in homes.items() if len(paths) > 1} == {}

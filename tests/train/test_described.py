"""Poles that somebody describes, and what judges them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from soupmix.base import Base
from soupmix.errors import SoupmixError, TrainingError
from soupmix.evaluate import Prompt
from soupmix.train import Pole, read_poles
from soupmix.train.judges import judge_function, scores_of
from soupmix.train.pairs import choose_pairs
from soupmix.train.sample import Sample

DRY = """
poles:
  - name: dry
    dimension: humour
    systems: ["Be dry.", "Say it drily."]
  - {name: long, dimension: size, systems: ["Say much."], metric: words, spread: 25.0, cap: 200}
  - {name: odd, dimension: size, systems: ["Say it oddly."], judge: "tests.support.judging:letters"}
"""


def read(folder: Path, text: str) -> dict[str, Pole]:
    (folder / "poles.yaml").write_text(text)
    return read_poles(folder / "poles.yaml")


def test_poles_are_read(tmp_path: Path) -> None:
    found = read(tmp_path, DRY)
    assert found == {
        "dry": Pole("dry", "humour", ("Be dry.", "Say it drily."), judge="likelihood"),
        "long": Pole("long", "size", ("Say much.",), "words", 1, 25.0, cap=200),
        "odd": Pole("odd", "size", ("Say it oddly.",), judge="tests.support.judging:letters"),
    }


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it must be a mapping with the key poles"),
        ("poles: []", "poles"),
        ("poles: [&a {name: x}, *a]", "anchors and aliases"),
        ("poles: [{name: dry, dimension: d, systems: []}]", "systems"),
        ("poles: [{name: dry, dimension: d, systems: [null]}]", "systems"),
        ("poles: [{name: dry, dimension: d, systems: [a], metric: mood}]", "metric 'mood' is not known"),
        (
            "poles: [{name: dry, dimension: d, systems: [a], metric: words, judge: likelihood}]",
            "both a metric and a judge",
        ),
        ("poles: [{name: dry, dimension: d, systems: [a], judge: os.system}]", "judge"),
        ("poles: [{name: dry, dimension: d, systems: [a], spread: 0.0}]", "spread"),
        ("poles: [{name: dry, dimension: d, systems: [a], cap: 99999}]", "cap"),
        ("poles: [{name: dry, dimension: d, systems: [a], code: x}]", "code"),
        ("poles: [{name: concise, dimension: d, systems: [a]}]", "name of a shipped pole"),
        ("poles: [{name: neutral, dimension: d, systems: [a]}]", "or of plain answers"),
        ("poles: [{name: dry, dimension: d, systems: [a], metric: words, aim: 1.0e999}]", "aim"),
        ("poles: [{name: ../x, dimension: d, systems: [a]}]", "not a name"),
        ("poles: " + "[" * 5000, "does not describe poles"),
    ],
)
def test_what_is_wrong_is_one_sentence(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(SoupmixError) as refusal:
        read(tmp_path, text)
    assert why in str(refusal.value)
    assert "\n" not in str(refusal.value)


PROMPT = Prompt("What is rust?", "question", ("rust",))
TEXTS = ("Rust is an oxide of iron that forms in damp air.", "Rust zz is zz an oxide zz of iron zz in damp air.")
SAMPLES = {
    "neutral": [Sample(0, 0, "Rust is an oxide of iron that is made in the rain.", True)],
    "odd": [Sample(0, n, text, True, "Say it oddly.") for n, text in enumerate(TEXTS)],
}


def test_a_function_judges(tiny_base: Base) -> None:
    odd = Pole("odd", "size", ("Say it oddly.",), judge="tests.support.judging:letters")
    scores = scores_of(odd, tiny_base, [PROMPT], SAMPLES)
    (pair,) = choose_pairs(odd, [PROMPT], SAMPLES, None, {"odd": scores})
    assert pair.chosen.text == TEXTS[1]
    assert pair.rejected.text == SAMPLES["neutral"][0].text
    with pytest.raises(TrainingError, match="not a finite number"):
        scores_of(Pole("odd", "size", judge="tests.support.judging:nothing"), tiny_base, [PROMPT], SAMPLES)
    with pytest.raises(TrainingError, match=r"judging:failing' failed with ZeroDivisionError: .*; mend it"):
        scores_of(Pole("odd", "size", judge="tests.support.judging:failing"), tiny_base, [PROMPT], SAMPLES)
    for name in ("tests.support.judging:none", "no_such_module:x", "tests.support.judging:__name__"):
        with pytest.raises(TrainingError) as refusal:
            judge_function(name)
        assert refusal.value.reason == "judge"


def test_the_model_itself_judges(tiny_base: Base) -> None:
    dry = Pole("odd", "size", ("Say it oddly.",), judge="likelihood")
    scores = scores_of(dry, tiny_base, [PROMPT], SAMPLES)
    assert {text for _, text in scores} == {each.text for held in SAMPLES.values() for each in held}
    assert len(set(scores.values())) == 3


def test_code_that_a_file_names_is_not_run_unless_that_is_asked_for(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    file = tmp_path / "poles.yaml"
    file.write_text('poles: [{name: dry, dimension: humour, systems: [Be dry.], judge: "os:system"}]')
    code, _, said = run("train", tmp_path / "out", "--poles", file)
    assert code == 2
    assert "pole dry is judged by code, os:system: pass --run-judges if you trust it" in said
    assert not (tmp_path / "out").exists()

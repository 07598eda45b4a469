"""Policy accuracy: who prefers what, and whether a soup agrees."""

import importlib
from collections.abc import Callable
from pathlib import Path

import pytest

from soupmix.engine import Engine
from soupmix.evaluate.measures import Measure
from soupmix.evaluate.preferred import PreferredPair, policy_accuracy, preferred_pairs
from soupmix.evaluate.record import AdapterFacts
from soupmix.evaluate.samples import ArmSample
from soupmix.evaluate.soups import Arm
from soupmix.policy import Grant
from soupmix.weights import Weights
from tests.support import evaluated

DIGEST = "sha256:" + "0" * 64
ADAPTERS = {
    "short": AdapterFacts(digest=DIGEST, dimension="length", pole="short"),
    "warm": AdapterFacts(digest=DIGEST, dimension="tone", pole="warm"),
}
MEASURES = {
    "words": Measure("words", "length", "words", "words", 0, "x", pole="long"),
    "smiles": Measure("smiles", "tone", "smiles", "", 0, "x", pole="warm"),
    "loop": Measure("loop", "", "loops", "", -1, "x"),
}
TEXTS = {"a": "one", "b": "one two three four", "c": "one two :)", "d": "one two three four :) :)"}
TABLE = {
    (name, "Why?"): {"words": len(text.split()), "smiles": text.count(":)"), "loop": 0.0}
    for name, text in TEXTS.items()
}
SAMPLES = [
    ArmSample(Arm(name, Weights({})), "Why?", "question", 0.7, 0, text, 1, True, name) for name, text in TEXTS.items()
]


def pairs(**weights: float) -> set[tuple[str, str]]:
    found = preferred_pairs(Arm("p", Weights(weights)), SAMPLES, TABLE, MEASURES, ADAPTERS, count=20)
    return {(each.preferred, each.other) for each in found}


def test_a_person_prefers_what_the_weights_ask_for() -> None:
    assert all(len(one.split()) < len(other.split()) for one, other in pairs(short=1))
    assert all(one.count(":)") > other.count(":)") for one, other in pairs(warm=1))
    assert len(pairs(short=1)) >= 3
    both = pairs(short=0.5, warm=0.5)
    assert (TEXTS["c"], TEXTS["b"]) in both
    assert both == pairs(short=1, warm=1), "strength does not change who prefers what"
    assert pairs() == set()


def test_a_soup_agrees_with_what_it_makes_likelier(plain: Engine, grant: Callable[..., Grant]) -> None:
    chosen = [PreferredPair("Why?", "Because.", "No idea at all."), PreferredPair("Who?", "You.", "Me and you.")]
    swapped = [PreferredPair(each.prompt, each.other, each.preferred) for each in chosen]
    arm = Arm("calm", Weights({"calm": 1}))
    one, other = (policy_accuracy(plain, arm, (grant(), grant(calm=1)), each) for each in (chosen, swapped))
    for kind in ("base", "soup", "shift"):
        assert one[kind]["value"] == 1 - other[kind]["value"]
        assert one[kind]["low"] <= one[kind]["value"] <= one[kind]["high"]
    same = policy_accuracy(plain, arm, (grant(), grant()), chosen)
    assert same["shift"]["value"] == 0.0
    assert same["soup"] == same["base"]
    assert policy_accuracy(plain, arm, (grant(), grant()), []) == {
        "pairs": 0,
        "base": None,
        "soup": None,
        "shift": None,
    }


def test_the_benchmark_asks_single_adapters_and_mixtures(monkeypatch: pytest.MonkeyPatch) -> None:
    """At weight 1, and at the strength nearest to .7; of many an even choice."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    bench = importlib.import_module("preferred")
    record = evaluated.record()
    names = [[arm.name for arm in arms] for arms in bench.soups_of(record, 9)]
    assert [sorted(each) for each in names] == [
        ["calm@1", "long@1", "loud@1", "short@1"],
        ["calm+long@0.5", "calm+short@0.5", "long+loud@0.5", "loud+short@0.5"],
    ]
    assert [len(arms) for arms in bench.soups_of(record, 3)] == [3, 3]

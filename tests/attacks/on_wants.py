"""Attacks on the file that says what somebody wants: its signals move weights, its prior and particles cost time and memory."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from soupmix.errors import PreferenceError
from soupmix.preference import Posterior, Signal, Trait, Traits
from soupmix.preference.kept import exported, imported
from tests.attacks.attack import Attack

__all__ = ["ATTACKS"]

TRAITS = Traits(
    (Trait("length", "words", centre=60, scale=30), Trait("grade", "grade", centre=9, scale=3)), "sha256:" + "0" * 64
)
POPULATION = {"mean": [0.0, 0.0], "covariance": [[1.0, 0.0], [0.0, 1.0]]}


def document() -> dict[str, Any]:
    """What a small posterior is kept as."""
    posterior = Posterior(TRAITS)
    short, long = {"length": 25.0, "grade": 7.0}, {"length": 110.0, "grade": 8.0}
    posterior.learn(Signal(id="a1", kind="choice", source="me", traits=TRAITS.digest, answers=(short, long), value=0))
    found: dict[str, Any] = json.loads(exported(posterior))
    return found


def _raw(name: str, tries: str, make: Callable[[], bytes], reason: str = "bad-wants") -> Attack:
    def run(_: Path) -> None:
        posterior = imported(make(), TRAITS)
        posterior.mean()

    return Attack(name, tries, run, PreferenceError, reason)


def _spoiled(name: str, tries: str, spoil: Callable[[dict[str, Any]], object], reason: str = "bad-wants") -> Attack:
    """Change what the file says, then read it and ask it for wants."""

    def make() -> bytes:
        content = document()
        spoil(content)
        return json.dumps(content).encode()

    return _raw(name, tries, make, reason)


def _people(**given: Any) -> Callable[[dict[str, Any]], object]:
    """Replace the population of the prior."""
    return lambda content: content["prior"].update(populations={"linear": POPULATION | given})


def _again(content: dict[str, Any]) -> None:
    content["signals"] *= 2


def _answer(**values: Any) -> Callable[[dict[str, Any]], object]:
    return lambda content: content["signals"][0]["answers"][0].update(values)


ATTACKS = (
    _raw("wants-no-json", "an error of a parser", lambda: b"{"),
    _raw("wants-not-text", "an error of a codec", lambda: b"\xff\xfe{}"),
    _raw("wants-list", "an attribute of a list", lambda: b"[]"),
    _raw("wants-deep", "overflow the stack", lambda: b"[" * 100_000 + b"]" * 100_000),
    _raw("wants-large", "fill memory", lambda: b" " * ((32 << 20) + 1)),
    _raw("wants-twice", "one key that is two things", lambda: b'{"seed": 0, "seed": 1}'),
    _spoiled("wants-null-signals", "a loop over nothing", lambda content: content.update(signals=None)),
    _spoiled("wants-unknown", "a field that a later reader believes", lambda content: content.update(weights={"expert": 9})),
    _spoiled("wants-schema", "a file that is to be read otherwise", lambda content: content.update(schema_version=2)),
    _spoiled("wants-nan", "a value that nothing bounds", _answer(length=float("nan"))),
    _spoiled("wants-infinite", "a value that decides alone", _answer(length=float("inf"))),
    _spoiled("wants-huge", "a value that decides alone", _answer(length=1e300)),
    _spoiled("wants-far", "an answer that none can be", _answer(length=1e9), "too-far"),
    _spoiled("wants-replayed", "count one answer twice", _again, "replayed"),
    _spoiled("wants-many", "take minutes", lambda content: content.update(signals=content["signals"] * 10_001)),
    _spoiled("wants-particles", "fill memory with particles", lambda content: content.update(particles=2**40), "bad-prior"),
    _spoiled("wants-no-particles", "divide by zero", lambda content: content.update(particles=0), "bad-prior"),
    _spoiled("wants-seed", "a seed that numpy does not take", lambda content: content.update(seed=-1)),
    _spoiled("wants-prior-null", "an attribute of nothing", lambda c: c["prior"].update(populations=None), "bad-prior"),
    _spoiled("wants-prior-nan", "a belief that is no number", _people(mean=[float("nan"), 0.0])),
    _spoiled("wants-prior-short", "an error of shapes", _people(mean=[0.0]), "bad-prior"),
    _spoiled("wants-prior-ragged", "an error of shapes", _people(covariance=[[1.0, 0.0], [0.0]]), "bad-prior"),
    _spoiled("wants-prior-wide", "take minutes over eigenvalues", _people(covariance=[[1.0] * 800] * 800), "bad-prior"),
    _spoiled("wants-prior-negative", "a spread below nothing", _people(covariance=[[-1.0, 0.0], [0.0, -1.0]]), "bad-prior"),
    _spoiled("wants-prior-far", "somebody whom no evidence moves", _people(mean=[1e200, 0.0]), "bad-prior"),
    _spoiled("wants-prior-other", "wants of other traits", _people(mean=[0.0], covariance=[[1.0]]), "other-traits"),
    _spoiled("wants-floors", "a likelihood for every floor", lambda c: c["prior"].update(floors=[0.01] * 100_000), "bad-prior"),
)  # fmt: skip

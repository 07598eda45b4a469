"""Attacks on surface.json: what foretells what soups do, and so which weights are proposed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from soupmix.errors import EvaluationError
from soupmix.surface import SURFACE, Surface, read_surface
from soupmix.weights import Weights
from tests.attacks.attack import Attack
from tests.support.planted_soups import ENTRIES, document, entry

__all__ = ["ATTACKS"]


def _spoiled(name: str, tries: str, spoil: Callable[[dict[str, Any]], object]) -> Attack:
    """Change what the file says, then read it."""

    def run(where: Path) -> None:
        content = document().model_dump(mode="json")
        spoil(content)
        (where / SURFACE).write_text(json.dumps(content))
        read_surface(where)

    return Attack(name, tries, run, EvaluationError, "bad-surface")


def _raw(name: str, tries: str, reason: str, spoil: Callable[[Path], object]) -> Attack:
    def run(where: Path) -> None:
        spoil(where / SURFACE)
        read_surface(where)

    return Attack(name, tries, run, EvaluationError, reason)


def _of_another_base(_: Path) -> None:
    Surface.of(document(), [entry("easy", base="sha256:" + "c" * 64)])


def _of_other_adapters(_: Path) -> None:
    Surface.of(document(), [entry("new", "tone")])


def _far(_: Path) -> None:
    Surface.of(document(), ENTRIES).expect(Weights("easy=1000"))


ATTACKS = (
    _spoiled(
        "surface-changed",
        "steer what is proposed by another coefficient",
        lambda content: content["measures"]["grade"].update(coefficients="1 2 3 4 5 6"),
    ),
    _spoiled(
        "surface-infinite",
        "make every expectation infinite",
        lambda content: content["measures"]["grade"].update(coefficients="1e300 1 1 1 1 1"),
    ),
    _spoiled(
        "surface-terminal",
        "move the cursor of whoever reads the table",
        lambda content: content["measures"]["grade"].update(unit="\x1b[2J"),
    ),
    _spoiled(
        "surface-many-terms",
        "fill memory with the covariance of many terms",
        lambda content: content["measures"]["grade"].update(terms=[[], *([k % 64] for k in range(5000))]),
    ),
    _raw("surface-link", "have another file read", "symlink", lambda path: path.symlink_to("/etc/hostname")),
    _raw("surface-huge", "fill memory", "too-large", lambda path: path.write_bytes(b" " * (9 << 20))),
    _raw("surface-nested", "exhaust the stack", "bad-surface", lambda path: path.write_bytes(b"[" * 100_000)),
    Attack("surface-other-base", "foretell by another base", _of_another_base, EvaluationError, "wrong-base"),
    Attack("surface-other-adapters", "foretell by others", _of_other_adapters, EvaluationError, "other-adapters"),
    Attack("surface-far", "believe a polynomial where nothing was measured", _far, EvaluationError, "not-measured"),
)

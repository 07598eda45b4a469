"""Attacks with rows of weights on their way to vLLM or to a worker: forged, changed, lent, and asked for without a policy."""

import json
from collections.abc import Callable
from pathlib import Path

from soupmix.errors import PolicyError, PolicyRefusal, RecipeError, SoupmixError
from soupmix.store import Store
from soupmix.vllm_plugin.checking import Checker
from soupmix.vllm_plugin.row import SoupRow
from soupmix.vllm_plugin.setup import read_setup
from tests.attacks.attack import Attack
from tests.attacks.on_stores import store

__all__ = ["ATTACKS"]

_KEY, _PROMPT, _SALT = bytes(range(32)), (5, 6, 7), "ann"
_Forge = Callable[[SoupRow], tuple[object, tuple[int, ...], str | None]]


def _setup(where: Path, **said: object) -> Path:
    opened = Store(store(where))
    (where / "key").write_bytes(_KEY)
    (where / "setup.json").write_text(json.dumps({"store": str(opened.folder), "key": "key", **said}))
    return where / "setup.json"


def _asks(name: str, tries: str, forge: _Forge, error: type[SoupmixError], reason: str) -> Attack:
    """Ask with what was forged from a row that somebody may have, of friendly at .5."""

    def run(where: Path) -> None:
        checker = Checker(read_setup(_setup(where, open=True)))
        row = SoupRow.of(checker.policy.clamp("friendly=0.5"), checker.adapters, _SALT)
        checker.check(*forge(row))

    return Attack(name, tries, run, error, reason)


def _louder(row: SoupRow) -> SoupRow:
    return row.model_copy(update={"weights": tuple(10 * each for each in row.weights)})


def _changed(row: SoupRow) -> str:
    """The body of a louder row under the tag of the one that was granted."""
    return f"{_louder(row).seal(_KEY, _PROMPT).partition('.')[0]}.{row.seal(_KEY, _PROMPT).partition('.')[2]}"


ATTACKS: tuple[Attack, ...] = (
    _asks(
        "row-without-key",
        "weights without asking soupmix",
        lambda row: (row.seal(_KEY[::-1], _PROMPT), _PROMPT, _SALT),
        PolicyRefusal,
        "forged",
    ),
    _asks(
        "row-changed",
        "more weight than was granted, under the tag of what was",
        lambda row: (_changed(row), _PROMPT, _SALT),
        PolicyRefusal,
        "forged",
    ),
    _asks(
        "row-for-another-prompt",
        "a row that was seen on its way, for a question of one's own",
        lambda row: (row.seal(_KEY, _PROMPT), (1, 2), _SALT),
        PolicyRefusal,
        "forged",
    ),
    _asks(
        "row-under-another-salt",
        "keys and values of somebody else's prompt",
        lambda row: (row.seal(_KEY, _PROMPT), _PROMPT, "bob"),
        PolicyRefusal,
        "other-salt",
    ),
    _asks(
        "row-by-a-holder-of-the-key",
        "more than the policy grants, with the key itself",
        lambda row: (_louder(row).seal(_KEY, _PROMPT), _PROMPT, _SALT),
        PolicyRefusal,
        "not-granted",
    ),
    _asks(
        "row-that-is-none",
        "a reader of rows that falls over",
        lambda _: ("a" * 40 + "." + "b" * 40, _PROMPT, _SALT),
        PolicyRefusal,
        "forged",
    ),
    _asks(
        "row-of-a-million-letters",
        "memory and time before the tag is looked at",
        lambda _: ("a" * 1_000_000, _PROMPT, _SALT),
        RecipeError,
        "bad-row",
    ),
    Attack(
        "plug-in-without-policy",
        "soups of vLLM that no policy bounds, by forgetting to name one",
        lambda where: read_setup(_setup(where)),
        PolicyError,
        "no-policy",
    ),
)

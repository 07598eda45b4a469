"""Attacks through what a request says: weights, names, attributes."""

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

from soupmix.cli import cli
from soupmix.cli.options import parse_attributes
from soupmix.errors import RecipeError, WeightError
from soupmix.policy import Policy
from soupmix.store import Store
from tests.attacks.attack import Attack
from tests.attacks.on_stores import store

__all__ = ["ATTACKS"]


def _asks(name: str, tries: str, reason: str, weights: Any) -> Attack:
    """Ask the open policy of a sound store for these weights."""
    return Attack(
        name, tries, lambda where: Policy.open(Store(store(where))).clamp(_made(weights)), WeightError, reason
    )


def _of(name: str, tries: str, number: Any, reason: str = "bad-number") -> Attack:
    """A sound name with this number."""
    return _asks(name, tries, reason, lambda: {"friendly": _made(number)})


def _made(value: Any) -> Any:
    return value() if callable(value) else value


def _says(name: str, tries: str, reason: str, **attributes: Any) -> Attack:
    def run(where: Path) -> None:
        Policy.open(Store(store(where))).clamp("friendly=1", **attributes)

    return Attack(name, tries, run, RecipeError, reason)


def _types(name: str, tries: str, reason: str, *texts: str) -> Attack:
    return Attack(name, tries, lambda where: parse_attributes(texts), RecipeError, reason)


def _types_into_a_clamp(name: str, tries: str, reason: str, text: str) -> Attack:
    def run(where: Path) -> None:
        words = ["clamp", "-w", "friendly=1", "--attribute", text, "--store", str(store(where))]
        cli(words, standalone_mode=False)

    return Attack(name, tries, run, RecipeError, reason)


def _nested(depth: int) -> Callable[[], list[Any]]:
    def make() -> list[Any]:
        value: list[Any] = []
        for _ in range(depth):
            value = [value]
        return value

    return make


ATTACKS = (
    _of("nan-as-text", "pass every comparison", "nan"),
    _of("infinity-as-text", "outweigh everything", "inf"),
    _of("nan-as-float", "pass every comparison", float("nan")),
    _of("infinity-as-float", "outweigh everything", float("-inf")),
    _of("signalling-decimal", "an exception inside a comparison", Decimal("sNaN")),
    _of("underscore", "a number that float() takes", "1_0"),
    _of("full-width", "a digit that float() takes", "\uff11"),
    _of("arabic-indic", "a digit that float() takes", "\u0663"),
    _of("minus-sign", "a minus that is none", "\u22121"),
    _of("hexadecimal", "another base", "0x1"),
    _of("exponent", "a huge number in few letters", "1e999"),
    _of("small-exponent", "a grammar that grows", "1e3"),
    _of("plus", "one number in two spellings", "+0.5"),
    _of("only-a-point", "a number without digits", "."),
    _of("ending-point", "one number in two spellings", "5."),
    _of("space-before", "one number in two spellings", " 1"),
    _of("newline-behind", "a pattern that ends at a line", "1\n"),
    _of("nul-behind", "end a C string early", "1\0"),
    _of("two-numbers", "one of them is checked", "0.1 1"),
    _of("ten-megabytes-of-digits", "convert for minutes", lambda: "9" * 10_000_000),
    _of("boolean", "true is 1", True),
    _of("nothing", "a default", None),
    _of("list", "a number inside a list", [1]),
    _of("nested-list", "overflow the stack in a message", _nested(5_000)),
    _of("object", "a number inside an object", {"friendly": 1}),
    _of("bytes", "a text that is none", b"1"),
    _of("complex", "a number without an order", 1j),
    _of("four-hundred-digits", "convert a huge number", 10**400, "too-large"),
    _of("beyond-a-float", "overflow", Decimal("1e999999"), "too-large"),
    _of("over-the-limit", "a weight of a thousand and one", "1000.000001", "too-large"),
    _of("under-the-limit", "a weight of minus a thousand and one", -1001, "too-large"),
    _asks("unknown-name", "weigh what is not there", "unknown-adapter", "rude=1"),
    _asks("cyrillic-name", "look like a name it is not", "bad-name", {"fri\u0435ndly": 1}),
    _asks("combining-name", "one name in two spellings", "bad-name", {"friendl\u0079\u0301": 1}),
    _asks("case-twin-name", "a second friendly", "bad-name", {"Friendly": 1}),
    _asks("path-name", "leave the folder", "bad-name", {"../../etc/passwd": 1}),
    _asks("invisible-name", "a name with a zero-width space", "bad-name", {"friend\u200bly": 1}),
    _asks("right-to-left-in-name", "show another name than it is", "bad-name", {"\u202efriendly": 1}),
    _asks("number-as-name", "an attribute of a number", "bad-name", {1: 1}),
    _asks("name-of-ten-megabytes", "ten megabytes in an error message", "bad-name", lambda: {"a" * 10_000_000: 1}),
    _asks("same-name-twice", "one of them is checked", "duplicate-name", "friendly=0.1,friendly=1"),
    _asks("same-name-in-two-texts", "one of them is checked", "duplicate-name", ["friendly=0.1", "friendly=1"]),
    _asks("no-equals", "half a weight", "bad-weights", "friendly"),
    _asks("number-for-weights", "an attribute of a number", "bad-weights", 1),
    _asks("deep-list-for-weights", "overflow the stack in a message", "bad-weights", _nested(5_000)),
    _asks("bytes-for-weights", "a sequence of numbers", "bad-weights", b"friendly=1"),
    _asks("ten-megabytes-of-pairs", "split for minutes", "too-many", lambda: "friendly=1," * 900_000),
    _asks("a-hundred-thousand-names", "project for hours", "too-many", lambda: {f"a{n}": 1 for n in range(100_000)}),
    _says("unknown-attribute", "an attribute that nobody checks", "unknown-attribute", is_admin="true"),
    _says("case-twin-attribute", "an adult called Minor", "bad-attribute", audience="Minor"),
    _says("accented-attribute", "an adult called min\u043er", "bad-attribute", audience="min\u043er"),
    _says("spaced-attribute", "an adult called ' minor'", "bad-attribute", audience=" minor"),
    _says("empty-attribute", "an adult called nothing", "bad-attribute", audience=""),
    _says("attribute-line", "a pattern that ends at a line", "bad-attribute", audience="minor\n"),
    _says("attribute-list", "an unhashable value", "bad-attribute", audience=["minor"]),
    _says("attribute-none", "count as not said", "bad-attribute", audience=None),
    _says("attribute-of-ten-megabytes", "fill the log", "bad-attribute", audience="a" * 10_000_000),
    _types_into_a_clamp("attribute-sources", "count as the source of weights", "unknown-attribute", "sources=explicit"),
    _types_into_a_clamp("attribute-self", "an error nobody thought of", "unknown-attribute", "self=x"),
    _types("attribute-twice", "one of them is checked", "duplicate-attribute", "audience=minor", "audience=adult"),
    _types("attribute-without-value", "half an attribute", "bad-attribute", "audience"),
)

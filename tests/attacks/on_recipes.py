"""Attacks through a recipe that somebody sent."""

from collections.abc import Callable
from pathlib import Path

from soupmix.errors import RecipeError
from soupmix.merge import read_recipe
from tests.attacks.attack import Attack

__all__ = ["ATTACKS"]

_MERGEKIT = "merge_method: ties\nbase_model: b\nmodels:\n- {model: b+friendly, parameters: {weight: 1}}\n"


def _is(name: str, tries: str, reason: str, text: str | bytes | Callable[[], str]) -> Attack:
    def run(where: Path) -> None:
        made = text() if callable(text) else text
        (where / "recipe.yaml").write_bytes(made if isinstance(made, bytes) else made.encode())
        read_recipe(where / "recipe.yaml")

    return Attack(name, tries, run, RecipeError, reason)


def _weight(name: str, tries: str, number: str) -> Attack:
    return _is(name, tries, "bad-recipe", f"weights: {{friendly: {number}}}")


def _more(name: str, tries: str, more: str) -> Attack:
    return _is(name, tries, "bad-recipe", f"weights: {{friendly: 0.5}}\n{more}")


def _folder(where: Path) -> None:
    (where / "recipe.yaml").mkdir()
    read_recipe(where / "recipe.yaml")


ATTACKS = (
    _is("recipe-laughs", "a kilobyte that becomes a gigabyte", "bad-yaml", "a: &a [1]\nb: &b [*a, *a]\nc: [*b, *b]"),
    _is("recipe-anchor", "a value that is used again", "bad-yaml", "weights: &w {friendly: 1}"),
    _is("recipe-object", "construct an object of Python", "bad-yaml", "weights: !!python/name:os.system"),
    _is("recipe-set", "a type nobody expects", "bad-yaml", "weights: !!set {friendly}"),
    _is("recipe-tagged-number", "a number past the grammar", "bad-yaml", "weights: {friendly: !!int '1_0'}"),
    _is("recipe-duplicate", "one of them is checked", "bad-yaml", "weights: {friendly: 0.1, friendly: 1}"),
    _is(
        "recipe-merge-key",
        "a weight past the check for duplicates",
        "bad-recipe",
        "weights: {<<: {friendly: 1}, friendly: 0.1}",
    ),
    _is("recipe-deep", "overflow the stack", "bad-yaml", "[" * 500_000),
    _is("recipe-of-lists", "a megabyte that becomes a gigabyte", "bad-yaml", "[" + "[]," * 340_000 + "]"),
    _is("recipe-over-a-megabyte", "parse for minutes", "bad-recipe", "# " + "x" * (1 << 20)),
    _is("recipe-not-utf-8", "a decoder's error", "bad-yaml", b"weights: {\xff: 1}"),
    _is("recipe-nul", "end a C string early", "bad-yaml", "weights: {friendly: 1}\0"),
    _is(
        "recipe-two-documents",
        "the second one is obeyed",
        "bad-yaml",
        "weights: {friendly: 0.1}\n---\nweights: {friendly: 1}",
    ),
    _is("recipe-empty", "an attribute of nothing", "bad-recipe", ""),
    _is("recipe-as-list", "an attribute of a list", "bad-recipe", "- weights"),
    _is("recipe-key-as-object", "an unhashable key", "bad-yaml", "? {a: 1}\n: 2"),
    _is("recipe-without-weights", "a default taste", "bad-recipe", "method: delta"),
    _weight("recipe-nan", "pass every comparison", ".nan"),
    _weight("recipe-infinity", "outweigh everything", ".inf"),
    _weight("recipe-overflow", "infinity by overflow", "1.0e999"),
    _weight("recipe-underscore", "YAML's 1_0 is 10", "1_0"),
    _weight("recipe-hexadecimal", "YAML's 0x10 is 16", "0x10"),
    _weight("recipe-binary", "YAML's 0b11 is 3", "0b11"),
    _weight("recipe-clock", "YAML's 1:30 is 90", "1:30"),
    _weight("recipe-yes", "YAML's yes is true", "yes"),
    _weight("recipe-true", "true is 1", "true"),
    _weight("recipe-date", "YAML's dates", "2026-01-01"),
    _weight("recipe-full-width", "a digit that float() takes", "\uff11"),
    _weight("recipe-list", "a number inside a list", "[1]"),
    _weight("recipe-beyond-a-thousand", "a weight of a thousand and one", "1001"),
    _is("recipe-name-twin", "look like a name it is not", "bad-recipe", "weights: {fri\u0435ndly: 1}"),
    _is("recipe-path-name", "leave the folder", "bad-recipe", "weights: {../../x: 1}"),
    _is("recipe-key-of-a-megabyte", "a megabyte in an error message", "bad-recipe", lambda: f"? {'x' * 900_000}\n: 1"),
    _more("recipe-unknown-key", "an instruction that is skipped", "trusted: true"),
    _more("recipe-other-method", "an import by name", "method: os.system"),
    _more("recipe-other-kind", "a writer by name", "as: pickle"),
    _more("recipe-other-dtype", "round everything away", "dtype: int2"),
    _more("recipe-rank-zero", "an adapter of nothing", "rank: 0"),
    _more("recipe-rank-true", "true is 1", "rank: true"),
    _more("recipe-rank-text", "a text past the check for numbers", "rank: '8'"),
    _more("recipe-rank-octal", "YAML's 010 is 8", "rank: 010"),
    _more("recipe-shards-of-zero", "files without end", "as: model\nshard_size: 0"),
    _more("recipe-path-with-nul", "end a C string early", 'store: "adapters\\0.txt"'),
    _more("recipe-path-with-lines", "forge a line of a log", 'policies: ["law.yaml\\nsoupmix: all is well"]'),
    _more("recipe-path-surrogate", "an encoder's error", 'base: "\\uD800"'),
    _more("recipe-policies-as-text", "a list of letters", "policies: law.yaml"),
    _more("recipe-attribute-number", "a value past the check for text", "attributes: {audience: 1}"),
    _more("recipe-option-of-another", "an option that is skipped", "options: {density: 0.5}"),
    _more("recipe-option-nan", "pass every comparison", "method: ties\noptions: {density: .nan}"),
    _more("recipe-option-true", "true is 1", "method: ties\noptions: {density: true}"),
    _more("recipe-seed-beyond", "a seed that wraps around", "method: dare_ties\noptions: {seed: 99999999999999999999}"),
    _more("recipe-layers-above-one", "a weight above the granted one", "options: {layers: {friendly: [{value: 2}]}}"),
    _more("recipe-layers-below-nothing", "an adapter turned round", "options: {layers: {friendly: [{value: -1}]}}"),
    _is(
        "recipe-of-layers-without-end",
        "hours over rules",
        "bad-recipe",
        lambda: f"weights: {{a: 1}}\noptions: {{layers: {{a: [{', '.join(['{value: 1}'] * 9000)}]}}}}",
    ),
    _is("mergekit-other-field", "a field that is skipped", "bad-recipe", f"{_MERGEKIT}slices: []\n"),
    _is("mergekit-negative", "an adapter turned round", "bad-recipe", _MERGEKIT.replace("weight: 1", "weight: -1")),
    _is("mergekit-path", "load an adapter from a path", "bad-recipe", _MERGEKIT.replace("+friendly", "+../../x/..")),
    _is("mergekit-two-bases", "an adapter on another base", "bad-recipe", _MERGEKIT.replace("b+", "c+")),
    _is("lora-and-weights", "one of them is checked", "bad-recipe", "weights: {a: 0.1}\nlora: [{id: a, scale: 1}]"),
    _is("lora-twice", "one of them is checked", "bad-recipe", "lora: [{id: a, scale: 0.1}, {id: a, scale: 1}]"),
    Attack("folder-as-recipe", "an error nobody thought of", _folder, RecipeError, "unreadable"),
)

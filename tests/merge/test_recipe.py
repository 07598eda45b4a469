"""Recipes: what they mean, and one sentence for what they cannot mean."""

from pathlib import Path

import pytest

from soupmix.errors import RecipeError
from soupmix.merge.recipe import Recipe, read_recipe, with_options
from soupmix.weights import Weights

FULL = """
base: org/name@main
store: shelf
weights: {elementary: 0.9, friendly: '0.3', expert: 0}
policies: [eu.yaml, ../acme.yaml]
attributes: {audience: minor}
method: factor
as: model
dtype: bf16
shard_size: 1000
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "soup.yaml"
    path.write_text(text)
    return path


def test_everything_is_read_and_paths_are_relative_to_the_recipe(tmp_path: Path) -> None:
    recipe = read_recipe(written(tmp_path, FULL))
    assert recipe.base == "org/name@main"
    assert recipe.store == str(tmp_path / "shelf")
    assert recipe.weights == Weights("elementary=0.9,friendly=0.3,expert=0")
    assert recipe.policies == (str(tmp_path / "eu.yaml"), str(tmp_path / "../acme.yaml"))
    assert recipe.attributes == {"audience": "minor"}
    assert (recipe.method, recipe.kind, recipe.dtype, recipe.shard_size) == ("factor", "model", "bf16", 1000)


def test_the_defaults_are_an_exact_adapter_from_the_shipped_store(tmp_path: Path) -> None:
    assert read_recipe(written(tmp_path, "weights: {friendly: 0.5}")) == Recipe(weights=Weights("friendly=0.5"))


@pytest.mark.parametrize(("value", "path"), [("mine", True), ("./gone", True), ("x.gguf", True), ("smollm2", False)])
def test_a_base_is_a_path_if_something_is_there_or_it_looks_like_one(tmp_path: Path, value: str, path: bool) -> None:
    (tmp_path / "mine").mkdir()
    recipe = read_recipe(written(tmp_path, f"weights: {{a: 1}}\nbase: {value}"))
    assert recipe.base == (str(tmp_path / value) if path else value)


@pytest.mark.parametrize(
    ("text", "reason", "told"),
    [
        (
            "weights: {a: 1}\nrecord: {inputs: [policy]}",
            "bad-recipe",
            "record.inputs: must be an object",
        ),
        ("weights: {a: 1}\nrecord: {policies: [law.yaml]}", "bad-recipe", "record.policies.0"),
        ("weights: {a: 1}\nmetod: delta", "bad-recipe", "metod: unknown key; a recipe has base, store, weights"),
        ("weights: {a: 1}\nmethod: tise", "bad-recipe", "did you mean 'ties'?"),
        ("weights: {a: 1}\noptions: {density: .5}", "bad-recipe", "method delta has no option 'density'"),
        ("weights: {a: 1}\nmethod: ties\noptions: {densty: .5}", "bad-recipe", "did you mean density? it has"),
        (
            "weights: {a: 1}\nmethod: ties\noptions: {density: true}",
            "bad-recipe",
            "density is a number above 0 and up to 1",
        ),
        (
            "weights: {a: 1}\nmethod: ties\noptions: {density: 0}",
            "bad-recipe",
            "density is a number above 0 and up to 1",
        ),
        ("weights: {a: 1}\nmethod: ties\noptions: {density: .nan}", "bad-recipe", "density is a number above 0"),
        ("weights: {a: 1}\nmethod: ties\noptions: {density: null}", "bad-recipe", "density is a number above 0"),
        ("weights: {a: 1}\nmethod: ties\noptions: {normalize: 1}", "bad-recipe", "normalize is true or false"),
        ("weights: {a: 1}\nmethod: dare_ties\noptions: {seed: 1.0}", "bad-recipe", "seed is a whole number"),
        (
            "weights: {a: 1}\nmethod: dare_ties\noptions: {rescale: no}",
            "bad-recipe",
            "rescale is one of probability, l1",
        ),
        ("weights: {a: 1}\noptions: {layers: {a: 1}}", "bad-recipe", "layers is a mapping from adapters"),
        ("weights: {a: 1}\noptions: {layers: {a: [{value: 2}]}}", "bad-recipe", "parts of a weight, from 0 to 1"),
        ("weights: {a: 1}\noptions: {layers: {a: [{value: []}]}}", "bad-recipe", "from 1 to 1024 values"),
        ("weights: {a: 1}\noptions: {layers: {a: [{filter: mlp}]}}", "bad-recipe", "has a value and"),
        ("weights: {a: 1}\noptions: {layers: {a: [{filter: 3, value: 1}]}}", "bad-recipe", "part of a module's path"),
        (
            "weights: {a: 1}\noptions: {layers: {a: [{filter: '![x](https://x.example)', value: 1}]}}",
            "bad-recipe",
            "part of a module's path",
        ),
        ("weights: {a: 1}\noptions: 3", "bad-recipe", "options: "),
        (
            "weights: {a: 1}\nmode: answer",
            "bad-recipe",
            "mode 'answer' cannot be merged: weights that are merged act on",
        ),
        ("weights: {a: 1}\nmode: null", "bad-recipe", "mode None cannot be merged"),
        ("weights: {a: 1}\nas: lora", "bad-recipe", "as: "),
        ("weights: {a: 1}\nrank: 0", "bad-recipe", "rank: "),
        ("weights: {a: 1}\nrank: true", "bad-recipe", "rank: "),
        ("weights: {a: 1}\nrank: 1.0", "bad-recipe", "rank: "),
        ("weights: {a: 1}\ndtype: int8", "bad-recipe", "dtype: "),
        ("weights: {a: 1}\nas: model\nrank: 3", "bad-recipe", "rank is for an adapter"),
        ("weights: {a: 1}\nshard_size: 3", "bad-recipe", "shard_size is for a model"),
        ("weights: {a: .nan}", "bad-recipe", "weights: weight 'a' = '.nan'"),
        ("weights: {a: .inf}", "bad-recipe", "weights: weight 'a' = '.inf'"),
        ("weights: {a: 1e999}", "bad-recipe", "weights: weight 'a'"),
        ("weights: {a: yes}", "bad-recipe", "weights: weight 'a'"),
        ("weights: {A: 1}", "bad-recipe", "weights: 'A' is not a name"),
        ("weights: 3", "bad-recipe", "weights: "),
        ("method: delta", "bad-recipe", "weights: is missing"),
        ("policies: acme.yaml\nweights: {a: 1}", "bad-recipe", "policies: "),
        ("attributes: {audience: 3}\nweights: {a: 1}", "bad-recipe", "attributes.audience: "),
        ("weights: {a: 1, a: 2}", "bad-yaml", "given twice"),
        ("a: &x [1]\nb: *x", "bad-yaml", "aliases are not allowed"),
        ("weights: {a: 1", "bad-yaml", "not YAML"),
        ("weights: !!python/object:os.system {}", "bad-yaml", "not YAML"),
        ("{[a]: 1}", "bad-yaml", "not YAML"),
        ("? {a: 1}\n: 2", "bad-yaml", "not YAML"),
        ("- 1", "bad-recipe", "must be a mapping"),
        ("", "bad-recipe", "must be a mapping"),
        ("[" * 5000, "bad-yaml", "not YAML"),
        ("#" * (1 << 20) + "\nweights: {a: 1}", "bad-recipe", "larger than"),
    ],
)
def test_nonsense_is_one_sentence_that_names_file_and_place(tmp_path: Path, text: str, reason: str, told: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(RecipeError) as caught:
        read_recipe(path)
    assert caught.value.reason == reason
    assert str(path) in str(caught.value)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text_are_not_yaml(tmp_path: Path) -> None:
    (tmp_path / "soup.yaml").write_bytes(b"\xff\xfe\x00\xd8 \x80")
    with pytest.raises(RecipeError) as caught:
        read_recipe(tmp_path / "soup.yaml")
    assert caught.value.reason in ("bad-yaml", "bad-recipe")


def test_a_recipe_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="cannot be read") as caught:
        read_recipe(tmp_path / "gone.yaml")
    assert caught.value.reason == "unreadable"


def test_options_replace_but_policies_are_only_added(tmp_path: Path) -> None:
    recipe = read_recipe(written(tmp_path, FULL))
    options = {
        "weights": Weights("expert=1"),
        "policies": ("mine.yaml",),
        "attributes": {"purpose": "school"},
        "method": None,
        "dtype": "fp16",
    }
    changed = with_options(recipe, options)
    assert changed.weights == Weights("expert=1")
    assert changed.policies == (*recipe.policies, "mine.yaml")
    assert changed.attributes == {"audience": "minor", "purpose": "school"}
    assert (changed.method, changed.dtype, changed.kind) == ("factor", "fp16", "model")
    assert with_options(recipe, {"kind": "adapter"}).shard_size is None


def test_parts_of_layers_are_kept_when_another_method_is_asked_for(tmp_path: Path) -> None:
    text = "weights: {expert: 1}\nmethod: ties\noptions: {density: 0.25, layers: {'*': [{filter: mlp, value: 0.5}]}}\n"
    recipe = read_recipe(written(tmp_path, text))
    other = with_options(recipe, {"method": "svd"})
    assert other.options["layers"] == recipe.options["layers"]
    assert "density" not in other.options
    assert with_options(recipe, {"method": "ties"}).options["density"] == 0.25


def test_options_alone_are_a_recipe() -> None:
    assert with_options(None, {"weights": Weights("a=1"), "policies": ()}) == Recipe(weights=Weights("a=1"))
    with pytest.raises(RecipeError, match="command line, weights: is missing"):
        with_options(None, {"weights": None})

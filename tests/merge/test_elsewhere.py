"""Recipes of others: what they mean here, and one sentence that names the field for what is not honoured."""

from pathlib import Path

import pytest

from soupmix.errors import RecipeError
from soupmix.merge.recipe import Recipe, read_recipe
from soupmix.methods import DEFAULT, METHODS
from soupmix.weights import Weights

TIES = """
merge_method: ties
base_model: org/base
models:
  - {model: org/base}
  - {model: org/base+org/friendly, parameters: {weight: 0.6, density: 0.3}}
  - {model: org/base+./concise/, parameters: {weight: 0.2}}
parameters: {density: 0.3, lambda: 0.5, int8_mask: true}
dtype: bfloat16
out_dtype: float32
tokenizer_source: base
"""


def read(folder: Path, text: str) -> Recipe:
    (folder / "merge.yaml").write_text(text)
    return read_recipe(folder / "merge.yaml")


def of(kind: str, friendly: str, concise: str = "{weight: 0.2}", rest: str = "") -> str:
    models = f"[{{model: b+friendly, parameters: {friendly}}}, {{model: b+concise, parameters: {concise}}}]"
    base = "" if kind == "linear" else "base_model: b\n"
    return f"merge_method: {kind}\n{base}models: {models}\n{rest}\n"


def test_a_recipe_of_mergekit_is_read(tmp_path: Path) -> None:
    recipe = read(tmp_path, TIES)
    assert recipe.weights == Weights("friendly=0.375,concise=0.125"), "normalised, and times lambda"
    assert (recipe.base, recipe.method, recipe.kind, recipe.dtype) == ("org/base", "ties", "model", "fp32")
    assert recipe.options == {"density": 0.3, "normalize": True}


@pytest.mark.parametrize(
    ("text", "method", "weights", "options"),
    [
        (of("task_arithmetic", "{weight: 1}"), DEFAULT, "friendly=1,concise=0.2", {}),
        (of("linear", "{weight: 1}", "{weight: 3}"), DEFAULT, "friendly=0.25,concise=0.75", {}),
        (of("linear", "{weight: .5}", "{weight: .5}", "parameters: {normalize: false}"), DEFAULT, "friendly=0.5,concise=0.5", {}),
        (of("dare_linear", "{weight: 1, density: .5}", "{weight: .5, density: .5}"), "dare_linear", "friendly=1,concise=0.5",
         {"density": 0.5, "rescale": "l1"}),
        (of("della_linear", "{weight: 1}", rest="parameters: {density: .4, rescale: false}"), "della_linear",
         "friendly=1,concise=0.2", {"density": 0.4, "epsilon": 0.15, "rescale": "none"}),
        (of("della", "{weight: 1}", rest="parameters: {normalize: false}"), "della", "friendly=1,concise=0.2",
         {"density": 1.0, "epsilon": 0.0, "rescale": "l1", "normalize": False}),
        (of("breadcrumbs", "{weight: 1}"), "breadcrumbs", "friendly=1,concise=0.2", {"density": 1.0, "gamma": 0.0}),
        (of("dare_ties", "{weight: 1}", rest="parameters: null"), "dare_ties", "friendly=1,concise=0.2",
         {"density": 1.0, "rescale": "l1", "normalize": False}),
        (of("task_arithmetic", "{weight: [0, 0.8]}"), DEFAULT, "friendly=0.8,concise=0.2",
         {"layers": {"friendly": [{"filter": "", "value": [0.0, 1.0]}]}}),
        (of("task_arithmetic", "{weight: [{filter: mlp.up_proj.weight, value: .4}, {value: .8}]}"), DEFAULT,
         "friendly=0.8,concise=0.2",
         {"layers": {"friendly": [{"filter": "mlp.up_proj", "value": 0.5}, {"filter": "", "value": 1.0}]}}),
    ],
)  # fmt: skip
def test_methods_and_defaults_are_those_of_mergekit(
    tmp_path: Path, text: str, method: str, weights: str, options: dict[str, object]
) -> None:
    recipe = read(tmp_path, text)
    assert (recipe.method, recipe.weights, recipe.options) == (method, Weights(weights), options)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (of("slerp", "{weight: 1}"), "merge_method: 'slerp' is not honoured; soupmix reads task_arithmetic, linear, ties"),
        (of("null", "{weight: 1}"), "merge_method: None is not honoured"),
        (of("[ties]", "{weight: 1}"), "merge_method: ['ties'] is not honoured"),
        (of("ties", "{weight: 1}", rest="slices: []"), "slices: is not honoured"),
        (of("ties", "{weight: 1}", rest="chat_template: auto"), "chat_template: is not honoured"),
        (of("ties", "{weight: 1}", rest="tokenizer_source: union"), "tokenizer_source: is not honoured"),
        (of("ties", "{weight: 1}", rest="dtype: int8"), "dtype: 'int8' is not honoured"),
        (of("ties", "{weight: 1}", rest="parameters: {rescale: true}"), "parameters.rescale: is not honoured for ties"),
        (of("ties", "{weight: 1}", rest="parameters: {normalize: 1}"), "parameters.normalize: is true or false"),
        (of("ties", "{weight: 1}", rest="parameters: 3"), "parameters: is a mapping"),
        (of("ties", "{weight: 1}", rest="parameters: {t: 1}"), "models.0.parameters.t: is not honoured"),
        (of("ties", "{weight: 1}", rest="parameters: {lambda: [1, 2]}"), "parameters.lambda: is one number"),
        (of("ties", "{weight: 1, density: .2}"), "models.1.parameters.density: is honoured where it is the same"),
        (of("ties", "{weight: 1, density: [.1, .2]}"), "models.0.parameters.density: is honoured where it is one number"),
        (of("ties", "{weight: 1, gamma: .2}"), "models.0.parameters.gamma: is not honoured; soupmix reads density, weight"),
        (of("ties", "{weight: [0, 1]}"), "parameters.normalize: is honoured where weights are the same"),
        (of("ties", "{density: 1}"), "models.0.parameters.weight: is missing"),
        (of("ties", "null"), "models.0.parameters.weight: is missing"),
        (of("ties", "{weight: -1}"), "models.0.parameters.weight: -1 is not honoured"),
        (of("ties", "{weight: .nan}"), "models.0.parameters.weight: '.nan' is not honoured"),
        (of("ties", "{weight: true}"), "models.0.parameters.weight: True is not honoured"),
        (of("ties", "{weight: []}"), "models.0.parameters.weight: is empty"),
        (of("ties", "{weight: [{filter: mlp, value: 1}]}"), "says nothing of modules that no filter finds"),
        (of("ties", "{weight: [{filter: 3, value: 1}]}"), "models.0.parameters.weight.0.filter: is a part of a name"),
        (of("ties", "{weight: 0}", "{weight: 0}"), "parameters.normalize: is honoured where weights are"),
        (of("linear", "{weight: .5}", rest="parameters: {normalize: false}"), "do not sum to 1 scale the base"),
        (TIES.replace("+./concise/", "+org/friendly@main"), "models.2.model: a revision of an adapter is not honoured"),
        (TIES.replace("+./concise/", "+other/friendly"), "models.1.model: names an adapter, or the bare base, that another"),
        (TIES.replace("org/base+./", "org/other+./"), "models.2.model: is of the base 'org/other'"),
        (TIES.replace("{model: org/base}", "{model: org/base, parameters: {weight: 1}}"), "models.0.parameters.weight: of the"),
        (TIES.replace("{model: org/base}", "{model: {model: org/base}}"), "models.0.model: is text such as base+adapter"),
        (TIES.replace("{model: org/base}", "{mdl: 1}"), "models.0: is a mapping of model and parameters"),
        (of("linear", "{weight: 1}", rest="base_model: b"), "base_model: of linear is weighed as a source"),
        (of("linear", "{weight: 1}").replace("models: [", "models: [{model: b}, "), "models.0.parameters.weight: is missing"),
        ("merge_method: ties\nmodels: {}", "models: is a list of base+lora sources"),
        ("merge_method: ties\nbase_model: 3\nmodels: [{model: b}]", "models.0.model: is of the base 'b'"),
    ],
)  # fmt: skip
def test_what_is_not_honoured_is_named(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(RecipeError) as caught:
        read(tmp_path, text)
    assert caught.value.reason == "bad-recipe"
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_spelling_is_of_one_method() -> None:
    spellings = [spelling for method in METHODS.values() for spelling in method.spellings]
    assert len({*spellings}) == len(spellings)


def test_a_list_of_adapters_with_scales_is_another_spelling_of_weights(tmp_path: Path) -> None:
    recipe = read(tmp_path, "lora: [{id: friendly, scale: 0.5}, {id: concise, scale: 0.25}]")
    assert recipe == Recipe(weights=Weights("friendly=0.5,concise=0.25"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("lora: [{id: a, scale: 1}, {id: a, scale: 1}]", "names every adapter once"),
        ("lora: [{id: 0, scale: 1}]", "names every adapter once"),
        ("lora: [{id: a}]", "is a list of adapters with scales"),
        ("lora: null", "is a list of adapters with scales"),
        ("lora: [{id: a, scale: 1, task: x}]", "is a list of adapters with scales"),
        ("lora: [{id: a, scale: 1}]\nweights: {a: 1}", "two spellings of one thing"),
        ("lora: [{id: a, scale: .nan}]", "weight 'a' = '.nan'"),
        ("lora: [{id: a, scale: null}]", "weight 'a'"),
    ],
)  # fmt: skip
def test_what_is_no_such_list_is_one_sentence(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(RecipeError) as caught:
        read(tmp_path, text)
    assert caught.value.reason == "bad-recipe"
    assert told in str(caught.value)


def test_linear_weighs_the_bare_base_too(tmp_path: Path) -> None:
    text = of("linear", "{weight: 1}", "{weight: 1}").replace(
        "models: [", "models: [{model: b, parameters: {weight: 2}}, "
    )
    assert read(tmp_path, text).weights == Weights("friendly=0.25,concise=0.25")
    text = of("linear", "null", "null", "parameters: {weight: 1}").replace("models: [", "models: [{model: b}, ")
    assert read(tmp_path, text).weights == Weights("friendly=0.333333,concise=0.333333")

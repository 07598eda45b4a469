"""Recipes as others write them: mergekit's YAML over `base+lora` sources, and lists of adapters with scales.

What such a recipe says is either honoured or an error that names the field. Adapters are those of the store by the last part of
what the recipe calls them: they are found there by digest and never loaded from a path or a hub.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from soupmix.dtypes import TORCH, WORDS
from soupmix.methods import METHODS, Method, one_of
from soupmix.options import LAYERS, number

__all__ = ["Unmet", "is_mergekit", "plain_weights", "translated"]

_KIND: Final = "merge_method"
_TOP: Final = (_KIND, "base_model", "models", "parameters", "dtype", "out_dtype", "tokenizer_source")
_OF_ALL: Final = ("normalize", "lambda", "rescale", "int8_mask")
_LINEAR: Final = "linear"
_DEFAULTS: Final[Mapping[str, Any]] = {"density": 1.0, "epsilon": 0.15, "gamma": 0.01}

Rules = Sequence[Mapping[str, Any]]


class Unmet(ValueError):
    """A field that is not honoured: where it stands, and why not."""

    def __init__(self, place: str, why: str) -> None:
        super().__init__(f"{place}: {why}" if place else why)


def is_mergekit(content: Mapping[str, Any]) -> bool:
    """Whether a recipe is written as mergekit has it."""
    return _KIND in content


def plain_weights(value: Any) -> Any:
    """Weights from `[{id: friendly, scale: 0.5}, ...]`, as requests for adapters elsewhere have it.

    Raises:
        ValueError: it is no such list, or names an adapter twice.
    """
    if not isinstance(value, list) or not all(
        isinstance(each, Mapping) and set(each) == {"id", "scale"} for each in value
    ):
        raise ValueError("lora is a list of adapters with scales, such as [{id: friendly, scale: 0.5}]")
    names = [each["id"] for each in value]
    if not all(isinstance(name, str) for name in names) or len({*names}) < len(names):
        raise ValueError("lora names every adapter once, by its name in the store")
    return {each["id"]: each["scale"] for each in value}


@dataclass(frozen=True, slots=True)
class _Source:
    """One model of a recipe: its place there, its adapter (None is the bare base), and what is said of it."""

    place: str
    adapter: str | None
    parameters: Mapping[str, Any]


def translated(content: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a recipe that says the same.

    Raises:
        Unmet: something in it is not honoured.
    """
    for name in content:
        if name not in _TOP:
            raise Unmet(str(name), f"is not honoured; of mergekit's recipes soupmix reads {', '.join(_TOP)}")
    method = _method(content[_KIND])
    shared = _mapping("parameters", content.get("parameters"))
    base, sources = _sources(content, shared)
    weighed = {source.place: _weight(source, method) for source in sources}
    factor = _factor(content[_KIND], method, shared, [weighed[each.place] for each in sources])
    adapted = [source for source in sources if source.adapter is not None]
    _check_base(content[_KIND], sources, weighed, factor)
    rules = {str(each.adapter): found for each in adapted if (found := weighed[each.place][1])}
    return {
        "base": base,
        "weights": {str(each.adapter): round(weighed[each.place][0] * factor, 6) for each in adapted},
        "method": method.name,
        "options": _options(content[_KIND], method, shared, adapted) | ({LAYERS: rules} if rules else {}),
        "as": "model",
        **_dtype(content),
    }


def _mapping(place: str, value: Any) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise Unmet(place, "is a mapping")
    return value


def _method(name: Any) -> Method:
    found = next((each for each in METHODS.values() if isinstance(name, str) and name in each.spellings), None)
    if found is None:
        known = one_of(spelling for each in METHODS.values() for spelling in each.spellings)
        raise Unmet(_KIND, f"{name!r:.80} is not honoured; soupmix reads {known}")
    return found


def _sources(content: Mapping[str, Any], shared: Mapping[str, Any]) -> tuple[str, list[_Source]]:
    models = content.get("models")
    if not isinstance(models, list) or not models:
        raise Unmet("models", "is a list of base+lora sources")
    base, found = content.get("base_model"), []
    for at, model in enumerate(models):
        place = f"models.{at}"
        if not isinstance(model, Mapping) or not {"model"} <= set(model) <= {"model", "parameters"}:
            raise Unmet(place, "is a mapping of model and parameters")
        mine, adapter = _parsed(f"{place}.model", model["model"])
        base = mine if base is None else base
        if mine != base:
            raise Unmet(
                f"{place}.model",
                f"is of the base {mine!r:.80}, and the others are of {base!r:.80}: a soup has one base",
            )
        said = _mapping(f"{place}.parameters", model.get("parameters"))
        found.append(_Source(place, adapter, {**_own(shared, content[_KIND], adapter), **said}))
    if not isinstance(base, str):
        raise Unmet("base_model", "is the name of a model")
    names = [each.adapter for each in found]
    if content[_KIND] == _LINEAR and content.get("base_model") is not None and None not in names:
        raise Unmet(
            "base_model", "of linear is weighed as a source: list it among the models with a weight, or leave it out"
        )
    for each in found:
        if names.count(each.adapter) > 1:
            raise Unmet(f"{each.place}.model", "names an adapter, or the bare base, that another source names too")
    return base, found


def _own(shared: Mapping[str, Any], kind: str, adapter: str | None) -> dict[str, Any]:
    """What is said of all sources, of one; of the bare base `linear` alone wants a weight."""
    found = {name: value for name, value in shared.items() if name not in _OF_ALL}
    if adapter is not None:
        return found
    return {"weight": found["weight"]} if kind == _LINEAR and "weight" in found else {}


def _parsed(place: str, text: Any) -> tuple[str, str | None]:
    """Base and name of the adapter of "base+lora"."""
    if not isinstance(text, str) or not text.isprintable():
        raise Unmet(place, "is text such as base+adapter")
    base, plus, lora = text.partition("+")
    if not plus:
        return base, None
    if "@" in lora or "+" in lora:
        raise Unmet(place, "a revision of an adapter is not honoured; the store finds adapters by digest")
    return base, lora.rstrip("/").rpartition("/")[2]


def _weight(source: _Source, method: Method) -> tuple[float, Rules]:
    """The weight of a source, and which part of it modules have where that is not the same everywhere."""
    known = {"weight", *(option.name for option in method.options if option.name in _DEFAULTS)}
    for name in source.parameters:
        if source.adapter is None and name != "weight":
            raise Unmet(f"{source.place}.parameters.{name}", "of the bare base is not honoured")
        if name not in known:
            raise Unmet(
                f"{source.place}.parameters.{name}", f"is not honoured; soupmix reads {', '.join(sorted(known))}"
            )
    place, value = f"{source.place}.parameters.weight", source.parameters.get("weight")
    if value is None:
        if source.adapter is None:
            return 0.0, ()
        raise Unmet(place, "is missing")
    rules = _rules(place, value)
    most = max(number for rule in rules for number in rule["value"])
    if all(number == most for rule in rules for number in rule["value"]):
        return most, ()
    parts = [{"filter": r["filter"], "value": [x / most for x in r["value"]]} for r in rules]
    return most, [{**r, "value": r["value"] if len(r["value"]) > 1 else r["value"][0]} for r in parts]


def _rules(place: str, value: Any) -> list[dict[str, Any]]:
    """A parameter of any form as rules of values; the last is for all modules."""
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, list) or not any(isinstance(each, Mapping) for each in value):
        return [{"filter": "", "value": _numbers(place, value)}]
    found = []
    for at, each in enumerate(value):
        if not isinstance(each, Mapping) or not {"value"} <= set(each) <= {"filter", "value"}:
            raise Unmet(f"{place}.{at}", "is a mapping of filter and value")
        text = each.get("filter")
        if text is not None and not isinstance(text, str):
            raise Unmet(f"{place}.{at}.filter", "is a part of a name")
        text = "" if text in (None, "*") else text.removesuffix(".weight")
        found.append({"filter": text, "value": _numbers(f"{place}.{at}.value", each["value"])})
    if found[-1]["filter"]:
        raise Unmet(place, "says nothing of modules that no filter finds; end it with a value without a filter")
    return found


def _numbers(place: str, value: Any) -> list[float]:
    said = value if isinstance(value, list) else [value]
    found = [number(each) for each in said]
    for each, read in zip(said, found, strict=True):
        if read is None or read < 0:
            raise Unmet(place, f"{each!r:.80} is not honoured; weights of soups are numbers of 0 or more")
    if not found:
        raise Unmet(place, "is empty")
    return [read for read in found if read is not None]


def _factor(kind: str, method: Method, shared: Mapping[str, Any], weighed: Sequence[tuple[float, Rules]]) -> float:
    """By what the weights are multiplied: lambda, over their sum where they are normalised."""
    scale = shared.get("lambda")
    (times,) = _numbers("parameters.lambda", 1.0 if scale is None else scale)[:1]
    if isinstance(scale, list):
        raise Unmet("parameters.lambda", "is one number")
    if not _flag(shared, "normalize", method.spellings[kind]):
        return times
    total = math.fsum(weight for weight, _ in weighed)
    if total == 0.0 or any(rules for _, rules in weighed):
        raise Unmet(
            "parameters.normalize",
            "is honoured where weights are the same in all modules and not all 0; set it to false",
        )
    return times / total


def _check_base(
    kind: str, sources: Sequence[_Source], weighed: Mapping[str, tuple[float, Rules]], factor: float
) -> None:
    """`linear` weighs the base as well: whole models of weights that do not sum to 1 scale it, which no soup does."""
    without = [each.place for each in sources if each.adapter is None and "weight" not in each.parameters]
    if kind == _LINEAR and without:
        raise Unmet(f"{without[0]}.parameters.weight", "is missing")
    total = math.fsum(weighed[each.place][0] for each in sources) * factor
    varied = any(weighed[each.place][1] for each in sources)
    if kind == _LINEAR and (varied or not math.isclose(total, 1.0, abs_tol=1e-6)):
        raise Unmet(
            "parameters.normalize", "weights of linear that do not sum to 1 scale the base; leave normalize true"
        )
    bare = [each for each in sources if each.adapter is None and "weight" in each.parameters]
    if bare and kind != _LINEAR:
        raise Unmet(f"{bare[0].place}.parameters.weight", "of the bare base is not honoured; its delta is nothing")


def _flag(shared: Mapping[str, Any], name: str, default: bool) -> bool:
    value = shared.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise Unmet(f"parameters.{name}", "is true or false")
    return value


def _options(kind: str, method: Method, shared: Mapping[str, Any], adapted: Sequence[_Source]) -> dict[str, Any]:
    known = {option.name for option in method.options}
    _flag(shared, "int8_mask", False)
    found: dict[str, Any] = {name: _one(name, adapted) for name in _DEFAULTS if name in known}
    if found.get("density", 0.0) + found.get("gamma", 0.0) > 1.0:
        found["gamma"] = round(1.0 - found["density"], 12)  # as mergekit does
    if found.get("density") == 1.0 and "epsilon" in found:
        found["epsilon"] = 0.0  # mergekit keeps all entries then
    rescaled = _flag(shared, "rescale", "rescale" in known)
    if rescaled and "rescale" not in known:
        raise Unmet("parameters.rescale", f"is not honoured for {kind}")
    if "rescale" in known:
        found["rescale"] = "l1" if rescaled else "none"
    if "normalize" in known:
        found["normalize"] = _flag(shared, "normalize", method.spellings[kind])
    return found


def _one(name: str, adapted: Sequence[_Source]) -> float:
    """An option that all sources have in common."""
    values = {each.place: each.parameters.get(name) for each in adapted}
    found = {place: number(_DEFAULTS[name] if value is None else value) for place, value in values.items()}
    first: float = _DEFAULTS[name]
    for at, (place, value) in enumerate(found.items()):
        if value is None:
            raise Unmet(f"{place}.parameters.{name}", "is honoured where it is one number")
        if at and value != first:
            raise Unmet(f"{place}.parameters.{name}", "is honoured where it is the same for all sources")
        first = value
    return first


def _dtype(content: Mapping[str, Any]) -> dict[str, Any]:
    """mergekit computes in dtype and writes out_dtype, else dtype; a soup is computed in fp32 and rounded once."""
    if content.get("tokenizer_source") not in (None, "base"):
        raise Unmet("tokenizer_source", "is not honoured; a soup has the tokenizer of its base")
    words = {str(TORCH[code]).removeprefix("torch."): word for code, word in WORDS.items()}
    for name in ("dtype", "out_dtype"):
        if content.get(name) is not None and content[name] not in words:
            raise Unmet(name, f"{content[name]!r:.80} is not honoured; soupmix writes {', '.join(words)}")
    said = content.get("out_dtype") or content.get("dtype")
    return {} if said is None else {"dtype": words[said]}

"""A merge as a YAML file.

    base: smollm2-135m-instruct      # a name, a folder, a GGUF file or a hub id
    store: shipped                   # or a folder
    weights: {elementary: 0.9, friendly: 0.3}   # or lora: [{id: elementary, scale: 0.9}, ...]
    policies: [eu.yaml, acme.yaml]   # outer tier first
    attributes: {audience: minor}
    method: delta                    # or another of soupmix.methods
    options: {}                      # of the method, such as density: 0.5
    as: adapter                      # or model, gguf-lora, gguf
    rank: 16                         # of an adapter; left out: exact
    dtype: fp32                      # fp32, fp16, bf16
    dequantise: true                 # of a model, where its base is quantised

Folders and files are relative to the recipe. The recipe that travels inside a result can be read again: its `record`
says what came of it and is not an instruction. Recipes of mergekit are read too, see `soupmix.merge.elsewhere`.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo, model_validator

from soupmix.dtypes import Word, dtype_code
from soupmix.errors import RecipeError, WeightError
from soupmix.fields import in_words
from soupmix.merge.elsewhere import Unmet, is_mergekit, plain_weights, translated
from soupmix.merge.result import ADAPTER_DTYPE, SHARD_SIZE, Export, Kind
from soupmix.methods import DEFAULT, METHODS, one_of, options_of
from soupmix.modes import FULL
from soupmix.options import LAYERS
from soupmix.policy.recorded import RecordedDocument
from soupmix.strict_yaml import PlainLoader, YamlError, read_strict
from soupmix.weights import Weights

__all__ = ["Recipe", "read_recipe", "with_options"]

_MAX_BYTES = 1 << 20


def _weights(value: Any) -> Weights:
    try:
        return Weights(value)
    except WeightError as error:
        raise ValueError(str(error)) from None


def _path(value: Any, info: ValidationInfo) -> Any:
    """A path relative to the recipe; the folder of the recipe is the validation context."""
    if isinstance(value, str) and not value.isprintable():
        raise ValueError(f"{value[:80]!a} has characters that do not print, which no path or name needs")
    folder = (info.context or {}).get("folder")
    return str(folder / value) if isinstance(value, str) and folder is not None else value


def _store(value: Any, info: ValidationInfo) -> Any:
    return value if value == "shipped" else _path(value, info)


def _base(value: Any, info: ValidationInfo) -> Any:
    """A base is a path only if something is there, or if it is spelled like one; else it is a name or a hub id."""
    spelled = isinstance(value, str) and (value.startswith((".", "/")) or value.lower().endswith(".gguf"))
    path = _path(value, info)
    return path if spelled or (isinstance(path, str) and Path(path).exists()) else value


def _method(value: Any) -> Any:
    if not isinstance(value, str) or value not in METHODS:
        near = get_close_matches(str(value), METHODS, n=1)
        guess = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"must be {one_of(map(repr, METHODS))}{guess}")
    return value


class RecipeRecord(BaseModel):
    """What came of a recipe, in the recipe that travels inside a result: what is read of it, and whatever else it says.

    Attributes:
        soupmix: the version that wrote it. identity: the merge identity. inputs: digests, "policy" among them.
        policies: the documents that it was granted under; older records name none. warnings: why it may mean little.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    soupmix: str | None = None
    identity: str | None = None
    inputs: dict[str, str] = {}
    policies: tuple[RecordedDocument, ...] = ()
    warnings: tuple[str, ...] = ()


class Recipe(BaseModel):
    """What to merge, under which policies, and how to write it. Paths are resolved.

    Attributes:
        base: None is the base that the adapters name. sources: where the weights come from, see `Policy.clamp`.
        record: of a recipe found inside a result.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True, populate_by_name=True)

    base: Annotated[str, BeforeValidator(_base)] | None = None
    store: Annotated[str, BeforeValidator(_store)] = "shipped"
    weights: Annotated[Weights, BeforeValidator(_weights)]
    policies: tuple[Annotated[str, BeforeValidator(_path)], ...] = ()
    attributes: dict[str, str] = {}
    sources: str | dict[str, str] = {}
    method: Annotated[str, BeforeValidator(_method)] = DEFAULT
    options: dict[str, Any] = {}
    kind: Kind = Field(default="adapter", alias="as")
    rank: Annotated[int, Field(ge=1, strict=True)] | None = None
    dtype: Word | None = None
    shard_size: Annotated[int, Field(ge=1, strict=True)] | None = None
    dequantise: Annotated[bool, Field(strict=True)] = False
    record: RecipeRecord | None = None

    @model_validator(mode="before")
    @classmethod
    def _acts_everywhere(cls, value: Any) -> Any:
        """What is merged into weights acts on every token: a recipe may say so, and nothing else."""
        if not isinstance(value, dict) or "mode" not in value:
            return value
        if value["mode"] == FULL:
            return {name: each for name, each in value.items() if name != "mode"}
        raise ValueError(
            f"mode {value['mode']!r:.80} cannot be merged: weights that are merged act on every token; leave it out, or ask for "
            "it where answers are made (`soupmix chat`, `batch`, `serve`, `Engine`)"
        )

    @model_validator(mode="before")
    @classmethod
    def _lists_adapters(cls, value: Any) -> Any:
        """`lora: [{id, scale}]` is another spelling of weights."""
        if not isinstance(value, dict) or "lora" not in value:
            return value
        if "weights" in value:
            raise ValueError("lora and weights are two spellings of one thing; give one of them")
        return {
            **{name: each for name, each in value.items() if name != "lora"},
            "weights": plain_weights(value["lora"]),
        }

    @model_validator(mode="after")
    def _has_options(self) -> "Recipe":
        try:
            options_of(self.method, self.options)
        except RecipeError as error:
            raise ValueError(str(error)) from None
        return self

    @model_validator(mode="after")
    def _fits_kind(self) -> "Recipe":
        if self.kind in ("model", "gguf") and self.rank is not None:
            raise ValueError("rank is for an adapter; a model has none")
        if self.kind != "model" and self.shard_size is not None:
            raise ValueError("shard_size is for a model (as: model); an adapter is one file, and so is GGUF")
        if self.kind not in ("model", "gguf") and self.dequantise:
            raise ValueError("dequantise is for a model; an adapter does not hold the base's weights")
        return self

    def export(self) -> Export:
        """How the result is written: what the recipe leaves out is as `Soup.save_adapter` and `Soup.save_model` have it."""
        unsaid = None if self.kind in ("model", "gguf") else ADAPTER_DTYPE
        dtype = unsaid if self.dtype is None else dtype_code(self.dtype)
        size = self.shard_size or SHARD_SIZE
        return Export(
            self.kind,
            self.store,
            self.base,
            rank=self.rank,
            dtype=dtype,
            shard_size=size,
            dequantise=self.dequantise,
        )


def read_recipe(path: Path) -> Recipe:
    """Read a recipe.

    Raises:
        RecipeError: it cannot be read ("unreadable"), is not YAML ("bad-yaml"), or says something that no recipe can
            ("bad-recipe"); the message names the file and the place in it.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise RecipeError(f"recipe {path} cannot be read: {error.strerror}", reason="unreadable") from error
    if len(data) > _MAX_BYTES:
        raise RecipeError(f"recipe {path} is larger than {_MAX_BYTES} bytes", reason="bad-recipe")
    try:
        content = read_strict(data, PlainLoader)
    except YamlError as error:
        line = "" if error.line is None else f", line {error.line}"
        raise RecipeError(f"recipe {path} is not YAML{line}: {error}", reason="bad-yaml") from None
    if not isinstance(content, dict):
        raise RecipeError(f"recipe {path} must be a mapping such as 'weights: {{friendly: 0.5}}'", reason="bad-recipe")
    if is_mergekit(content):
        try:
            content = translated(content)
        except Unmet as error:
            raise RecipeError(f"recipe {path}, {error}", reason="bad-recipe") from None
    return _validated(content, f"recipe {path}", path.resolve().parent)


def with_options(recipe: Recipe | None, options: Mapping[str, Any]) -> Recipe:
    """A recipe with what the command line adds; without a recipe, what the command line says.

    Policies are added behind those of the recipe, as they can only take away; attributes are united; anything else
    that is given replaces what the recipe says. Of another method the recipe's options count as far as every method has them.

    Raises:
        RecipeError: the outcome is no valid recipe ("bad-recipe").
    """
    fields = {} if recipe is None else {name: getattr(recipe, name) for name in recipe.model_fields_set}
    if options.get("method") not in (None, fields.get("method")):
        fields["options"] = {name: value for name, value in fields.get("options", {}).items() if name == LAYERS}
    given = {key: value for key, value in options.items() if value is not None and value != () and value != {}}
    given["options"] = {**fields.get("options", {}), **given.get("options", {})}
    given["policies"] = (*fields.get("policies", ()), *given.get("policies", ()))
    given["attributes"] = {**fields.get("attributes", {}), **given.get("attributes", {})}
    if given.get("kind") in ("model", "gguf"):
        fields.pop("rank", None)
    if given.get("kind") in ("adapter", "gguf-lora", "gguf"):
        fields.pop("shard_size", None)
    if given.get("kind") in ("adapter", "gguf-lora"):
        fields.pop("dequantise", None)
    return _validated(fields | given, "command line" if recipe is None else "recipe with the options given", None)


def _validated(content: Mapping[str, Any], source: str, folder: Path | None) -> Recipe:
    try:
        return Recipe.model_validate(content, context={"folder": folder})
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise RecipeError(f"{source}{', ' + place if place else ''}: {_told(first)}", reason="bad-recipe") from None


def _told(error: Mapping[str, Any]) -> str:
    if error["type"] == "extra_forbidden":
        known = (field.alias or name for name, field in Recipe.model_fields.items() if name != "record")
        return f"unknown key; a recipe has {', '.join(known)}"
    if error["type"] == "missing":
        return "is missing; say how much of which adapter, for example 'friendly: 0.5' or -w friendly=0.5"
    return in_words(error)

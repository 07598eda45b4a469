"""A result: what a merge is about to give. Its card, recipe, provenance and digests are written from this one value.

All of it but `errors` is known before a tensor is read, and so is its name, the merge identity.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from soupmix.base import Base, hub_id
from soupmix.errors import BaseModelError, RecipeError
from soupmix.merge.identity import merge_identity
from soupmix.options import Options, spelled
from soupmix.policy.recorded import RecordedGrant
from soupmix.public import public
from soupmix.store.manifest import ManifestEntry
from soupmix.weights import MILLION, decimal_text

__all__ = [
    "ADAPTER_DTYPE",
    "BASE_FILES",
    "PLAIN_BASE",
    "SHARD_SIZE",
    "Errors",
    "Export",
    "Ingredient",
    "Kind",
    "Result",
    "ingredients_of",
    "short",
]

ADAPTER_DTYPE: Final = "F32"  # of an adapter's factors where none is said
SHARD_SIZE = 5_000_000_000
"""Default for the most bytes of tensors in one file of a model."""

BASE_FILES = "base files"
PLAIN_BASE = "base dequantised"


@public
@dataclass(frozen=True, slots=True)
class Ingredient:
    """One adapter in a soup: name, digest, licence, base as the store knows them, and its weight in millionths.

    `base_said` is what its own config calls the base, known once it is loaded.
    """

    name: str
    digest: str
    licence: str
    base_name: str
    base_digest: str
    micro: int
    base_said: str | None = None

    def __repr__(self) -> str:
        return f"<Ingredient {self.name} {decimal_text(self.micro)}, {self.digest[:19]}...>"


Kind = Literal["adapter", "model", "gguf-lora", "gguf"]
"""What is written: a PEFT adapter, a Hugging Face model, and both as llama.cpp has them."""


@dataclass(frozen=True, slots=True)
class Export:
    """How a soup is written.

    Attributes:
        kind: "adapter", "model", "gguf-lora" or "gguf". store, base: how the recipe refers to them.
        rank: of an adapter, None for exact. dtype: "F32", "F16", "BF16", or None for the base's own.
        shard_size: of a model, most bytes of tensors in one file. dequantise: of a model, whether the base's quantised
            weights are made plain first.
    """

    kind: Kind
    store: str
    base: str | None
    rank: int | None = None
    dtype: str | None = None
    shard_size: int = SHARD_SIZE
    dequantise: bool = False

    @property
    def is_model(self) -> bool:
        """Whether it is a whole model, which holds the base's weights."""
        return self.kind in ("model", "gguf")

    @property
    def form(self) -> str:
        """The dtype as the merge identity takes it; a cut rank makes another result of the same soup, and so do plain weights
        where the base has quantised ones. Who reads it makes another one, too."""
        dtype = (self.dtype or "base") + (" dequantised" if self.dequantise else "")
        dtype = f"{self.kind} {dtype}" if self.kind in ("gguf-lora", "gguf") else dtype
        return dtype if self.rank is None else f"{dtype} rank {self.rank}"


@public
@dataclass(frozen=True, slots=True)
class Errors:
    """Relative errors in the Frobenius norm: |made - exact| / |exact|, per module and over all modules together."""

    total: float
    modules: Mapping[str, float]

    @classmethod
    def of(cls, parts: Mapping[str, tuple[float, float]]) -> "Errors":
        """From module -> (norm of the difference, norm of the exact delta)."""
        difference = math.hypot(*(pair[0] for pair in parts.values()))
        exact = math.hypot(*(pair[1] for pair in parts.values()))
        return cls(_ratio(difference, exact), {name: _ratio(*parts[name]) for name in sorted(parts)})

    def to_dict(self) -> dict[str, object]:
        """For JSON, to four significant digits, which is all that such a number means."""
        return {"total": short(self.total), "modules": {name: short(value) for name, value in self.modules.items()}}

    def __repr__(self) -> str:
        return f"<Errors of {self.total:.2g} in {len(self.modules)} modules>"


@dataclass(frozen=True, slots=True)
class Result:
    """What a merge gives, as it is told to people and to other programs.

    Attributes:
        grant: what was allowed; where a finished merge is repeated, the record of it, and then nothing reaches a disk.
        method: name of the merge method. ingredients: the adapters with a weight, sorted by name.
        export: how it is written. base: the model that the adapters are folded into; None for an adapter.
        base_files: digest of the base's other files, "sha256:<hex>"; None for an adapter, and where it is not recorded.
        warnings: why the result may mean little, one sentence each.
        errors: what writing lost, relative to the exact deltas: "truncation" and "total" of an adapter, "rounding_loss" of
            a model; empty until it is written.
        plain: the base with plain weights, where `export` asks that it be dequantised; None until that is done.
        options: all options of the method, as `soupmix.methods.options_of` gives them.
    """

    grant: RecordedGrant
    method: str
    ingredients: tuple[Ingredient, ...]
    export: Export
    base: Base | None = None
    base_files: str | None = None
    warnings: tuple[str, ...] = ()
    errors: Mapping[str, Errors] = field(default_factory=dict)
    plain: Base | None = None
    options: Options = field(default_factory=dict)

    @property
    def base_name(self) -> str:
        """The base as the adapters name it; "" if there are none."""
        return self.ingredients[0].base_name if self.ingredients else ""

    @property
    def base_on_hub(self) -> str:
        """The base as other programs find it: its id on the hub, if it or all adapters name one; else `base_name`."""
        if self.base is not None and self.base.hub_id is not None:
            return self.base.hub_id
        known = hub_id(self.base_name)
        said = {found for each in self.ingredients if (found := hub_id(each.base_said or "")) is not None}
        return known or (said.pop() if len(said) == 1 else self.base_name)

    @property
    def base_digest(self) -> str:
        """Of the base that is written, or that the adapters were trained on; an adapter of nothing has none (IndexError)."""
        return self.ingredients[0].base_digest if self.base is None else self.base.digest

    @property
    def identity(self) -> str:
        """The merge identity; see `soupmix.merge.identity`."""
        return merge_identity(
            base_digest=self.base_digest,
            weights=[(item.digest, item.micro) for item in self.ingredients],
            method=spelled(self.method, self.options),
            dtype=self.export.form,
            policy_digest=self.grant.policy_digest,
        )

    @property
    def inputs(self) -> dict[str, str]:
        """ "base", "policy", "base files" if recorded, "base dequantised" if it was, and "adapter NAME" -> "sha256:<hex>", in the
        order of the records."""
        files = {} if self.base_files is None else {BASE_FILES: self.base_files}
        files |= {} if self.plain is None else {PLAIN_BASE: self.plain.digest}
        adapters = {f"adapter {item.name}": item.digest for item in self.ingredients}
        return {"base": self.base_digest, "policy": self.grant.policy_digest, **files, **adapters}

    def check(self) -> None:
        """Raise unless there is something to write, and every adapter was trained on the base.

        Raises:
            RecipeError: an adapter of nothing ("empty-soup"). BaseModelError: of another base ("wrong-base").
        """
        if not self.export.is_model and not self.ingredients:
            raise RecipeError(
                "no adapter was granted a weight above zero, so there is no adapter to write: use the base model as it is, "
                "or write it with --as model",
                reason="empty-soup",
            )
        for item in self.ingredients:
            if self.base is not None and item.base_digest != self.base.digest:
                raise BaseModelError(
                    f"adapter {item.name} was trained on base {item.base_name} ({item.base_digest}), but base "
                    f"{self.base.name} is {self.base.digest}; merge into the base it was trained on",
                    reason="wrong-base",
                )


def ingredients_of(entries: Iterable[ManifestEntry], grant: RecordedGrant) -> tuple[Ingredient, ...]:
    """What a grant takes from a store, sorted by name, from the manifest alone.

    Weights are held to [0, 1], as the kernels do: whoever made the grant, none is more than 1. A weight of zero takes nothing.
    """
    held = {name: max(0, min(micro, MILLION)) for name, micro in grant.granted.items()}
    used = [(entry, held[entry.name]) for entry in entries if held.get(entry.name)]
    found = [Ingredient(each.name, each.digest, each.licence, each.base, each.base_digest, w) for each, w in used]
    return tuple(sorted(found, key=lambda item: item.name))


def short(value: float) -> float:
    """A number to four significant digits."""
    return float(f"{value:.4g}")


def _ratio(difference: float, exact: float) -> float:
    if exact == 0.0:
        return 0.0 if difference == 0.0 else math.inf
    return difference / exact

"""A soup: the adapters of a store merged under a grant."""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from soupmix.base import Base, resolve
from soupmix.dtypes import dtype_code
from soupmix.errors import AdapterError, RecipeError
from soupmix.merge.export import Export, Keys, Saved, save
from soupmix.merge.identity import merge_identity
from soupmix.merge.methods import check_method, factor_warnings, merge_modules
from soupmix.merge.stack import Stack
from soupmix.policy import Grant
from soupmix.policy.grant import check_grant
from soupmix.policy.linear import check_linear
from soupmix.policy.recorded import RecordedGrant
from soupmix.store.manifest import shipped_root
from soupmix.store.store import Store
from soupmix.weights import MILLION

__all__ = ["SHARD_SIZE", "Ingredient", "Soup", "merge", "repeat_merge"]

SHARD_SIZE = 5_000_000_000
"""Default for the most bytes of tensors in one file of a model."""

_log = logging.getLogger("soupmix.merge")


@dataclass(frozen=True, slots=True)
class Ingredient:
    """One adapter in a soup: name, digest, licence, base as the store knows them, and its weight in millionths."""

    name: str
    digest: str
    licence: str
    base_name: str
    base_digest: str
    micro: int


@dataclass(frozen=True, slots=True)
class Soup:
    """Adapters merged under a grant, in factored form.

    Attributes:
        grant: what was allowed; where a finished merge is repeated, the record of it, and then nothing can be saved.
        method: "delta" or "factor".
        ingredients: the adapters with a weight, sorted by name; an adapter of weight zero is none.
        modules: module path -> merged update, sorted by path; empty for an empty grant.
        warnings: why the result may mean little, one sentence each.
        store: where the adapters come from: "shipped", or the folder.
    """

    grant: RecordedGrant
    method: str
    ingredients: tuple[Ingredient, ...]
    modules: Mapping[str, Stack]
    warnings: tuple[str, ...]
    store: str

    def identity(self, *, base_digest: str, dtype: str, tenant_salt: str = "") -> str:
        """The merge identity of this soup on a base in a dtype; see `soupmix.merge.identity`."""
        return merge_identity(
            base_digest=base_digest,
            weights=[(item.digest, item.micro) for item in self.ingredients],
            method=self.method,
            dtype=dtype,
            policy_digest=self.grant.policy_digest,
            tenant_salt=tenant_salt,
        )

    def save_adapter(
        self,
        folder: str | Path,
        *,
        rank: int | None = None,
        dtype: str | None = None,
        sign: str | Path | None = None,
        sign_model: str | Path | None = None,
        force: bool = False,
    ) -> Saved:
        """Write a plain PEFT LoRA folder of scaling 1, with card, recipe, grant and digests.

        Args:
            folder: made in one step; must not exist unless `force`.
            rank: highest rank of a module, by truncated SVD; None is exact: the sum of the ranks of the adapters.
            dtype: of the stored factors, "fp32", "fp16" or "bf16". None is fp32 whatever the adapters have, because B
                is stored times weight and scaling, and rounding that would add an error that the adapters do not have.
            sign, sign_model: private keys that sign the provenance, and the folder (OpenSSF); None: nobody signs.

        Raises:
            RecipeError: nothing was granted, so there is no adapter ("empty-soup"); a bad rank, dtype or key.
            OutputError: the folder exists, the disk refuses, or a value overflows the dtype.
        """
        code = "F32" if dtype is None else dtype_code(dtype)
        export = Export("adapter", self.store, None, rank=rank, dtype=code)
        return save(self, Path(folder), export, None, force=force, keys=Keys.read(sign, sign_model))

    def save_model(
        self,
        folder: str | Path,
        *,
        base: str | Path | Base,
        dtype: str | None = None,
        shard_size: int = SHARD_SIZE,
        sign: str | Path | None = None,
        sign_model: str | Path | None = None,
        force: bool = False,
    ) -> Saved:
        """Write the full model W + delta as a Hugging Face folder, streamed, with card, recipe, grant and digests.

        An empty soup gives a copy of the base, tensors equal bit for bit.

        Args:
            folder: made in one step; must not exist unless `force`.
            base: the base model, or its name, folder, GGUF file or hub id; it must be the one of the adapters.
            dtype: "fp32", "fp16" or "bf16"; None keeps the dtype of every tensor. Summed in fp32 and rounded once; what
                the rounding lost of the delta is in the answer's `errors["rounding_loss"]`.
            shard_size: most bytes of tensors in one file.
            sign, sign_model: as for `save_adapter`.

        Raises:
            BaseModelError: the base is not found, not the adapters' base ("wrong-base"), or does not fit.
            RecipeError: a bad dtype, shard size or key.
            OutputError: the folder exists, the disk refuses, or a value overflows the dtype.
        """
        if shard_size < 1:
            raise RecipeError(
                f"shard size {shard_size} was asked for; it must be at least 1 byte", reason="bad-shard-size"
            )
        code, keys = None if dtype is None else dtype_code(dtype), Keys.read(sign, sign_model)
        found = base if isinstance(base, Base) else resolve(base)
        export = Export("model", self.store, os.fspath(found.name), dtype=code, shard_size=shard_size)
        return save(self, Path(folder), export, found, force=force, keys=keys)


def merge(store: Store, grant: Grant, *, method: str = "delta") -> Soup:
    """Merge the adapters of a store by the granted weights.

    Args:
        store: its adapters must have the digests that the grant was given for.
        grant: from `Policy.clamp`; nothing else is accepted.
        method: "delta" (exact: sum_k w_k s_k B_k A_k) or "factor" (A and B averaged apart, arXiv 2310.11564).

    Raises:
        TypeError: `grant` is no Grant. PolicyError: it is not as a policy of this process gave it ("not-granted").
        RecipeError: unknown method.
        PolicyRefusal: "factor" under a rule that bounds the norm (reason "norm-not-linear").
        AdapterError: an adapter is missing, damaged, not the granted one, or does not fit the others.
    """
    check_grant(grant, "merge")
    return _merged(store, grant, method)


def repeat_merge(store: Store, record: RecordedGrant, *, method: str = "delta") -> Soup:
    """The soup of a finished merge, made again from its record to be compared with it. Nothing of it can be saved.

    Raises as `merge` does, of the record's weights and adapters.
    """
    return _merged(store, record, method)


def _merged(store: Store, grant: RecordedGrant, method: str) -> Soup:
    check_method(method)
    check_linear(method, grant.norm_rule)
    weighted = []
    ingredients = []
    for name, micro in sorted(grant.granted.items()):
        held = max(0, min(micro, MILLION))  # as the kernels do: whoever made the grant, no weight is more than 1
        if not held:
            continue
        adapter = store.load(name, grant.digests[name])
        weighted.append((adapter, held / MILLION))
        entry = store[name]
        ingredients.append(Ingredient(name, adapter.digest, entry.licence, entry.base, adapter.base_digest, held))
    _check_one_base(ingredients)
    warnings = factor_warnings(weighted) if method == "factor" else ()
    for warning in warnings:
        _log.warning("%s", warning)
    shipped = store.folder.resolve() == shipped_root().resolve()
    reference = "shipped" if shipped else str(store.folder)
    return Soup(grant, method, tuple(ingredients), merge_modules(weighted, method), warnings, reference)


def _check_one_base(ingredients: list[Ingredient]) -> None:
    for item in ingredients[1:]:
        first = ingredients[0]
        if item.base_digest != first.base_digest:
            raise AdapterError(
                f"adapters {first.name} and {item.name} were trained on different base models "
                f"({first.base_digest} and {item.base_digest}); they cannot be merged",
                reason="base-mismatch",
            )

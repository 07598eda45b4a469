"""A soup: the adapters of a store merged under a grant."""

import logging
import os
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import cast, final

import torch

from soupmix.base import Base, resolve
from soupmix.dtypes import dtype_code
from soupmix.errors import AdapterError, RecipeError
from soupmix.merge.bound import bounded, within_weights
from soupmix.merge.entries import Merged
from soupmix.merge.export import Saved, SigningKeys, save, with_plain_base
from soupmix.merge.fold import Work
from soupmix.merge.identity import merge_identity
from soupmix.merge.methods import merge_modules, warnings_of
from soupmix.merge.result import ADAPTER_DTYPE, SHARD_SIZE, Export, Ingredient, Result, ingredients_of
from soupmix.merge.stack import one_thread
from soupmix.methods import DEFAULT, check_linear, find_method, options_of
from soupmix.options import EVERY, LAYERS, Options, check_shares, spelled
from soupmix.policy import Grant
from soupmix.policy.grant import check_grant
from soupmix.policy.recorded import RecordedGrant
from soupmix.public import public
from soupmix.sealing import _by_maker, sealed
from soupmix.store.manifest import shipped_root
from soupmix.store.store import Store
from soupmix.weights import MILLION, decimal_text

__all__ = ["Mix", "Soup", "merge", "mix"]

_log = logging.getLogger("soupmix.merge")


@public
@sealed(
    "a Soup comes from soupmix.merge, which merges what was granted, and has no subclasses",
    "a soup does not leave its process: save it, or merge it there",
)
@final
@dataclass(frozen=True, slots=True, init=False)
class Soup:
    """Adapters merged under a grant, in factored form. Made by `merge` only, so that what is saved is what was granted.

    Attributes:
        grant: what was allowed.
        method: name of the method.
        ingredients: the adapters with a weight, sorted by name; an adapter of weight zero is none.
        modules: module path -> merged update, sorted by path; empty for an empty grant.
        warnings: why the result may mean little, one sentence each.
        store: where the adapters come from: "shipped", or the folder.
        options: all options of the method with their values.
    """

    grant: Grant
    method: str
    ingredients: tuple[Ingredient, ...]
    modules: Mapping[str, Merged]
    warnings: tuple[str, ...]
    store: str
    options: Options

    def identity(self, *, base_digest: str, dtype: str, tenant_salt: str = "") -> str:
        """The merge identity of this soup on a base in a dtype; see `soupmix.merge.identity`."""
        return merge_identity(
            base_digest=base_digest,
            weights=[(item.digest, item.micro) for item in self.ingredients],
            method=spelled(self.method, self.options),
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
            sign: file of a private key that signs the provenance; None: nobody signs.
            sign_model: file of a private key that signs the folder (OpenSSF); None: nobody signs.
            force: replace a folder that is empty or an earlier result.

        Raises:
            RecipeError: nothing was granted, so there is no adapter ("empty-soup"); a bad rank, dtype or key.
            OutputError: the folder exists, the disk refuses, or a value overflows the dtype.
        """
        code, keys = ADAPTER_DTYPE if dtype is None else dtype_code(dtype), SigningKeys.read(sign, sign_model)
        return self._save(Path(folder), Export("adapter", self.store, None, rank=rank, dtype=code), None, keys, force)

    def save_model(
        self,
        folder: str | Path,
        *,
        base: str | Path | Base,
        dtype: str | None = None,
        shard_size: int = SHARD_SIZE,
        dequantise: bool = False,
        workers: int | None = None,
        tell: Callable[[int, int], None] | None = None,
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
            dequantise: of a quantised base make the weights plain first, as transformers does, and write a plain model. The
                whole base is in memory meanwhile, and its plain copy stays in the cache.
            workers: how many blocks of two megabytes are made at a time; as many as torch has threads if not given, eight at
                most. No byte depends on it.
            tell: is told how many bytes of tensors are made, and of how many.
            sign: as for `save_adapter`.
            sign_model: as for `save_adapter`.
            force: as for `save_adapter`.

        Raises:
            BaseModelError: the base is not found, not the adapters' base ("wrong-base"), or does not fit; it is quantised
                ("quantised") or, with `dequantise`, is not ("not-quantised") or cannot be made plain ("conversion-failed").
            RecipeError: a bad dtype, shard size, number of workers or key.
            OutputError: the folder exists, the disk refuses, or a value overflows the dtype.
        """
        if shard_size < 1:
            raise RecipeError(
                f"shard size {shard_size} was asked for; it must be at least 1 byte", reason="bad-shard-size"
            )
        code, keys = None if dtype is None else dtype_code(dtype), SigningKeys.read(sign, sign_model)
        found = base if isinstance(base, Base) else resolve(base)
        name = os.fspath(found.name)
        export = Export("model", self.store, name, dtype=code, shard_size=shard_size, dequantise=dequantise)
        return self._save(Path(folder), export, found, keys, force, _work(workers, tell))

    def save_gguf_lora(
        self,
        folder: str | Path,
        *,
        base: str | Path | Base,
        rank: int | None = None,
        dtype: str | None = None,
        sign: str | Path | None = None,
        sign_model: str | Path | None = None,
        force: bool = False,
    ) -> Saved:
        """Write the soup as `adapter.gguf`, which llama.cpp and Ollama apply to the base, with a Modelfile and all records.

        Args:
            folder: made in one step; must not exist unless `force`.
            base: the base model, or its name, folder, GGUF file or hub id; it must be the one of the adapters. Of it only
                the names and the layout of its layers are needed.
            rank: as for `save_adapter`.
            dtype: as for `save_adapter`.
            sign: as for `save_adapter`.
            sign_model: as for `save_adapter`.
            force: as for `save_adapter`.

        Raises:
            BaseModelError: the base is not found, not the adapters' base ("wrong-base"), or how llama.cpp lays it out is not
                known here ("no-gguf-layout").
            RecipeError, OutputError: as `save_adapter` does.
        """
        code, keys = ADAPTER_DTYPE if dtype is None else dtype_code(dtype), SigningKeys.read(sign, sign_model)
        found = base if isinstance(base, Base) else resolve(base)
        export = Export("gguf-lora", self.store, os.fspath(found.name), rank=rank, dtype=code)
        return self._save(Path(folder), export, found, keys, force)

    def save_gguf(
        self,
        folder: str | Path,
        *,
        base: str | Path | Base,
        dtype: str | None = None,
        dequantise: bool = False,
        workers: int | None = None,
        tell: Callable[[int, int], None] | None = None,
        sign: str | Path | None = None,
        sign_model: str | Path | None = None,
        force: bool = False,
    ) -> Saved:
        """Write the full model W + delta as `model.gguf`, which llama.cpp and Ollama read, with tokenizer, Modelfile and records.

        Args:
            folder: made in one step; must not exist unless `force`.
            base: as for `save_model`.
            dtype: of matrices, "fp32", "fp16" or "bf16"; None keeps the dtype of every one. Vectors are fp32.
            dequantise: as for `save_model`.
            workers: as for `save_model`.
            tell: as for `save_model`.
            sign: as for `save_adapter`.
            sign_model: as for `save_adapter`.
            force: as for `save_adapter`.

        Raises:
            BaseModelError: as `save_model`, or how llama.cpp has such a model ("no-gguf-layout") or its tokenizer
                ("no-gguf-tokenizer") is not known here.
            RecipeError, OutputError: as `save_model` does.
        """
        code, keys = None if dtype is None else dtype_code(dtype), SigningKeys.read(sign, sign_model)
        found, work = base if isinstance(base, Base) else resolve(base), _work(workers, tell)
        export = Export("gguf", self.store, os.fspath(found.name), dtype=code, dequantise=dequantise)
        return self._save(Path(folder), export, found, keys, force, work)

    def _save(
        self,
        folder: Path,
        export: Export,
        base: Base | None,
        keys: SigningKeys,
        force: bool,
        work: Work | None = None,
    ) -> Saved:
        files = None if base is None else base.files_digest()
        result = Result(
            self.grant, self.method, self.ingredients, export, base, files, self.warnings, options=self.options
        )
        return save(with_plain_base(result), self.modules, folder, keys, force=force, work=work)

    def __repr__(self) -> str:
        weights = ", ".join(f"{each.name} {decimal_text(each.micro)}" for each in self.ingredients) or "nothing"
        return f"<Soup of {weights} by {self.method}, {len(self.modules)} modules>"


def _work(workers: int | None, tell: Callable[[int, int], None] | None) -> Work:
    if workers is not None and workers < 1:
        raise RecipeError(f"{workers} workers were asked for; one at least makes a model", reason="bad-workers")
    return Work(workers) if tell is None else Work(workers, tell)


@dataclass(frozen=True, slots=True)
class Mix:
    """The tensors of a merge; see `Soup` for its parts."""

    ingredients: tuple[Ingredient, ...]
    modules: Mapping[str, Merged]
    warnings: tuple[str, ...]


def merge(store: Store, grant: Grant, *, method: str = DEFAULT, options: Options | None = None) -> Soup:
    """Merge the adapters of a store by the granted weights.

    Args:
        store: its adapters must have the digests that the grant was given for.
        grant: from `Policy.clamp`; nothing else is accepted.
        method: name of one in `soupmix.methods`; the exact sum of deltas if not given.
        options: of the method; those that are not given have their defaults. "layers" is one that every method has, see
            `soupmix.options`.

    Raises:
        TypeError: `grant` is no Grant.
        PolicyError: `grant` is not as a policy of this process gave it ("not-granted").
        RecipeError: unknown method ("unknown-method"), option ("unknown-option") or value ("bad-option"), or more adapters than
            the method takes ("two-adapters").
        PolicyRefusal: a method that rows merge by, and that is not linear, under a rule that bounds the norm (reason
            "norm-not-linear"), or the option "layers" of a DoRA under one (the same reason); what other methods make is
            shortened, where it is longer than the weighted sum of deltas. Or the option `normalize` under policy documents
            ("above-weight"); where a method would have an adapter act above its own weight under them, the layer is shortened.
        AdapterError: an adapter is missing, damaged, not the granted one, or does not fit the others.
    """
    check_grant(grant, "merge")
    said = options_of(method, options or {})
    made = mix(store, grant, method, said)
    shipped = store.folder.resolve() == shipped_root().resolve()
    reference = "shipped" if shipped else str(store.folder)
    soup = _by_maker(
        Soup,
        grant=grant,
        method=method,
        ingredients=made.ingredients,
        modules=MappingProxyType(dict(made.modules)),
        warnings=made.warnings,
        store=reference,
        options=MappingProxyType(said),
    )
    return cast(Soup, soup)


def mix(store: Store, said: RecordedGrant, method: str, options: Options | None = None) -> Mix:
    """The tensors of a merge: of a grant, which `merge` has checked, or of the record of one, to repeat a finished merge.

    Raises:
        RecipeError, PolicyRefusal, AdapterError: as `merge` does.
    """
    check_linear(method, said.norm_rule)
    check_shares(method, options or {}, is_open=said.is_open)
    _check_layers({*(each.name for each in store), *said.requested, *said.granted}, options or {})
    threads = torch.get_num_threads()
    with one_thread():  # each step is small: torch's threads would take longer to wait for one another
        return _mix(store, said, method, options_of(method, options or {}), threads)


def _check_layers(names: Collection[str], options: Options) -> None:
    """Raise RecipeError (reason "bad-option") if `layers` says something of an adapter that is none of these."""
    unknown = [name for name in options.get(LAYERS, {}) if name not in {*names, EVERY}]
    if unknown:
        near = get_close_matches(unknown[0], names, n=1)
        guess = f", did you mean {near[0]}?" if near else f"; name one of them, or '{EVERY}' for all"
        raise RecipeError(
            f"layers says something of {unknown[0]!a}, and there is no such adapter{guess}", reason="bad-option"
        )


def _mix(store: Store, said: RecordedGrant, method: str, options: Options, threads: int) -> Mix:
    names = [name for name, micro in said.granted.items() if micro > 0]
    with ThreadPoolExecutor(threads) as pool:
        loaded = pool.map(lambda name: store.load(name, said.digests[name]), names)
        adapters = dict(zip(names, loaded, strict=True))
    bases = {adapter.base_digest for adapter in adapters.values()}
    if len(bases) > 1:
        raise AdapterError(
            f"adapters {', '.join(sorted(adapters))} were trained on different base models ({', '.join(sorted(bases))}); they "
            "cannot be merged",
            reason="base-mismatch",
        )
    used = tuple(
        replace(item, digest=adapters[item.name].digest, base_said=adapters[item.name].base_said)
        for item in ingredients_of(store, said)
    )
    weighted = [(adapters[item.name], item.micro / MILLION) for item in used]
    modules, warnings = merge_modules(weighted, method, options), warnings_of(weighted, method)
    modules, told = within_weights(modules, method, is_open=said.is_open)
    warnings = (*warnings, *told)
    if said.norm_rule is not None and (not find_method(method).is_linear or LAYERS in options):
        modules, shortened = bounded(modules, weighted, said.norm_rule, method)
        warnings = (*warnings, *shortened)
    for warning in warnings:
        _log.warning("%s", warning)
    return Mix(used, modules, warnings)

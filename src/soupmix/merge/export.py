"""From a result to a finished folder: weights, card, recipe, grant, report and digests, all or nothing."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from soupmix.dtypes import WORDS
from soupmix.files import canonical_json, digest_parts, new_folder
from soupmix.merge.adapter import readers_refuse, write_adapter
from soupmix.merge.card import card
from soupmix.merge.entries import Merged
from soupmix.merge.fold import Work
from soupmix.merge.gguf_lora import write_gguf_lora
from soupmix.merge.gguf_model import write_gguf_model
from soupmix.merge.model import write_model
from soupmix.merge.parts import Parts
from soupmix.merge.provenance import PROVENANCE, provenance
from soupmix.merge.record import DIGESTS, GRANT, RECIPE, REPORT, is_result, portable, recipe_yaml
from soupmix.merge.result import ADAPTER_DTYPE, Errors, Export, Result
from soupmix.merge.sink import Sink
from soupmix.policy.grant import check_grant
from soupmix.public import public
from soupmix.trust.dsse import MODEL_SIGNATURE, Envelope
from soupmix.version import __version__

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from securesystemslib.signer import CryptoSigner

__all__ = ["Saved", "SigningKeys", "produce", "save", "with_plain_base"]

_LOUD = 0.05  # the share of a delta above which its loss is a warning


@dataclass(frozen=True, slots=True)
class SigningKeys:
    """Who signs a result: its provenance, and the folder as OpenSSF's verifier reads it. None: nobody does."""

    provenance: "CryptoSigner | None" = None
    model: "EllipticCurvePrivateKey | None" = None

    @classmethod
    def read(cls, sign: str | Path | None, sign_model: str | Path | None) -> "SigningKeys":
        """The keys of these files. Raises `RecipeError` as `soupmix.trust.keys.load_private` does."""
        if sign is None and sign_model is None:
            return cls()
        from soupmix.trust import load_model_key, read_private

        return cls(
            read_private(sign) if sign is not None else None,
            load_model_key(sign_model) if sign_model is not None else None,
        )

    def signed(self, envelope: Envelope) -> Envelope:
        """The envelope, signed if there is a key for it."""
        if self.provenance is None:
            return envelope
        from soupmix.trust import sign_envelope

        return sign_envelope(envelope, self.provenance)


@public
@dataclass(frozen=True, slots=True)
class Saved:
    """A folder that was written.

    Attributes:
        folder: where.
        identity: the merge identity.
        digests: file name -> "sha256:<hex>".
        errors: what was lost, relative to the exact deltas: "truncation" and "total" of an adapter,
            "rounding_loss" of a model.
        warnings: why the result may mean little, or not be read, one sentence each.
        kept: names of files of a model that an earlier run, which was killed, had finished.
    """

    folder: Path
    identity: str
    digests: Mapping[str, str]
    errors: Mapping[str, Errors]
    warnings: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<Saved {len(self.digests)} files in {self.folder}, identity {self.identity[:19]}...>"


def save(
    result: Result,
    modules: Mapping[str, Merged],
    folder: Path,
    keys: SigningKeys,
    *,
    force: bool,
    work: Work | None = None,
) -> Saved:
    """Write everything into a new folder in one step.

    Args:
        modules: module path -> merged update. folder: its recipe will name the store and the base relative to it.
        work: how many blocks of a model are made at a time, and who is told how far it is.

    Raises:
        OutputError: the folder exists and `force` is not given, or the disk refuses.
        Else as `produce` does.
    """
    store, base = result.export.store, result.base
    reads = [*([] if store == "shipped" else [Path(store)]), *([] if base is None else [base.folder])]
    result = replace(result, export=portable(result.export, folder))
    key = _work_key(result) if result.export.kind == "model" else None
    with new_folder(folder, force=force, own=is_result, reads=reads, key=key) as temporary, Parts(temporary) as parts:
        sink = Sink(temporary, parts)
        result = produce(result, modules, sink, keys, work or Work())
        if keys.model is not None:
            from soupmix.trust import sign_model

            digests = {name: digest.removeprefix("sha256:") for name, digest in sink.digests.items()}
            sink.write(MODEL_SIGNATURE, sign_model(folder.resolve().name, digests, keys.model))
    digests = dict(sorted(sink.digests.items()))
    return Saved(folder, result.identity, digests, result.errors, result.warnings, tuple(sink.kept))


def _work_key(result: Result) -> str:
    """What names all that the bytes of a model's files depend on. They repeat on one build of torch and one kind of processor."""
    export, plain = result.export, result.plain
    here = {"torch": torch.__version__, "processor": torch.backends.cpu.get_cpu_capability(), "amx": _tiles()}
    parts = {"identity": result.identity, "shards": str(export.shard_size), "soupmix": __version__, **here}
    return digest_parts("soupmix.work.v1", parts | ({} if plain is None else {"plain": plain.digest}))


def _tiles() -> str:
    """Which instructions oneDNN may use, of which the last bits of sums depend."""
    return f"{torch.cpu._is_amx_tile_supported()} {os.environ.get('ONEDNN_MAX_CPU_ISA', '')}"


def with_plain_base(result: Result, *, fresh: bool = False) -> Result:
    """A result whose base is dequantised, if that is asked for.

    Args:
        fresh: believe no digest that is remembered.

    Raises:
        RecipeError, BaseModelError: as `Result.check` and `Base.dequantised` do.
    """
    if result.base is None or not result.export.dequantise:
        return result
    result.check()
    return replace(result, plain=result.base.dequantised(fresh=fresh))


def produce(result: Result, modules: Mapping[str, Merged], sink: Sink, keys: SigningKeys, work: Work) -> Result:
    """Write all files of a result to a sink; the same inputs and keys give the same bytes, however it is worked.

    Returns:
        The result, with what writing it lost, and which readers will refuse it.

    Raises:
        PolicyError: the sink keeps what it is given, and the result's grant is the record of one, or was forged or changed
            ("not-granted").
        RecipeError, BaseModelError: as `Result.check` does, and the writers of adapters and models.
        OutputError: a value does not fit the dtype ("overflow"), or the disk refuses.
    """
    if sink.keeps:
        check_grant(result.grant, "saving a soup")
    result.check()
    result = replace(result, warnings=(*result.warnings, *_refusals(result.export, modules)))
    result = replace(result, errors=_tensors(result, modules, sink, work))
    result = replace(result, warnings=(*result.warnings, *_approximated(result), *_rounded_away(result)))
    sink.write(GRANT, canonical_json(result.grant.to_dict()))
    sink.write(RECIPE, recipe_yaml(result))
    sink.write(REPORT, canonical_json({name: error.to_dict() for name, error in result.errors.items()}))
    sink.write("README.md", card(result))
    sink.write(DIGESTS, canonical_json({"inputs": result.inputs, "outputs": dict(sink.digests)}))
    sink.write(PROVENANCE, keys.signed(provenance(result, sink.digests)).to_bytes())
    return result


def _approximated(result: Result) -> tuple[str, ...]:
    """How much of what was merged the adapter leaves out, where nobody asked for its rank: one sentence."""
    lost = result.errors.get("truncation")
    if lost is None or result.export.rank is not None or lost.total <= _LOUD:
        return ()
    return (
        f"method {result.method} gives whole matrices, and the best adapter of the rank of all adapters together leaves out "
        f"{lost.total:.0%} of them: ask for a higher --rank, or write a model (--as model), which holds all",
    )


def _rounded_away(result: Result) -> tuple[str, ...]:
    """Whether a model lost more of the delta to its dtype than anybody would expect, and what to do: one sentence."""
    lost = result.errors.get("rounding_loss")
    if lost is None or lost.total <= _LOUD:
        return ()
    dtype = WORDS.get(result.export.dtype or "")
    kept = (
        f"rounding to {dtype}"
        if dtype
        else "rounding to the dtype of the base, which is kept where none is asked for as a wider one makes larger files,"
    )
    return (
        f"{kept} lost {lost.total:.0%} of the delta: write the model with --dtype fp32, or write an adapter, which loses nothing",
    )


def _refusals(export: Export, modules: Mapping[str, Merged]) -> tuple[str, ...]:
    if export.kind != "adapter":
        return ()
    return readers_refuse(modules, rank=export.rank, dtype=export.dtype or ADAPTER_DTYPE)


def _tensors(result: Result, modules: Mapping[str, Merged], sink: Sink, work: Work) -> Mapping[str, Errors]:
    export, base = result.export, result.base
    if base is not None and export.kind == "gguf-lora":
        return write_gguf_lora(sink, result, base, modules).to_dict()
    if base is not None and export.kind == "gguf":
        return {"rounding_loss": write_gguf_model(sink, result, result.plain or base, modules, work)}
    if base is not None:
        lost = write_model(
            sink, base, modules, dtype=export.dtype, shard_size=export.shard_size, plain=result.plain, work=work
        )
        return {"rounding_loss": lost}
    errors = write_adapter(
        sink, modules, rank=export.rank, dtype=export.dtype or ADAPTER_DTYPE, base_name=result.base_on_hub
    )
    return errors.to_dict()

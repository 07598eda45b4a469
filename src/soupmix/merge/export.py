"""From a soup to a finished folder: weights, card, recipe, grant, report and digests, all or nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from soupmix.base import Base
from soupmix.errors import BaseModelError, RecipeError
from soupmix.files import canonical_json, new_folder
from soupmix.merge.card import card
from soupmix.merge.fold import write_model
from soupmix.merge.lora import write_adapter
from soupmix.merge.provenance import PROVENANCE, provenance
from soupmix.merge.record import DIGESTS, GRANT, RECIPE, REPORT, portable, recipe_yaml
from soupmix.merge.sink import Sink
from soupmix.merge.stack import Errors
from soupmix.policy.grant import check_grant
from soupmix.trust.bundle import MODEL_SIGNATURE
from soupmix.trust.dsse import Envelope

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from securesystemslib.signer import CryptoSigner

    from soupmix.merge.soup import Soup

__all__ = ["Export", "Keys", "Saved", "produce", "save"]


@dataclass(frozen=True, slots=True)
class Export:
    """How a soup is written.

    Attributes:
        kind: "adapter" or "model". store, base: how the recipe refers to them.
        rank: of an adapter, None for exact. dtype: "F32", "F16", "BF16", or None for the base's own.
        shard_size: of a model, most bytes of tensors in one file.
    """

    kind: Literal["adapter", "model"]
    store: str
    base: str | None
    rank: int | None = None
    dtype: str | None = None
    shard_size: int = 0

    @property
    def form(self) -> str:
        """The dtype as the merge identity takes it; a cut rank makes another result of the same soup."""
        dtype = self.dtype or "base"
        return dtype if self.rank is None else f"{dtype} rank {self.rank}"


@dataclass(frozen=True, slots=True)
class Keys:
    """Who signs a result: its provenance, and the folder as OpenSSF's verifier reads it. None: nobody does."""

    provenance: "CryptoSigner | None" = None
    model: "EllipticCurvePrivateKey | None" = None

    @classmethod
    def read(cls, sign: str | Path | None, sign_model: str | Path | None) -> "Keys":
        """The keys of these files. Raises `RecipeError` as `soupmix.trust.keys.load_private` does."""
        if sign is None and sign_model is None:
            return cls()
        from soupmix.trust import load_model_key, read_private

        return cls(
            read_private(sign) if sign is not None else None,
            load_model_key(sign_model) if sign_model is not None else None,
        )

    def seal(self, envelope: Envelope) -> Envelope:
        """The envelope, signed if there is a key for it."""
        if self.provenance is None:
            return envelope
        from soupmix.trust import sign_envelope

        return sign_envelope(envelope, self.provenance)


@dataclass(frozen=True, slots=True)
class Saved:
    """A folder that was written.

    Attributes:
        folder: where. identity: the merge identity.
        digests: file name -> "sha256:<hex>".
        errors: what was lost, relative to the exact deltas: "truncation" and "total" of an adapter,
            "rounding_loss" of a model.
    """

    folder: Path
    identity: str
    digests: Mapping[str, str]
    errors: Mapping[str, Errors]


def save(
    soup: "Soup", folder: Path, export: Export, base: Base | None, *, force: bool, keys: Keys | None = None
) -> Saved:
    """Write everything into a new folder in one step.

    Raises:
        OutputError: the folder exists and `force` is not given, or the disk refuses.
        PolicyError: the soup was made from the record of a grant, or its grant was changed ("not-granted").
    """
    check_grant(soup.grant, "saving a soup")
    export = portable(export, folder)
    with new_folder(folder, force=force) as temporary:
        sink = Sink(temporary)
        identity, errors = produce(soup, sink, export, base, keys or Keys())
        if keys is not None and keys.model is not None:
            from soupmix.trust import sign_model

            digests = {name: digest.removeprefix("sha256:") for name, digest in sink.digests.items()}
            sink.write(MODEL_SIGNATURE, sign_model(folder.resolve().name, digests, keys.model))
    return Saved(folder, identity, dict(sorted(sink.digests.items())), errors)


def produce(
    soup: "Soup", sink: Sink, export: Export, base: Base | None, keys: Keys
) -> tuple[str, Mapping[str, Errors]]:
    """Write all files of an export to a sink; the same inputs and keys give the same bytes."""
    base_digest = _base_digest(soup, base)
    errors = _payload(soup, sink, export, base)
    identity = soup.identity(base_digest=base_digest, dtype=export.form)
    inputs = {"base": base_digest, "policy": soup.grant.policy_digest}
    inputs |= {f"adapter {item.name}": item.digest for item in soup.ingredients}
    sink.write(GRANT, canonical_json(soup.grant.to_dict()))
    sink.write(RECIPE, recipe_yaml(soup, export, identity, inputs, errors))
    sink.write(REPORT, canonical_json({name: error.to_dict() for name, error in errors.items()}))
    sink.write("README.md", card(soup, export, base, identity, errors))
    sink.write(DIGESTS, canonical_json({"inputs": inputs, "outputs": dict(sink.digests)}))
    sink.write(PROVENANCE, keys.seal(provenance(soup, export, identity, inputs, sink.digests)).to_bytes())
    return identity, errors


def _payload(soup: "Soup", sink: Sink, export: Export, base: Base | None) -> Mapping[str, Errors]:
    if base is not None:
        lost = write_model(sink, base, soup.modules, dtype=export.dtype, shard_size=export.shard_size)
        return {"rounding_loss": lost}
    name = soup.ingredients[0].base_name if soup.ingredients else ""
    errors = write_adapter(sink, soup.modules, rank=export.rank, dtype=export.dtype or "F32", base_name=name)
    return {"truncation": errors.truncation, "total": errors.total}


def _base_digest(soup: "Soup", base: Base | None) -> str:
    """The digest of the base, which every adapter must have been trained on."""
    for item in soup.ingredients:
        if base is not None and item.base_digest != base.digest:
            raise BaseModelError(
                f"adapter {item.name} was trained on base {item.base_name} ({item.base_digest}), but base "
                f"{base.name} is {base.digest}; merge into the base it was trained on",
                reason="wrong-base",
            )
    if base is not None:
        return base.digest
    if not soup.ingredients:
        raise RecipeError(
            "no adapter was granted a weight above zero, so there is no adapter to write: use the base model as it is, "
            "or write it with --as model",
            reason="empty-soup",
        )
    return soup.ingredients[0].base_digest

"""manifest.json: what a store holds, in one file that is replaced in one step. No torch here."""

import difflib
from collections.abc import Iterator
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, model_validator

from soupmix.errors import AdapterError, WeightError
from soupmix.fields import Cell, Digest, Hex, Name, NumberLine, read_model
from soupmix.files import canonical_json, digest_parts, write_file
from soupmix.public import public
from soupmix.sealed import read_sealed
from soupmix.weights import twins

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "MANIFEST",
    "Manifest",
    "ManifestEntry",
    "adapter_digest",
    "find_entry",
    "manifest_if_any",
    "read_manifest",
    "shipped_root",
    "write_manifest",
]

MANIFEST = "manifest.json"
_MAX_BYTES = 16 << 20


def _as_json(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    canonical_json(value)  # refuses NaN and infinity, which pydantic's JsonValue lets pass
    return value


JsonObject = Annotated[dict[str, JsonValue], AfterValidator(_as_json)]


def adapter_digest(config_sha256: str, tensors_sha256: str, base_digest: str) -> str:
    """Identity of an adapter, "sha256:<hex>": its two files and the base model it was trained on."""
    parts = {"config": config_sha256, "tensors": tensors_sha256, "base": base_digest}
    return f"sha256:{digest_parts('soupmix.adapter.v1', parts)}"


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


@public
class ManifestEntry(_Frozen):
    """One adapter of a store.

    Attributes:
        name: in the store.
        dimension: what it steers, such as "expertise".
        pole: to which end of it, such as "elementary".
        tags: free labels that deny rules can name.
        rank: of the modules that no pattern in adapter_config.json names.
        alpha: of these modules.
        scaling: "lora" is alpha / rank, "rslora" alpha / sqrt(rank).
        target_modules: last names of the adapted layers, sorted.
        config_sha256: hex, of adapter_config.json.
        tensors_sha256: hex, of adapter_model.safetensors.
        base: name of the base model.
        base_digest: identity of the base model.
        licence: SPDX identifier.
        training: how it was made, a free JSON object.
        effect: what was measured, a free JSON object.
        delta_norm: Frobenius norm of the adapter's whole delta at weight 1.
    """

    name: Name
    dimension: Name
    pole: Name
    tags: tuple[Name, ...] = ()
    rank: Annotated[int, Field(ge=1)]
    alpha: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    scaling: Literal["lora", "rslora"]
    target_modules: tuple[Cell, ...]
    config_sha256: Hex
    tensors_sha256: Hex
    base: Cell
    base_digest: Digest
    licence: Cell
    training: JsonObject = {}
    effect: JsonObject = {}
    delta_norm: Annotated[float, Field(ge=0, allow_inf_nan=False)]

    @property
    def digest(self) -> str:
        """Identity of the adapter, see `adapter_digest`; name, dimension and pole are not part of it."""
        return adapter_digest(self.config_sha256, self.tensors_sha256, self.base_digest)

    def __repr__(self) -> str:
        return f"<ManifestEntry {self.name}: {self.pole} of {self.dimension}, rank {self.rank}, {self.digest[:19]}...>"


@public
class Gram(_Frozen):
    """Inner products <delta_k, delta_l> of the adapters at weight 1, adapters in the order of their names.

    Attributes:
        total: over all modules: the upper triangle, row by row, [K (K + 1) / 2] numbers; in the file one line of text with
            ten significant digits.
        modules: module path -> the same over that module.
    """

    total: NumberLine = ()
    modules: dict[str, NumberLine] = {}

    def __repr__(self) -> str:
        return f"<Gram of {len(self.modules)} modules>"


@public
class Manifest(_Frozen):
    """Everything a store knows without opening an adapter.

    Attributes:
        schema_version: 1.
        adapters: by name.
        gram: inner products of their deltas.
        base_norm: Frobenius norm of the base's weights that adapters change, all modules together; None if not measured,
            as of a quantised base: rules that bound a norm are refused then.
        total_budget: most that the weights may sum to, in millionths, as measured for this set; None if not measured.
    """

    schema_version: Literal[1] = 1
    adapters: dict[Name, ManifestEntry] = {}
    total_budget: Annotated[int, Field(ge=0)] | None = None
    base_norm: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    gram: Gram = Gram()

    @model_validator(mode="after")
    def _consistent(self) -> "Manifest":
        for name, entry in self.adapters.items():
            if entry.name != name:
                raise ValueError(f"adapter {name!r} calls itself {entry.name!r}")
        if len({entry.base_digest for entry in self.adapters.values()}) > 1:
            raise ValueError("the adapters were trained on different base models")
        if found := twins((name, self.adapters[name].digest) for name in self.names):
            raise ValueError(f"{found[0]!r} and {found[1]!r} are one adapter; a store holds each once, under one name")
        size = len(self.adapters) * (len(self.adapters) + 1) // 2
        for key, triangle in [("total", self.gram.total), *self.gram.modules.items()]:
            if len(triangle) != size:
                raise ValueError(f"gram {key!r} has {len(triangle)} numbers, not {size}")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the adapters, sorted: the order of every vector and matrix."""
        return tuple(sorted(self.adapters))

    def __len__(self) -> int:
        return len(self.adapters)

    def __iter__(self) -> Iterator[ManifestEntry]:  # type: ignore[override]  # entries are what a manifest is made of
        return iter([self.adapters[name] for name in self.names])

    def inner_product(self, one: str, other: str) -> float:
        """<delta_one, delta_other> of two adapters' whole deltas at weight 1, without numpy."""
        first, second = sorted((self.names.index(one), self.names.index(other)))
        return self.gram.total[first * len(self) - first * (first - 1) // 2 + second - first]

    def gram_matrix(self, module: str | None = None) -> "np.ndarray":
        """[K, K] float64 inner products of the deltas, in total or of one module (zeros where nothing adapts it)."""
        import numpy as np

        count = len(self.adapters)
        matrix = np.zeros((count, count))
        triangle = self.gram.total if module is None else self.gram.modules.get(module)
        if triangle is not None:
            matrix[np.triu_indices(count)] = triangle
        return matrix + np.triu(matrix, 1).T

    def __repr__(self) -> str:
        names = shorten(", ".join(self.names), 80, placeholder=" ...")
        return f"<Manifest of {len(self.adapters)} adapters: {names}>"


def read_manifest(folder: Path) -> Manifest:
    """Read and check the manifest of a store.

    Raises:
        AdapterError: reason "no-manifest", "bad-manifest", or those of `soupmix.sealed`.
    """
    path = Path(folder) / MANIFEST
    try:
        raw, _ = read_sealed(path, cap=_MAX_BYTES, error=AdapterError)
    except AdapterError as error:
        if error.reason == "missing":
            raise AdapterError(f"{folder} is no adapter store: it holds no {MANIFEST}", reason="no-manifest") from None
        raise
    try:
        return read_model(Manifest, raw)
    except ValueError as error:
        raise AdapterError(f"{path} is not a manifest: {error}", reason="bad-manifest") from None


def manifest_if_any(folder: Path) -> Manifest | None:
    """The manifest of a store, or None where there is none yet. Raises AdapterError for one that is damaged."""
    try:
        return read_manifest(folder)
    except AdapterError as error:
        if error.reason == "no-manifest":
            return None
        raise


def find_entry(manifest: Manifest, name: str) -> ManifestEntry:
    """The entry of that name.

    Raises:
        WeightError: there is none ("unknown-adapter"); the message names the nearest, or all.
    """
    if name in manifest.adapters:
        return manifest.adapters[name]
    near = difflib.get_close_matches(str(name), manifest.names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"this store has {', '.join(manifest.names) or 'none yet'}"
    raise WeightError(f"no adapter {str(name)[:80]!a}; {hint}", reason="unknown-adapter")


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest of a store atomically; the same manifest gives the same bytes.

    Raises:
        OutputError: the disk refuses.
    """
    write_file(Path(folder) / MANIFEST, canonical_json(manifest.model_dump(mode="json")))


def shipped_root() -> Path:
    """The folder of the adapters that come with soupmix: inside the installed package, else in the checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "adapters"
    return installed if (installed / MANIFEST).is_file() else package.parents[1] / "adapters"

"""An extraction: what a source changes of its base, layer by layer, and the plain LoRA adapter that is saved of it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from soupmix.base import Base
from soupmix.dtypes import WORDS, dtype_code
from soupmix.errors import AdapterError, RecipeError
from soupmix.extract.spectrum import NOTHING, LayerChange, least_rank, losses
from soupmix.files import canonical_json, new_folder
from soupmix.merge.adapter import write_adapter
from soupmix.merge.record import DIGESTS, is_result
from soupmix.merge.result import ADAPTER_DTYPE, Errors, short
from soupmix.merge.sink import Sink
from soupmix.merge.stack import Stack
from soupmix.public import public
from soupmix.version import __version__

__all__ = ["ERRORS", "RECORD", "Extracted", "Extraction"]

ERRORS: Final = (1e-5, 0.01, 0.1)
"""The errors for which it is told what rank they need."""
RECORD: Final = "soupmix_extraction.json"
_ENERGIES: Final = (1, 4, 16, 64, 256)
_GOOD, _WITH_RANK, _LOUD = 0.01, 0.5, 0.05
_FP32: Final = 2.0**-23  # of a change: both its orthonormal factors rounded to fp32


@public
@dataclass(frozen=True, slots=True)
class Extracted:
    """An adapter that was extracted and written.

    Attributes:
        folder: where.
        rank: of the adapter.
        errors: what it misses of every layer's change, and in total of all changes, relative; upper bounds.
        digests: file name -> "sha256:<hex>".
        warnings: why the adapter may mean little, one sentence each.
    """

    folder: Path
    rank: int
    errors: Errors
    digests: Mapping[str, str]
    warnings: tuple[str, ...]

    def __repr__(self) -> str:
        return f"<Extracted adapter of rank {self.rank} in {self.folder}, missing {self.errors.total:.2g}>"


@public
@dataclass(frozen=True, slots=True)
class Extraction:
    """What a source changes of its base, from which a plain LoRA adapter can be saved.

    Attributes:
        source: name of its folder.
        method: PEFT's name of its method, such as "LOHA", or "full fine-tune".
        digest: of its files, "sha256:<hex>".
        base: the model that it was tuned from.
        layers: path -> the change of a linear layer, sorted by path.
        left_out: name of every other tensor that changed, which no LoRA can carry -> Frobenius norm of its change.
        warnings: what else a LoRA cannot carry, or was not compared, one sentence each.
        most: highest rank that can be saved.
    """

    source: str
    method: str
    digest: str
    base: Base
    layers: Mapping[str, LayerChange]
    left_out: Mapping[str, float]
    warnings: tuple[str, ...]
    most: int
    folder: Path = field(repr=False)

    @property
    def norm(self) -> float:
        """Frobenius norm of all changes together, left out ones included."""
        return float(self._losses()[0])

    def error(self, rank: int) -> float:
        """What an adapter of this rank misses of all changes, relative to `norm`; where it is large, an upper bound."""
        found = self._losses()
        return float(found[min(rank, len(found) - 1)] / found[0])

    def needed(self, error: float) -> int | None:
        """The least rank of an adapter that misses no more than this share of all changes; None if no known rank does."""
        return least_rank(self._losses(), error)

    def _losses(self) -> Tensor:
        return losses(self.layers.values(), math.hypot(*self.left_out.values()))

    def save(
        self,
        folder: str | Path,
        *,
        rank: int | None = None,
        error: float | None = None,
        dtype: str | None = None,
        force: bool = False,
    ) -> Extracted:
        """Write the nearest plain LoRA as a PEFT folder that `Store.add` takes, with a card, a record and digests.

        Args:
            folder: made in one step; must not exist unless `force`.
            rank: the rank of the adapter, less where less is exact; None is the least rank that meets `error`.
            error: the most that the adapter may miss of all changes, relative. None is .01, or .5 where `rank` is given.
            dtype: of the stored factors, "fp32", "fp16" or "bf16"; None is fp32.
            force: replace a folder that is empty or an earlier result.

        Raises:
            AdapterError: no rank up to `most` meets `error`, or `rank` does not ("inexact").
            RecipeError: a bad rank, error or dtype.
            OutputError: the folder exists, the disk refuses, or a value overflows the dtype.
        """
        return _save(self, Path(folder), rank=rank, error=error, dtype=dtype, force=force)

    def to_dict(self) -> dict[str, Any]:
        """For JSON; numbers to four significant digits."""
        return {
            "source": {"name": self.source, "method": self.method, "digest": self.digest},
            "base": {"name": self.base.label, "digest": self.base.digest},
            "norm": short(self.norm),
            "needed": {f"{each:g}": self.needed(each) for each in ERRORS},
            "layers": {path: _facts(layer) for path, layer in self.layers.items()},
            "left_out": {name: short(norm) for name, norm in self.left_out.items()},
            "warnings": list(self.warnings),
        }

    def __repr__(self) -> str:
        return f"<Extraction of {self.method} {self.source}, {len(self.layers)} layers, {len(self.left_out)} left out>"


def _facts(layer: LayerChange) -> dict[str, Any]:
    return {
        "norm": short(layer.norm),
        "needed": {f"{each:g}": layer.needed(each) for each in ERRORS},
        "energy": {str(rank): short(1.0 - layer.error(rank) ** 2) for rank in _ENERGIES},
    }


def _save(
    extraction: Extraction, folder: Path, *, rank: int | None, error: float | None, dtype: str | None, force: bool
) -> Extracted:
    """See `Extraction.save`."""
    code = ADAPTER_DTYPE if dtype is None else dtype_code(dtype)
    rank = _rank(extraction, rank, error)
    stacks = {path: _stack(layer, rank) for path, layer in extraction.layers.items()}
    reads = (extraction.folder, extraction.base.folder)
    with new_folder(folder, force=force, own=is_result, reads=reads) as temporary:
        sink = Sink(temporary)
        name = extraction.base.hub_id or extraction.base.label
        rounded = write_adapter(sink, stacks, rank=None, dtype=code, base_name=name).total
        errors = _errors(extraction, rank, rounded)
        said = (*extraction.warnings, *_loud(extraction, rank, errors.total))
        facts = {**extraction.to_dict(), "warnings": said, "soupmix": __version__, "rank": rank, "dtype": WORDS[code]}
        sink.write(RECORD, canonical_json({**facts, "error": errors.to_dict()}))
        sink.write("README.md", _card(extraction, rank, errors, said))
        inputs = {"base": extraction.base.digest, "source": extraction.digest}
        sink.write(DIGESTS, canonical_json({"inputs": inputs, "outputs": dict(sink.digests)}))
    return Extracted(folder, rank, errors, dict(sorted(sink.digests.items())), said)


def _rank(extraction: Extraction, rank: int | None, error: float | None) -> int:
    """The rank to write, if what it misses is allowed."""
    allowed = error if error is not None else _GOOD if rank is None else _WITH_RANK
    if not allowed >= 0.0:
        raise RecipeError(f"an error of {allowed} was asked for; give 0 or more, such as 0.05", reason="bad-error")
    if rank is not None and not 1 <= rank <= extraction.most:
        raise RecipeError(
            f"rank {rank} was asked for; this extraction kept vectors for 1 to {extraction.most}", reason="bad-rank"
        )
    exact = least_rank(losses(extraction.layers.values()), NOTHING) or extraction.most
    found = extraction.needed(max(allowed, NOTHING)) if rank is None else min(rank, exact)
    if found is None or found > extraction.most or extraction.error(found) > max(allowed, NOTHING):
        raise _inexact(extraction, rank or extraction.most, allowed)
    return max(found, 1)


def _inexact(extraction: Extraction, rank: int, allowed: float) -> AdapterError:
    missed, needs, left = extraction.error(rank), extraction.needed(allowed), _left_out(extraction)
    if needs is not None:
        why = f"rank {needs} misses no more"
    elif left > allowed:
        why = f"{left:.2g} is in {len(extraction.left_out)} tensors that no LoRA carries, such as {_first(extraction)}"
    else:
        why = "so does every rank that was tried"
    return AdapterError(
        f"a LoRA of rank {rank} misses {missed:.2g} of what {extraction.source} changes, more than the {allowed:.2g} that is "
        f"allowed ({why}); give another --rank, or --rank {rank} --error {math.ceil(missed * 100) / 100:g} to take it",
        reason="inexact",
    )


def _left_out(extraction: Extraction) -> float:
    """The share of the whole change that no LoRA carries."""
    return math.hypot(*extraction.left_out.values()) / extraction.norm


def _first(extraction: Extraction) -> str:
    return max(extraction.left_out, key=lambda name: extraction.left_out[name])


def _stack(layer: LayerChange, rank: int) -> Stack:
    """The factors of a layer in float64; its singular values are split evenly between them."""
    kept = min(rank, layer.left.shape[1])
    root = layer.values[:kept].sqrt()
    return Stack(
        root[:, None] * layer.right[:kept], layer.left[:, :kept] * root, torch.ones_like(root), torch.ones_like(root)
    )


def _errors(extraction: Extraction, rank: int, rounded: Errors) -> Errors:
    """At most: what cutting the rank misses, what vectors in fp32 lose, and what rounding to the stored dtype does."""
    modules = {path: layer.error(rank) + _FP32 + rounded.modules[path] for path, layer in extraction.layers.items()}
    return Errors(extraction.error(rank) + _FP32 + rounded.total, modules)


def _loud(extraction: Extraction, rank: int, error: float) -> tuple[str, ...]:
    said = []
    if extraction.left_out:
        said.append(
            f"{len(extraction.left_out)} tensors that changed are no linear layers and are left out, such as "
            f"{_first(extraction)}: {_left_out(extraction):.2g} of the whole change"
        )
    if error > _LOUD:
        needs = extraction.needed(_GOOD)
        known = (
            f"0.01 needs rank {needs}" if needs is not None else "no rank up to what was tried misses less than 0.01"
        )
        said.append(f"the adapter misses {error:.2g} of what {extraction.source} changes at rank {rank}; {known}")
    return tuple(said)


def _card(extraction: Extraction, rank: int, errors: Errors, warnings: tuple[str, ...]) -> bytes:
    """README.md with the hub's metadata in front."""
    from huggingface_hub import ModelCardData

    base = extraction.base.label
    on_hub = extraction.base.hub_id or base
    data = ModelCardData(
        base_model=on_hub, base_model_relation="adapter", library_name="peft", tags=["lora", "soupmix"]
    )
    method = extraction.method if extraction.method[0].islower() else f"PEFT {extraction.method}"
    lines = [
        f"- source {method}, digest `{extraction.digest}`",
        f"- base {base}, digest `{extraction.base.digest}`",
        f"- rank {rank}, which misses {short(errors.total):g} of the whole change (Frobenius norm)",
        *(f"- warning: {each}" for each in warnings),
    ]
    body = [
        f"# LoRA extracted from {extraction.source}",
        f"What {extraction.source} changes of {base}, as a plain LoRA adapter: tuned minus base, and the nearest matrices of "
        f"this rank, by soupmix {__version__}. Its licence is that of its source.",
        "\n".join(lines),
        f"`{RECORD}` has the error of every layer, `{DIGESTS}` names every file.",
    ]
    return f"---\n{data.to_yaml()}\n---\n\n".encode() + "\n\n".join(body).encode() + b"\n"

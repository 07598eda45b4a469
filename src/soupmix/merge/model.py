"""A full model: the deltas folded into the base weights, streamed tensor by tensor into safetensors."""

import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from soupmix.base import Base, Layer, LayerTable, TensorInfo
from soupmix.base.companions import CONFIG, config_of
from soupmix.base.layers import expert_path, weight_path
from soupmix.base.pieces import Piece, pieces_of
from soupmix.base.quantisation import quantisation_of
from soupmix.errors import BaseModelError
from soupmix.files import canonical_json, strict_json
from soupmix.merge.entries import Merged
from soupmix.merge.fold import Folding, Patch, Work
from soupmix.merge.parts import Norms
from soupmix.merge.result import Errors
from soupmix.merge.sink import Sink
from soupmix.merge.stack import one_thread
from soupmix.merge.tensors import DTYPES, Spec, TensorReader, header, shards, spec_of

__all__ = ["check_plain", "patches_of", "write_model"]

_CARRIED = {".json", ".txt", ".model", ".jinja", ".tiktoken"}
_CARRIED_STEMS = ("LICENSE", "LICENCE", "NOTICE")
_LARGEST_CARRIED = 256 << 20
_OF_QUANTISERS = {"quantize_config.json", "quant_config.json", "quantization_config.json", "hf_quant_config.json"}
"""What GPTQ, AWQ and ModelOpt lay beside their weights; readers take a model with such a file for a quantised one."""
_NOT_CARRIED = {"config.json", "model.safetensors.index.json", "adapter_config.json"}


def write_model(
    sink: Sink,
    base: Base,
    modules: Mapping[str, Merged],
    *,
    dtype: str | None,
    shard_size: int,
    plain: Base | None = None,
    work: Work,
) -> Errors:
    """Write base + deltas as a Hugging Face model folder.

    Every touched matrix is folded by `soupmix_kernels.merge_rows_` with fp32 accumulation, then rounded once. Every other tensor
    is copied byte for byte, or rounded once if `dtype` differs. A few blocks of tensors are in memory, besides the factors;
    see `soupmix.merge.fold`.

    Args:
        modules: module path -> merged update. dtype: "F32", "F16", "BF16", or None for each tensor's own.
        shard_size: most bytes of tensors in one file. plain: the base after its weights were dequantised.
        work: see there.

    Returns:
        What rounding to the written dtype lost of each delta: |rounded(W + delta) - (W + delta)| / |delta|.

    Raises:
        BaseModelError: the base has no such layer, another shape, another dtype, or is quantised.
        OutputError: a value does not fit the written dtype ("overflow").
    """
    folded = base if plain is None else plain
    config = _config(folded, dtype)
    layers, tensors = folded.layers(), folded.tensors()
    patches = patches_of(folded, layers, tensors, modules)
    with TensorReader() as reader:
        tensors = _untied(layers, tensors, reader)
        order = sorted(
            tensors, key=lambda name: (-_itemsize(tensors[name]), tensors[name].file.name, tensors[name].start)
        )
        parts = shards((spec_of(name, tensors[name], dtype) for name in order), shard_size)
        names, threads, done = _file_names(len(parts)), work.threads, 0
        lost: list[Norms] = []
        size = sum(spec.size for specs in parts for spec in specs)
        with one_thread(), Folding(reader, threads) as folding:
            for name, specs in zip(names, parts, strict=True):
                norms = sink.taken_over(name)
                done += sum(spec.size for spec in specs) if norms is not None else 0
                if norms is None:
                    with sink.stream(name) as stream:
                        stream.write(header(specs))
                        for spec in specs:
                            folding.write(stream, spec, tensors[spec.name], patches.get(spec.name, ()))
                            work.tell(done := done + spec.size, size)
                        folding.finish(stream)
                    sink.finished(name, norms := folding.norms())
                lost.append(norms)
    if len(parts) > 1:
        sink.write("model.safetensors.index.json", _index(names, parts))
    sink.write("config.json", config)
    _carry_over(sink, base, frozenset() if plain is None else _OF_QUANTISERS)
    return Errors.of(_together(lost))


def _together(parts: Iterable[Norms]) -> Norms:
    """The norms of modules, some of which lie in several files."""
    found: dict[str, list[tuple[float, float]]] = {}
    for part in parts:
        for module, pair in part.items():
            found.setdefault(module, []).append(pair)
    return {
        module: (math.hypot(*(a for a, _ in each)), math.hypot(*(b for _, b in each))) for module, each in found.items()
    }


def patches_of(
    base: Base, layers: LayerTable, tensors: Mapping[str, TensorInfo], modules: Mapping[str, Merged]
) -> Mapping[str, Sequence[Patch]]:
    """Name of a tensor on disk -> what is added to it, by first row, of every layer that changes.

    Raises:
        BaseModelError: the base has no such layer ("no-layer"), another shape, or it is no one matrix on disk ("in-pieces").
    """
    patches: dict[str, list[Patch]] = {}
    pieces: dict[str, Mapping[str, Sequence[Piece]]] = {}
    for path, stack in modules.items():
        weight = weight_path(path)
        layer = layers.get(weight)
        info = tensors.get(layer.tensors[0]) if layer is not None and layer.tensors and layer.tied is None else None
        if layer is None or info is None:
            raise BaseModelError(
                f"base model {base.name} has no weight {path}.weight of its own, which the adapters change",
                reason="no-layer",
            )
        if layer.kind == "experts" and weight != path:
            if weight not in pieces:
                pieces[weight] = _by_expert(pieces_of(layers, layer, tensors))
            for patch in _expert_patches(base, layer, tensors, path, stack, pieces[weight]):
                patches.setdefault(patch[0], []).append(patch[1])
            continue
        if layer.lies != "whole" or layer.kind == "experts" or weight != path:
            raise BaseModelError(
                f"base model {base.name} has several matrices in {path}, or holds it in pieces ({layer.tensors[0]}); soupmix "
                "folds into weights that are one matrix on disk: export an adapter",
                reason="in-pieces",
            )
        _check_fits(base, layer, info, stack)
        patches[layer.tensors[0]] = [Patch(path, 0, _as_stored(layer, stack))]
    return {name: sorted(each, key=lambda patch: patch.first) for name, each in patches.items()}


def _by_expert(pieces: Sequence[Piece]) -> Mapping[str, Sequence[Piece]]:
    found: dict[str, list[Piece]] = {}
    for piece in pieces:
        found.setdefault(expert_path(piece.path, piece.expert), []).append(piece)
    return found


def _expert_patches(
    base: Base,
    layer: Layer,
    tensors: Mapping[str, TensorInfo],
    path: str,
    stack: Merged,
    pieces: Mapping[str, Sequence[Piece]],
) -> Iterator[tuple[str, Patch]]:
    """Name of a tensor and what is added to it there, for the pieces of one expert."""
    if path not in pieces:
        raise BaseModelError(
            f"base model {base.name} has {layer.experts} experts in {layer.path}, and the adapters are for {path}",
            reason="no-layer",
        )
    turned = _as_stored(layer, stack)
    for piece in pieces[path]:
        _check_fits(base, layer, tensors[piece.tensor], stack)
        yield piece.tensor, Patch(path, piece.at, turned.rows(piece.first, piece.count))


def _check_fits(base: Base, layer: Layer, info: TensorInfo, stack: Merged) -> None:
    if layer.shape != stack.shape or (layer.lies == "whole" and info.shape != layer.stored_shape):
        raise BaseModelError(
            f"{layer.path}.weight has shape {list(info.shape)} in base model {base.name}, the adapters are for "
            f"{list(stack.shape)}",
            reason="shape-mismatch",
        )
    if info.dtype not in DTYPES:
        raise BaseModelError(
            f"{layer.path}.weight of base model {base.name} has dtype {info.dtype}; soupmix merges into F32, F16 "
            "and BF16",
            reason="unsupported-dtype",
        )


def _as_stored(layer: Layer, merged: Merged) -> Merged:
    """The update of a layer the way round in which its weight lies."""
    return merged.transposed() if layer.transposed else merged


def _untied(layers: LayerTable, tensors: Mapping[str, TensorInfo], reader: TensorReader) -> Mapping[str, TensorInfo]:
    """The tensors without second copies of tied weights, which some models carry. One that stayed beside a changed weight would
    untie them: transformers ties what is equal.
    """
    copies = set[str]()
    for layer in layers.values():
        first = layers[layer.tied].tensors if layer.tied is not None else layer.tensors
        if first != layer.tensors:
            pairs = zip(first, layer.tensors, strict=False)
            if len(first) == len(layer.tensors) and all(reader.same(tensors[a], tensors[b]) for a, b in pairs):
                copies.update(layer.tensors)
    return {name: info for name, info in tensors.items() if name not in copies}


def _itemsize(info: TensorInfo) -> int:
    return DTYPES[info.dtype].itemsize if info.dtype in DTYPES else 8


def _file_names(count: int) -> Sequence[str]:
    if count == 1:
        return ["model.safetensors"]
    return [f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]


def _index(names: Sequence[str], parts: Sequence[Sequence[Spec]]) -> bytes:
    files = {spec.name: name for name, specs in zip(names, parts, strict=True) for spec in specs}
    total = sum(spec.size for specs in parts for spec in specs)
    return canonical_json({"metadata": {"total_size": total}, "weight_map": files})


def _config(base: Base, dtype: str | None) -> bytes:
    """config.json of the result: the base's own bytes, or with the dtype replaced."""
    try:
        data = (base.folder / "config.json").read_bytes()
        config = strict_json(data)
    except (OSError, ValueError) as error:
        raise BaseModelError(
            f"config.json of base model {base.name} cannot be read: {error}", reason="bad-config"
        ) from error
    _check_plain(base, config)
    if dtype is None:
        return data
    name = str(DTYPES[dtype]).removeprefix("torch.")
    return (json.dumps(_with_dtype(config, name) | {"dtype": name}, indent=2, ensure_ascii=False) + "\n").encode()


def check_plain(base: Base) -> None:
    """Raise `BaseModelError` if the weights of a base are quantised ("quantised") or config.json is damaged ("bad-config")."""
    _check_plain(base, config_of(base.folder))


def _check_plain(base: Base, config: Mapping[str, Any]) -> None:
    if (found := quantisation_of(config, base.folder / CONFIG)) is not None:
        raise BaseModelError(
            f"base model {base.name} is quantised ({found.name}), and adapters are folded into plain weights only: write a "
            "plain model with --dequantise, merge into the model as it was before it was quantised, or export an adapter",
            reason="quantised",
        )


def _with_dtype(config: dict[str, Any], name: str) -> dict[str, Any]:
    return {
        key: _with_dtype(value, name) if isinstance(value, dict) else name if key in ("dtype", "torch_dtype") else value
        for key, value in config.items()
    }


def _carry_over(sink: Sink, base: Base, left: Collection[str]) -> None:
    """Tokenizer, chat template, generation config, licence: everything small that is not weights, code or a card.

    Args:
        left: names that are not carried over either.
    """
    for path in sorted(base.folder.iterdir()):
        plain = path.suffix in _CARRIED or path.name.startswith(_CARRIED_STEMS)
        if (
            path.is_file()
            and plain
            and path.name not in {*_NOT_CARRIED, *left}
            and not path.name.startswith("soupmix_")
        ):
            try:
                if path.stat().st_size > _LARGEST_CARRIED:
                    raise BaseModelError(
                        f"base model file {path} is larger than {_LARGEST_CARRIED >> 20} MiB, which no tokenizer and no "
                        "setting is; move it away",
                        reason="too-large",
                    )
                data = path.read_bytes()
            except OSError as error:
                raise BaseModelError(
                    f"base model file {path} cannot be read: {error.strerror}", reason="unreadable"
                ) from error
            sink.write(path.name, data)

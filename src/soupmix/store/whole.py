"""What an adapter changes beside factors of linear layers, by names and shapes: whole weights, rows, biases, lengths.

PEFT saves a weight that was trained as it is (`modules_to_save`, `bias`), the rows of an embedding that were
(`trainable_token_indices`), a bias of factor B (`lora_bias`), and DoRA's length of every output (`use_dora`). How much that
changes is tuned minus base; see `soupmix.store.deltas`.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from soupmix.base import Base, Layer, LayerTable
from soupmix.base.safetensors import StoredTensor
from soupmix.dtypes import WORDS
from soupmix.errors import AdapterError
from soupmix.store.config import EXTRACT, WholeSettings
from soupmix.store.names import MAX_KEY, Side, TensorPart
from soupmix.store.reader import PREFIX, check_dtype

__all__ = ["Extra", "embedding_parts", "extras_of"]

Kind = Literal["whole", "tokens", "bias", "magnitude"]

_MODEL = "merge it with PEFT's merge_and_unload, and use the result as a base"
_EMBEDDING = re.compile(r"(?P<path>\w+(?:\.\w+)*)\.lora_embedding_(?P<side>[AB])", re.ASCII)
_ENDINGS: Mapping[str, Kind] = {
    ".token_adapter.trainable_tokens_delta": "tokens",
    ".lora_B.bias": "bias",
    ".lora_magnitude_vector": "magnitude",
    ".lora_magnitude_vector.weight": "magnitude",
}
_WRAPPERS = re.compile(r"\.(?:base_layer|modules_to_save(?:\.default)?)(?=\.)", re.ASCII)
_DTYPES = (*WORDS, "F64")


@dataclass(frozen=True, slots=True)
class Extra:
    """One tensor of an adapter that is no factor of a linear layer.

    Attributes:
        key: its name in the file. kind: "whole", a weight as it was trained; "tokens", rows of one; "bias", of factor B;
            "magnitude", DoRA's length of every output.
        layer: what it changes; of kind "bias" the bias of a linear layer.
        module: path of the layer whose factors it belongs to; of others, of the layer that it changes.
        rows: of kind "tokens", which rows.
    """

    key: str
    kind: Kind
    layer: Layer
    module: str
    rows: tuple[int, ...] = ()


def embedding_parts(slots: Mapping[str, StoredTensor], layers: LayerTable, where: str) -> Mapping[str, TensorPart]:
    """Name of a tensor -> which factor it is, of factors of embeddings with a weight of their own.

    Raises:
        AdapterError: the weight is another layer's too ("embedding"), or it has another dtype than factors ("dtype").
    """
    found = {}
    tied = {layer.tied: path for path, layer in layers.items() if layer.tied is not None}
    for key, slot in slots.items():
        match = _EMBEDDING.fullmatch(key.removeprefix(PREFIX)) if len(key) <= MAX_KEY else None
        layer = layers.get(match["path"]) if match else None
        if match is None or layer is None or layer.kind != "embedding":
            continue
        if (other := layer.tied or tied.get(layer.path)) is not None:
            raise _tied(where, layer.path, other)
        check_dtype(key, slot.dtype, _DTYPES, where)
        side: Side = "A" if match["side"] == "A" else "B"
        found[key] = TensorPart(layer.path, layer.path, side, transposed=False, alpha_is_rank=False)
    return found


def extras_of(
    slots: Mapping[str, StoredTensor],
    settings: WholeSettings,
    base: Base,
    factors: Mapping[str, str],
    where: str,
) -> Sequence[Extra]:
    """Every other tensor of the file that says what becomes of a weight of the base. What is none of these is left to the caller.

    Args:
        slots: those that are no factors, by name. factors: path as the file has it -> module, of those that have factors.

    Raises:
        AdapterError: it is for another base ("wrong-base"), for a weight of several names ("embedding") or one that does not lie
            in the base as it is ("in-pieces", "quantised"); two tensors say what becomes of one weight ("bad-key"); rows,
            biases or lengths are not what the config says ("bad-config", "dora").
    """
    layers = base.layers()
    by_parameter = {layer.parameter: layer for layer in layers.values()}
    found, modules = [], set(factors.values())
    for key, slot in slots.items():
        extra = _extra(key, by_parameter, layers, factors, settings, where) if len(key) <= MAX_KEY else None
        if extra is not None:
            _check_place(extra, base, where)
            _check_slot(extra, slot, modules, where)
            found.append(extra)
    _check_once(found, layers, modules, where)
    _check_settings(found, settings, modules, where)
    return found


def _extra(
    key: str,
    by_parameter: Mapping[str, Layer],
    layers: LayerTable,
    factors: Mapping[str, str],
    settings: WholeSettings,
    where: str,
) -> Extra | None:
    name = key.removeprefix(PREFIX)
    for ending, kind in _ENDINGS.items():
        said = name.removesuffix(ending)
        path = factors.get(said, said)
        if said != name and path in layers:
            layer = layers.get(f"{path}.bias") if kind == "bias" else layers[path]
            if layer is None:
                raise AdapterError(
                    f"{where} holds {key[:120]!a} (lora_bias), and {path} of the base has no bias that it could be added to: "
                    "train without lora_bias",
                    reason="wrong-base",
                )
            return Extra(key, kind, layer, path, _rows(layer, settings, where) if kind == "tokens" else ())
    layer = by_parameter.get(_WRAPPERS.sub("", name))
    return None if layer is None else Extra(key, "whole", layer, layer.path)


def _rows(layer: Layer, settings: WholeSettings, where: str) -> tuple[int, ...]:
    """The rows of a layer that were trained; a list without a name is of the embedding, as PEFT has it."""
    path = layer.path
    if layer.kind not in ("embedding", "linear"):
        raise AdapterError(
            f"{where} holds rows of {path}, and only embeddings and heads have a row for each token: it was trained on another "
            "base",
            reason="wrong-base",
        )
    found = [
        rows
        for name, rows in settings.tokens.items()
        if (path == name or path.endswith(f".{name}") if name else layer.kind == "embedding")
    ]
    if len(found) != 1:
        raise AdapterError(
            f"{where} holds rows of {path}, and trainable_token_indices in its config says {'nothing' if not found else 'twice'} "
            "which rows they are",
            reason="bad-config",
        )
    return found[0]


def _check_place(extra: Extra, base: Base, where: str) -> None:
    """Refuse what does not lie in the base as one tensor of numbers."""
    layer, layers = extra.layer, base.layers()
    if base.quantisation is not None:
        raise AdapterError(
            f"{where} changes {layer.path} as a whole ({extra.key[:120]!a}), by as much as it differs from the base's, which is "
            f"quantised ({base.quantisation.name}): add it for the base as it was before it was quantised",
            reason="quantised",
        )
    if layer.kind == "experts" or layers[layer.tied or layer.path].lies != "whole":
        raise AdapterError(
            f"{where} changes {layer.path} as a whole ({extra.key[:120]!a}), which the base holds with other weights in one "
            f"tensor, or in pieces: {_MODEL}",
            reason="in-pieces",
        )


def _check_slot(extra: Extra, slot: StoredTensor, factors: Collection[str], where: str) -> None:
    check_dtype(extra.key, slot.dtype, _DTYPES, where)
    layer, shape = extra.layer, tuple(slot.shape)
    wanted = layer.stored_shape
    if extra.kind == "tokens":
        wanted = (len(extra.rows), *layer.stored_shape[1:])
    elif extra.kind == "magnitude":
        wanted = (layer.outputs,)
    if shape != wanted:
        grown = extra.kind == "whole" and len(shape) == len(wanted) == 2 and shape[1] == wanted[1]
        more = f"; for another vocabulary, {_MODEL}" if grown else ""
        raise AdapterError(
            f"{where} holds {extra.key[:120]!a} of shape {list(shape)}; for {layer.path} of the base it must be "
            f"{list(wanted)}{more}",
            reason="wrong-base",
        )
    if extra.kind == "tokens" and layer.tied is not None:
        raise _tied(where, layer.path, layer.tied)
    if max(extra.rows, default=0) >= layer.stored_shape[0]:
        raise AdapterError(
            f"{where} holds a row of token {max(extra.rows)}, and {layer.path} of the base has {layer.stored_shape[0]} rows: for "
            f"another vocabulary, {_MODEL}",
            reason="wrong-base",
        )
    if extra.kind in ("bias", "magnitude") and extra.module not in factors:
        raise AdapterError(
            f"{where} holds {extra.key[:120]!a}, and no factors of {extra.module}", reason="missing-factor"
        )


def _check_once(found: Sequence[Extra], layers: LayerTable, factors: Collection[str], where: str) -> None:
    """One tensor says what becomes of a weight, but for what is added to a bias; of a tied weight, one for each of its names."""
    held: dict[tuple[str, bool], str] = {}
    for extra in found:
        place = extra.layer.path, extra.kind == "bias"
        other = held.setdefault(place, extra.key)
        if other != extra.key or (extra.kind in ("whole", "tokens") and extra.layer.path in factors):
            also = other if other != extra.key else "factors"
            raise AdapterError(
                f"{where} says by {extra.key[:120]!a} and by {also[:120]!a} what becomes of {extra.layer.path}, and it can be "
                f"only one: {_MODEL}",
                reason="bad-key",
            )
    whole = {extra.layer.path for extra in found if extra.kind == "whole"}
    for path in whole:
        for other in _others(layers[path], layers):
            if other not in whole:
                raise _tied(where, path, other)


def _others(layer: Layer, layers: LayerTable) -> Iterator[str]:
    """Other layers with the same weight."""
    first = layer.tied or layer.path
    for path, each in layers.items():
        if path != layer.path and (path == first or each.tied == first):
            yield path


def _tied(where: str, path: str, other: str) -> AdapterError:
    return AdapterError(
        f"{where} changes {path}, and in this base its weight is that of {other} too (tie_word_embeddings): PEFT would make two "
        "weights of it, and the base has one. Train single tokens (trainable_token_indices), or both with ensure_weight_tying, "
        f"or on a base whose head has a weight of its own; {EXTRACT}",
        reason="embedding",
    )


def _check_settings(found: Sequence[Extra], settings: WholeSettings, factors: Collection[str], where: str) -> None:
    lengths = {extra.module for extra in found if extra.kind == "magnitude"}
    if lengths != (set(factors) if settings.dora else set()):
        module = min(set(factors) ^ lengths if settings.dora else lengths)
        raise AdapterError(
            f"{where} holds {'lengths' if module in lengths else 'no lengths'} of {module} (DoRA), and its config says "
            f"use_dora = {settings.dora}: it is not known what was trained",
            reason="dora",
        )
    biases = [extra for extra in found if extra.kind == "bias"]
    if biases and not settings.lora_bias:
        raise AdapterError(
            f"{where} holds {biases[0].key[:120]!a}, and its config says lora_bias = False, so that PEFT would leave it out: "
            "it is not known what was trained",
            reason="bad-config",
        )

"""From a folder to an extraction: an adapter of any PEFT method, or a full fine-tune."""

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Final

from soupmix.base import Base, resolve
from soupmix.base.companions import CONFIG as MODEL_CONFIG
from soupmix.dtypes import WORDS
from soupmix.errors import AdapterError, RecipeError
from soupmix.extract.change import BaseWeights, Change
from soupmix.extract.extraction import Extraction
from soupmix.extract.finetune import FineTune
from soupmix.extract.settings import parse_settings
from soupmix.extract.spectrum import LayerChange, decomposed
from soupmix.extract.tuner import Tuner
from soupmix.merge.stack import one_thread
from soupmix.merge.tensors import TensorReader
from soupmix.store.folder import SourceFolder, source_folder
from soupmix.store.importing import PICKLED
from soupmix.store.manifest import adapter_digest
from soupmix.store.names import MAX_KEY
from soupmix.store.reader import CONFIG, MAX_BYTES, MAX_CONFIG, TENSORS, check_dtype, header_of, load_tensors

__all__ = ["MOST", "extract_adapter"]

MOST: Final = 256
"""Highest rank of an adapter, where none is said."""


def extract_adapter(source: str | Path, *, base: str | Path | Base, most: int = MOST) -> Extraction:
    """Find out what an adapter of any PEFT method, or a full fine-tune, changes of its base.

    PEFT merges an adapter layer by layer, in float64 and in memory; nothing that the folder names is run or fetched. At most
    a few matrices are in memory, besides the adapter and the singular vectors.

    Args:
        source: a PEFT folder (LoRA with DoRA, rsLoRA, PiSSA or OLoRA; AdaLoRA, LoHa, LoKr, VeRA, IA3, OFT), or a folder with
            config.json and all weights in safetensors.
        base: the model that it was tuned from, or its name, folder, GGUF file or hub id.
        most: highest rank that can be saved; singular vectors beyond it are not kept.

    Raises:
        AdapterError: the source is damaged, hostile, of another base, unsupported, changes no linear layer ("no-change"), or
            says twice what becomes of one ("bad-key").
        BaseModelError: the base is not found, damaged, or does not lie on disk as plain numbers.
        RecipeError: `most` is not positive ("bad-rank").
    """
    if most < 1:
        raise RecipeError(f"rank {most} was asked for; it must be at least 1", reason="bad-rank")
    source, found = Path(source), base if isinstance(base, Base) else resolve(base)
    layers: dict[str, LayerChange] = {}
    left_out: dict[str, float] = {}
    with TensorReader() as reader, _opened(source, BaseWeights(found, reader), reader) as opened:
        with one_thread():  # so that the bytes do not depend on how many there are
            for change in opened.changes():
                _take(change, most, layers, left_out, source)
        said = opened.method, opened.digest
    if not layers:
        changed = f"; what it changes, such as {next(iter(left_out))}, no LoRA can carry" if left_out else ""
        raise AdapterError(f"{source} changes no linear layer of {found.label}{changed}", reason="no-change")
    return Extraction(
        source.resolve().name,
        *said,
        found,
        MappingProxyType(dict(sorted(layers.items()))),
        MappingProxyType(dict(sorted(left_out.items()))),
        tuple(opened.warnings),
        most,
        source,
    )


def _take(change: Change, most: int, layers: dict[str, LayerChange], left_out: dict[str, float], source: Path) -> None:
    if change.delta is not None and change.name in layers:
        raise AdapterError(
            f"{source} says twice what becomes of {change.name}, by a whole weight and by factors or by two whole weights, and "
            "it can be only one: merge it with PEFT's merge_and_unload, and give the result as a full fine-tune",
            reason="bad-key",
        )
    if change.norm and change.delta is not None:
        layers[change.name] = decomposed(change.delta, most)
    elif change.norm:
        left_out[change.name] = math.hypot(left_out.get(change.name, 0.0), change.norm)


@contextmanager
def _opened(source: Path, weights: BaseWeights, reader: TensorReader) -> Iterator[FineTune | Tuner]:
    """A source of either kind."""
    with source_folder(source) as folder:
        if folder.holds(MODEL_CONFIG) and not folder.holds(CONFIG):
            yield FineTune(source, weights, reader)
        else:
            yield _tuner(folder, weights)


def _tuner(folder: SourceFolder, weights: BaseWeights) -> Tuner:
    """A PEFT adapter: its two files are read once, checked and hashed."""
    config = folder.read(CONFIG, cap=MAX_CONFIG)
    settings = parse_settings(config, str(folder.path / CONFIG))
    if folder.holds(PICKLED) and not folder.holds(TENSORS):
        raise AdapterError(
            f"adapter folder {folder.path} holds {PICKLED} and no {TENSORS}; a pickle can run code when it is read: convert "
            f"it with `soupmix adapters convert {folder.path} NEW_FOLDER`, in a process that can do nothing else",
            reason="pickle",
        )
    where = str(folder.path / TENSORS)
    with folder.sealed(TENSORS, cap=MAX_BYTES) as content:
        slots = header_of(content, where)
        for key, slot in slots.items():
            if len(key) > MAX_KEY:
                raise AdapterError(f"{where} holds a tensor with a name of {len(key)} characters", reason="bad-key")
            check_dtype(key, slot.dtype, WORDS, where)
        if not slots:
            raise AdapterError(f"{where} holds no tensors", reason="empty")
        digest = adapter_digest(hashlib.sha256(config).hexdigest(), content.sha256, weights.base.digest)
        return Tuner(str(folder.path), settings, load_tensors(content, where), weights, digest)

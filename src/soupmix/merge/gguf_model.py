"""A full model as GGUF: what `write_model` writes, in llama.cpp's names and order of rows, with its tokenizer and the record.

Layout: llama.cpp's `ggml/docs/gguf.md`. Header, settings and the table of tensors come first and are known before a tensor is
made. Tensors follow, each at a multiple of 32 bytes, folded and streamed as for a Hugging Face folder. Matrices have the dtype
that is asked for, or the base's own; vectors are fp32, as llama.cpp computes with them.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from soupmix.base import Base, LayerTable, TensorInfo
from soupmix.errors import BaseModelError
from soupmix.merge.entries import Merged
from soupmix.merge.fold import Folding, Work
from soupmix.merge.gguf_layout import ROPE_FACTORS, GgufLayout, describe, gguf_layout, gguf_names, rope_factors
from soupmix.merge.gguf_record import describe_result, modelfile
from soupmix.merge.gguf_vocabulary import describe_vocabulary
from soupmix.merge.model import check_plain, patches_of
from soupmix.merge.result import Errors, Result
from soupmix.merge.sink import Sink, Stream
from soupmix.merge.stack import one_thread
from soupmix.merge.tensors import DTYPES, Spec, TensorReader, raw, spec_of

__all__ = ["MODEL_FILE", "write_gguf_model"]

MODEL_FILE: Final = "model.gguf"
_ALIGNED: Final = 32
_FILE_TYPES: Final = {"F32": 0, "F16": 1, "BF16": 32}


@dataclass(frozen=True, slots=True)
class _Tensor:
    """One tensor of the file.

    Attributes:
        spec: how it is written. info: where the base has it, under the name `stored`. per_head: rows of a head, where they are
            reordered.
    """

    spec: Spec
    stored: str
    info: TensorInfo
    per_head: int | None


def write_gguf_model(sink: Sink, result: Result, base: Base, modules: Mapping[str, Merged], work: Work) -> Errors:
    """Write `model.gguf` and `Modelfile`.

    Args:
        result: of kind "gguf". base: its own, with plain weights. modules: module path -> merged update.

    Returns:
        What rounding to the written dtype lost of each delta, as `write_model` does.

    Raises:
        BaseModelError: llama.cpp's layout, a name or the tokenizer of the base is not known here ("no-gguf-layout",
            "no-gguf-tokenizer"), or as `write_model` does.
        OutputError: a value does not fit the written dtype ("overflow").
    """
    check_plain(base)
    layout, layers, tensors = gguf_layout(base), base.layers(), base.tensors()
    found = _tensors(layout, layers, tensors, base, result.export.dtype)
    factors = rope_factors(layout, base)
    head = _head(result, base, layout, found, None if factors is None else len(factors))
    patches, size = patches_of(base, layers, tensors, modules), sum(each.spec.size for each in found)
    threads, done = work.threads, 0
    with TensorReader() as reader, one_thread(), Folding(reader, threads) as folding, sink.stream(MODEL_FILE) as stream:
        stream.write(head)
        if factors is not None:
            _filled_up(stream, raw(factors))
        for each in found:
            folding.write(stream, each.spec, each.info, patches.get(each.stored, ()), each.per_head)
            if padding := -each.spec.size % _ALIGNED:
                folding.finish(stream)
                stream.write(bytes(padding))
            work.tell(done := done + each.spec.size, size)
        folding.finish(stream)
    sink.write("Modelfile", modelfile(result, [f"FROM ./{MODEL_FILE}"]))
    return Errors.of(folding.norms())


def _tensors(
    layout: GgufLayout, layers: LayerTable, tensors: Mapping[str, TensorInfo], base: Base, dtype: str | None
) -> Sequence[_Tensor]:
    """All weights of the model in its order; copies of tied ones and what the model does not use are left out."""
    own = [layer for layer in layers.values() if layer.tied is None]
    for layer in own:
        if (
            layer.lies != "whole"
            or layer.kind in ("conv1d", "experts")
            or tensors[layer.tensors[0]].dtype not in DTYPES
        ):
            raise BaseModelError(
                f"base model {base.name} does not hold {layer.path} as one plain tensor; write a model (--as model)",
                reason="no-gguf-layout",
            )
    names = gguf_names(layout, {layer.parameter: layer.stored_shape[0] for layer in own}, base)
    found = []
    for layer in own:
        name, info = names[layer.parameter], tensors[layer.tensors[0]]
        heads = layout.heads_of(name)
        spec = replace(spec_of(name, info, "F32" if len(info.shape) < 2 else dtype), name=name)
        found.append(_Tensor(spec, layer.tensors[0], info, None if heads is None else info.shape[0] // heads))
    return found


def _head(result: Result, base: Base, layout: GgufLayout, found: Sequence[_Tensor], factors: int | None) -> bytes:
    """Everything before the first tensor, filled up."""
    import numpy as np
    from gguf import GGMLQuantizationType, GGUFWriter

    single, dtypes = np.dtype(np.float32), Counter(each.spec.dtype for each in found if len(each.spec.shape) > 1)
    with TemporaryDirectory(prefix="soupmix-gguf-") as folder:
        writer = GGUFWriter(Path(folder) / MODEL_FILE, layout.architecture)
        writer.add_type("model")
        writer.add_file_type(_FILE_TYPES[dtypes.most_common(1)[0][0]])
        describe_result(writer, result)
        describe(writer, layout, base)
        (rows,) = [each.spec.shape[0] for each in found if each.spec.name == "token_embd.weight"]
        describe_vocabulary(writer, base, rows)
        if factors is not None:
            writer.add_tensor_info(ROPE_FACTORS, (factors,), single, 4 * factors)
        for each in found:
            kind = GGMLQuantizationType[each.spec.dtype]
            writer.add_tensor_info(each.spec.name, each.spec.shape, single, each.spec.size, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        writer.close()
        head = (Path(folder) / MODEL_FILE).read_bytes()
    return head + bytes(-len(head) % _ALIGNED)


def _filled_up(stream: Stream, piece: memoryview) -> None:
    stream.write(piece)
    stream.write(bytes(-len(piece) % _ALIGNED))

"""A GGUF LoRA: the merged deltas as llama.cpp and Ollama read an adapter, with the record inside and a Modelfile beside it.

Layout: llama.cpp's src/llama-adapter.cpp. `general.type` is "adapter", `adapter.type` "lora"; a weight NAME.weight of the base
has NAME.weight.lora_a [r, in] and NAME.weight.lora_b [out, r], whose scale is `adapter.lora.alpha` / r. All modules have one
rank, as in a PEFT adapter of ours. Where llama.cpp rotates neighbours and transformers halves (the Llama family), the rows of q
and k are in another order, and so are those of their B.
"""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

import torch

from soupmix.base import Base
from soupmix.merge.adapter import AdapterLosses, Made, filled, made_factors
from soupmix.merge.entries import Merged
from soupmix.merge.gguf_layout import GgufLayout, gguf_layout, gguf_names, reordered
from soupmix.merge.gguf_record import describe_result, modelfile, quiet
from soupmix.merge.result import ADAPTER_DTYPE, Result
from soupmix.merge.sink import Sink

if TYPE_CHECKING:
    from gguf import GGUFWriter

__all__ = ["FILE", "MODELFILE", "write_gguf_lora"]

FILE: Final = "adapter.gguf"
MODELFILE: Final = "Modelfile"
_PIECE: Final = 16 << 20


def write_gguf_lora(sink: Sink, result: Result, base: Base, modules: Mapping[str, Merged]) -> AdapterLosses:
    """Write `adapter.gguf` and `Modelfile`.

    Args:
        result: of kind "gguf-lora". base: its own. modules: module path -> merged update; at least one.

    Raises:
        BaseModelError: llama.cpp's layout of the base, or its name of a module, is not known here ("no-gguf-layout").
        RecipeError, OutputError: as `soupmix.merge.adapter.write_adapter` does.
    """
    layout, dtype = gguf_layout(base), result.export.dtype or ADAPTER_DTYPE
    names = gguf_names(layout, {path: merged.shape[0] for path, merged in modules.items()}, base)
    made = made_factors(modules, rank=result.export.rank, dtype=dtype)
    with TemporaryDirectory(prefix="soupmix-gguf-") as folder:
        _write(Path(folder) / FILE, result, layout, names, made, dtype)
        with (Path(folder) / FILE).open("rb") as file, sink.stream(FILE) as stream:
            while piece := file.read(_PIECE):
                stream.write(piece)
    sink.write(MODELFILE, _modelfile(result))
    return made.losses


def _write(path: Path, result: Result, layout: GgufLayout, names: Mapping[str, str], made: Made, dtype: str) -> None:
    from gguf import GGMLQuantizationType, GGUFWriter

    writer = GGUFWriter(path, layout.architecture)
    _describe(writer, result, made.rank)
    for module, (A, B) in made.factors.items():
        name, rank = names[module], made.rank
        heads = layout.heads_of(name)
        B = reordered(B, None if heads is None else len(B) // heads)
        for end, factor in (("a", filled(A, (rank, A.shape[1]))), ("b", filled(B, (B.shape[0], rank)))):
            data = factor.contiguous().view(torch.uint8).numpy()
            writer.add_tensor(f"{name}.weight.lora_{end}", data, raw_dtype=GGMLQuantizationType[dtype])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _describe(writer: "GGUFWriter", result: Result, rank: int) -> None:
    """What llama.cpp needs, and the record."""
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(rank))
    describe_result(writer, result)


def _modelfile(result: Result) -> bytes:
    """The base's own GGUF has the template."""
    said = f"# Put the base ({quiet(result.base_on_hub)}), as llama.cpp converts it, beside this file as base.gguf."
    return modelfile(result, [said, "FROM ./base.gguf", f"ADAPTER ./{FILE}"])

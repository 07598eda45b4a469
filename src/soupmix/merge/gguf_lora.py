"""A GGUF LoRA: the merged deltas as llama.cpp and Ollama read an adapter, with the record inside and a Modelfile beside it.

Layout: llama.cpp's src/llama-adapter.cpp. `general.type` is "adapter", `adapter.type` "lora"; a weight NAME.weight of the base
has NAME.weight.lora_a [r, in] and NAME.weight.lora_b [out, r], whose scale is `adapter.lora.alpha` / r. All modules have one
rank, as in a PEFT adapter of ours. Where llama.cpp rotates neighbours and transformers halves (the Llama family), the rows of q
and k are in another order, and so are those of their B.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor

from soupmix.base import Base
from soupmix.base.companions import config_of
from soupmix.errors import BaseModelError
from soupmix.files import canonical_json
from soupmix.merge.adapter import AdapterLosses, Made, filled, made_factors
from soupmix.merge.entries import Merged
from soupmix.merge.result import ADAPTER_DTYPE, Result
from soupmix.merge.sink import Sink

if TYPE_CHECKING:
    from gguf import GGUFWriter

__all__ = ["FILE", "MODELFILE", "write_gguf_lora"]

FILE: Final = "adapter.gguf"
MODELFILE: Final = "Modelfile"
_PIECE: Final = 16 << 20
_FAMILIES: Final = {
    "LlamaForCausalLM": ("llama", True),
    "MistralForCausalLM": ("llama", True),
    "Qwen2ForCausalLM": ("qwen2", False),
    "Qwen3ForCausalLM": ("qwen3", False),
}
"""Class of transformers -> architecture of llama.cpp, and whether its converter reorders the rows of q and k."""


@dataclass(frozen=True, slots=True)
class _Layout:
    """How llama.cpp has a base: architecture, layers, heads of q and k (None: rows keep their order), whether input and output
    embeddings are one."""

    architecture: str
    layers: int
    heads: Mapping[str, int] | None
    tied: bool


def write_gguf_lora(sink: Sink, result: Result, base: Base, modules: Mapping[str, Merged]) -> AdapterLosses:
    """Write `adapter.gguf` and `Modelfile`.

    Args:
        result: of kind "gguf-lora". base: its own. modules: module path -> merged update; at least one.

    Raises:
        BaseModelError: llama.cpp's layout of the base, or its name of a module, is not known here ("no-gguf-layout").
        RecipeError, OutputError: as `soupmix.merge.adapter.write_adapter` does.
    """
    layout, dtype = _layout(base), result.export.dtype or ADAPTER_DTYPE
    names = _names(layout, modules, base)
    made = made_factors(modules, rank=result.export.rank, dtype=dtype)
    with TemporaryDirectory(prefix="soupmix-gguf-") as folder:
        _write(Path(folder) / FILE, result, layout, names, made, dtype)
        with (Path(folder) / FILE).open("rb") as file, sink.stream(FILE) as stream:
            while piece := file.read(_PIECE):
                stream.write(piece)
    sink.write(MODELFILE, _modelfile(result))
    return made.losses


def _layout(base: Base) -> _Layout:
    config = config_of(base.folder)
    listed = config.get("architectures")
    kind = listed[0] if isinstance(listed, list) and listed else None
    if not isinstance(kind, str) or kind not in _FAMILIES:
        raise BaseModelError(
            f"base {base.name} is a {str(kind)[:80]!a}, and how llama.cpp names and orders its weights is not known here (known: "
            f"{', '.join(_FAMILIES)}); write a PEFT adapter (--as adapter) and convert it with llama.cpp's own "
            "convert_lora_to_gguf.py",
            reason="no-gguf-layout",
        )
    architecture, reordered = _FAMILIES[kind]
    heads = _natural(config, "num_attention_heads")
    of_keys = heads if config.get("num_key_value_heads") is None else _natural(config, "num_key_value_heads")
    tied = config.get("tie_word_embeddings") is True
    layers = _natural(config, "num_hidden_layers")
    return _Layout(architecture, layers, {"attn_q": heads, "attn_k": of_keys} if reordered else None, tied)


def _natural(config: Mapping[str, Any], key: str) -> int:
    value = config.get(key)
    if type(value) is not int or not 0 < value < 1 << 20:
        raise BaseModelError(f"config.json of the base gives {key} = {str(value)[:80]!a}", reason="bad-config")
    return value


def _names(layout: _Layout, modules: Mapping[str, Merged], base: Base) -> Mapping[str, str]:
    """Module path -> llama.cpp's name of it, without ".weight"."""
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    (kind,) = [arch for arch, name in MODEL_ARCH_NAMES.items() if name == layout.architecture]
    known = get_tensor_name_map(kind, layout.layers)
    names = {path: known.get_name(path) for path in modules}
    for path, name in names.items():
        if name is None or (name == "output" and layout.tied):
            raise BaseModelError(
                f"the soup changes {path}, for which llama.cpp has no weight of its own in base {base.name}; leave its adapter "
                "out, or merge it into a model (--as model)",
                reason="no-gguf-layout",
            )
        heads = (layout.heads or {}).get(name.rpartition(".")[2])
        if heads is not None and modules[path].shape[0] % (2 * heads):
            raise BaseModelError(
                f"config.json of the base gives {heads} heads, and {path} has {modules[path].shape[0]} rows",
                reason="bad-config",
            )
    return names


def _write(path: Path, result: Result, layout: _Layout, names: Mapping[str, str], made: Made, dtype: str) -> None:
    from gguf import GGMLQuantizationType, GGUFWriter

    writer = GGUFWriter(path, layout.architecture)
    _describe(writer, result, made.rank)
    for module, (A, B) in made.factors.items():
        name, rank = names[module], made.rank
        B = _reordered(B, (layout.heads or {}).get(name.rpartition(".")[2]))
        for end, factor in (("a", filled(A, (rank, A.shape[1]))), ("b", filled(B, (B.shape[0], rank)))):
            data = factor.contiguous().view(torch.uint8).numpy()
            writer.add_tensor(f"{name}.weight.lora_{end}", data, raw_dtype=GGMLQuantizationType[dtype])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _describe(writer: "GGUFWriter", result: Result, rank: int) -> None:
    """What llama.cpp needs, what people look for, and the record."""
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(rank))
    writer.add_name(f"Soup of {result.base_name}")
    writer.add_license(", ".join(sorted({item.licence for item in result.ingredients})))
    writer.add_string("soupmix.identity", result.identity)
    writer.add_string("soupmix.method", result.method)
    writer.add_string("soupmix.options", canonical_json(dict(result.options)).decode())
    writer.add_string("soupmix.inputs", canonical_json(result.inputs).decode())
    writer.add_string("soupmix.grant", canonical_json(result.grant.to_dict()).decode())


def _reordered(B: Tensor, heads: int | None) -> Tensor:
    """Rows from (head, half, place in it) to (head, place, half)."""
    if heads is None:
        return B
    return B.reshape(heads, 2, B.shape[0] // heads // 2, B.shape[1]).transpose(1, 2).reshape(B.shape)


def _modelfile(result: Result) -> bytes:
    """Ollama's recipe. The template is that of the base's own GGUF, so none is said."""
    licences = "\n".join(f"{_quiet(item.name)}: {_quiet(item.licence)}" for item in result.ingredients)
    lines = [
        f"# Put the base ({_quiet(result.base_on_hub)}), as llama.cpp converts it, beside this file as base.gguf.",
        "FROM ./base.gguf",
        f"ADAPTER ./{FILE}",
        f'LICENSE """{licences}"""',
    ]
    return "\n".join(lines).encode() + b"\n"


def _quiet(text: str) -> str:
    """Text of others on one line and without quotes, so that it cannot end the word that it stands in."""
    return ascii(text)[1:-1].replace('"', "'")

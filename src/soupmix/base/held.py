"""The blocks of 8 or 4 bits that a GGUF file holds linear layers in, kept beside what was converted from it.

A conversion rounds to bf16, which all else computes with; an engine in "int8" or "int4" takes these instead, and rounds nothing.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from soupmix.base.cache import cache_root

if TYPE_CHECKING:
    from soupmix.base.resolver import Base
    from soupmix_kernels.compiled import Blocks

__all__ = ["HELD_FILE", "read_held", "write_held"]

HELD_FILE: Final = "held.blocks"
"""In the form of safetensors, and not called so: vLLM and others take every file of that name in a folder for weights."""
_SHAPES: Final = "shapes"  # key of the metadata; one alone, as several are written in any order


def write_held(folder: Path, model: Any) -> None:
    """Write the blocks of every linear layer of a model in fp32 that has some, by the layer's path; no file if none has."""
    from safetensors.torch import save_file
    from torch import nn

    from soupmix_kernels.compiled import Blocks

    linears = {path: each for path, each in model.named_modules() if isinstance(each, nn.Linear)}
    found = {path: blocks for path, each in linears.items() if (blocks := Blocks.exactly(each.weight.data)) is not None}
    if found:
        shapes = json.dumps({path: each.shape for path, each in found.items()})
        save_file({path: each.data for path, each in found.items()}, folder / HELD_FILE, {_SHAPES: shapes})


def read_held(base: "Base") -> Mapping[str, "Blocks"]:
    """Path of a layer -> the blocks of 8 or 4 bits that the base's GGUF file holds it in, exactly; none of other bases.

    They are read from the cache alone, whose record says whether a file is as it was written, and from no folder of others.
    """
    from safetensors import safe_open

    from soupmix_kernels.compiled import Blocks

    path, cache = base.folder / HELD_FILE, cache_root() if base.cache is None else base.cache
    if base.folder.parent != cache / "bases" or not path.is_file():
        return {}
    with safe_open(path, "pt") as file:
        shapes = json.loads(file.metadata()[_SHAPES])
        return {name: Blocks.of_data(file.get_tensor(name), (out, inputs)) for name, (out, inputs) in shapes.items()}

"""What is not plain LoRA, as plain LoRA: tuned minus base, and of that the nearest matrices of a rank, with what they miss.

Names are imported on first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from soupmix.extract.extraction import Extracted, Extraction
    from soupmix.extract.opening import extract_adapter
    from soupmix.extract.spectrum import LayerChange

__all__ = ["Extracted", "Extraction", "LayerChange", "extract_adapter"]

_HOMES = {
    "Extracted": "extraction",
    "Extraction": "extraction",
    "LayerChange": "spectrum",
    "extract_adapter": "opening",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)

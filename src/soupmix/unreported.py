"""Libraries that would tell their makers how they are used do not, unless the user's environment says that they may.

trl tells Hugging Face of every trainer that is made, Ray and vLLM of every cluster and engine that is started.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Final

__all__ = ["UNREPORTED", "unreported"]

UNREPORTED: Final[Mapping[str, str]] = MappingProxyType(
    {"HF_HUB_DISABLE_TELEMETRY": "1", "RAY_USAGE_STATS_ENABLED": "0", "VLLM_NO_USAGE_STATS": "1"}
)
"""Variables of the environment that these libraries look at."""


@contextmanager
def unreported() -> Iterator[None]:
    """Within, nothing is told by this process and those that it starts; what the user has set stays as it is."""
    unsaid = [name for name in UNREPORTED if name not in os.environ]
    os.environ.update({name: UNREPORTED[name] for name in unsaid})
    constants = sys.modules.get("huggingface_hub.constants")  # it looked at the environment when it was imported
    before = getattr(constants, "HF_HUB_DISABLE_TELEMETRY", None)
    if constants is not None and "HF_HUB_DISABLE_TELEMETRY" in unsaid:
        constants.__dict__["HF_HUB_DISABLE_TELEMETRY"] = True
    try:
        yield
    finally:
        for name in unsaid:
            os.environ.pop(name, None)
        if constants is not None:
            constants.__dict__["HF_HUB_DISABLE_TELEMETRY"] = before

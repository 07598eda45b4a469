"""textstat, which reads its list of words by a package that setuptools no longer has."""

import io
import sys
from importlib import import_module, resources
from types import ModuleType
from typing import Any

__all__ = ["textstat"]


def textstat() -> Any:
    """Its one object."""
    stand_in = ModuleType("pkg_resources")
    stand_in.resource_stream = lambda package, name: io.BytesIO(  # type: ignore[attr-defined]
        resources.files(package).joinpath(name).read_bytes()
    )
    before = sys.modules.setdefault("pkg_resources", stand_in)
    try:
        return import_module("textstat").textstat
    finally:
        if before is stand_in:
            del sys.modules["pkg_resources"]

"""The recipe inside a result, with a record of what came of it, and the names of the files beside it."""

import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import yaml

from soupmix.dtypes import WORDS
from soupmix.errors import FileError
from soupmix.files import strict_json
from soupmix.merge.provenance import PROVENANCE
from soupmix.merge.result import Export, Result, short
from soupmix.replacing import plain_names
from soupmix.sealed import read_sealed
from soupmix.trust.dsse import MODEL_SIGNATURE
from soupmix.version import __version__
from soupmix.weights import Weights

__all__ = ["DIGESTS", "GRANT", "RECIPE", "REPORT", "is_result", "portable", "recipe_yaml"]

RECIPE = "soupmix_recipe.yaml"
GRANT = "soupmix_grant.json"
REPORT = "soupmix_report.json"
DIGESTS = "soupmix_digests.json"
_MAX_RECORD = 4 << 20

_HEADING = """\
# Written by soupmix. `soupmix verify` on this folder checks every file and repeats the merge.
# `soupmix merge` repeats it under a policy: the upper part is the recipe, `record` is what came of it.
"""


def is_result(folder: Path) -> bool:
    """Whether a folder holds nothing but regular files that its own record lists, so that it may be replaced."""
    try:
        outputs = strict_json(read_sealed(folder / DIGESTS, cap=_MAX_RECORD)[0])["outputs"]
        listed = {*outputs, DIGESTS, PROVENANCE, MODEL_SIGNATURE}
    except (FileError, OSError, ValueError, KeyError, TypeError, RecursionError):
        return False
    present = plain_names(folder)
    return present is not None and present <= listed


def portable(export: Export, folder: Path) -> Export:
    """Folders in the recipe relative to the folder that holds it, so that both can move together."""
    return replace(export, store=_relative(export.store, folder), base=_relative(export.base, folder))


def _relative(reference: Any, folder: Path) -> Any:
    if reference in (None, "shipped") or not Path(reference).exists():
        return reference
    return Path(os.path.relpath(Path(reference).resolve(), Path(folder).resolve())).as_posix()


def recipe_yaml(result: Result) -> bytes:
    """`soupmix_recipe.yaml`: what was asked for, then a record of the inputs and of what was granted and lost."""
    export = result.export
    recipe: dict[str, Any] = {
        "base": export.base or result.base_name,
        "store": export.store,
        "weights": _numbers(result.grant.requested),
        "method": result.method,
        **({"options": dict(result.options)} if result.options else {}),
        "as": export.kind,
        "dtype": WORDS.get(export.dtype or ""),
    }
    if not export.is_model:
        recipe["rank"] = export.rank
    if export.kind == "model":
        recipe["shard_size"] = export.shard_size
    if export.dequantise:
        recipe["dequantise"] = True
    recipe["record"] = {
        "soupmix": __version__,
        "identity": result.identity,
        **({"policies": [asdict(each) for each in result.grant.documents]} if result.grant.documents else {}),
        "granted": _numbers(result.grant.granted),
        "inputs": result.inputs,
        "lost": {name: short(error.total) for name, error in result.errors.items()},
        "warnings": list(result.warnings),
    }
    text = yaml.safe_dump(recipe, sort_keys=False, default_flow_style=False, width=120, allow_unicode=False)
    return (_HEADING + text).encode("ascii")


def _numbers(weights: Weights) -> dict[str, float | int]:
    return {name: int(value) if value == int(value) else value for name, value in weights.floats().items()}

"""Load time: adapters and a grant in, a PEFT adapter or a full model out, with the record that lets it be repeated.

Names are imported on first use, so that a recipe can be read without torch.
"""

import importlib
import sys
from inspect import getdoc, signature
from types import ModuleType
from typing import TYPE_CHECKING, Any

from soupmix.methods import DEFAULT

if TYPE_CHECKING:
    from soupmix.merge.entries import Entries
    from soupmix.merge.export import Saved
    from soupmix.merge.identity import merge_identity
    from soupmix.merge.recipe import Recipe, read_recipe
    from soupmix.merge.result import SHARD_SIZE, Errors, Ingredient
    from soupmix.merge.soup import Soup, merge
    from soupmix.merge.stack import Stack
    from soupmix.merge.verification import ResultVerdict, verify
    from soupmix.options import Options
    from soupmix.policy import Grant
    from soupmix.store.store import Store

__all__ = [
    "SHARD_SIZE",
    "Entries",
    "Errors",
    "Ingredient",
    "Recipe",
    "ResultVerdict",
    "Saved",
    "Soup",
    "Stack",
    "merge",
    "merge_identity",
    "read_recipe",
    "verify",
]

_HOMES = {
    "SHARD_SIZE": "result",
    "Entries": "entries",
    "Errors": "result",
    "Ingredient": "result",
    "Recipe": "recipe",
    "ResultVerdict": "verification",
    "Saved": "export",
    "Soup": "soup",
    "Stack": "stack",
    "merge": "soup",
    "merge_identity": "identity",
    "read_recipe": "recipe",
    "verify": "verification",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


class _Room(ModuleType):
    # `soupmix.merge` is this room and also the verb: `soupmix.merge(store, grant)`; so `help` tells of both.
    @property
    def __doc__(self) -> str:  # type: ignore[override]
        from soupmix.merge.soup import merge

        return f"{self.__dict__['__doc__']}\n\nmerge{signature(merge)}\n\n{getdoc(merge)}"

    def __call__(
        self, store: "Store", grant: "Grant", *, method: str = DEFAULT, options: "Options | None" = None
    ) -> "Soup":
        from soupmix.merge.soup import merge

        return merge(store, grant, method=method, options=options)


sys.modules[__name__].__class__ = _Room

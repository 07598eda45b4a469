"""Adapters that a command takes from folders, without any store: they are checked as any, in a store that is thrown away."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from soupmix.cli.asking import Asking
from soupmix.cli.options import find_store, open_base, open_store
from soupmix.errors import RecipeError
from soupmix.weights import Weights

if TYPE_CHECKING:
    from soupmix.base import Base
    from soupmix.store import Store

__all__ = ["beside_the_store", "lora_option"]


def lora_option(command: Any) -> Any:
    """`--lora NAME=FOLDER`, repeatable; the command gets `loras: tuple[str, ...]` for `beside_the_store`."""
    return click.option(
        "--lora",
        "loras",
        multiple=True,
        metavar="NAME=FOLDER",
        help="Adapter that is in no store, by the name that -w gives it a weight by; 1 if -w does not. Repeatable.",
    )(command)


@contextmanager
def beside_the_store(asking: Asking, loras: Sequence[str], base: str | None) -> Iterator[tuple[Asking, str | None]]:
    """What is asked, of a store that holds these adapters and those that -w names besides; and the base.

    Raises:
        RecipeError: a text is not NAME=FOLDER, or a name comes twice (reason "bad-lora").
        AdapterError, BaseModelError, WeightError, OutputError: as `Store.add` raises.
    """
    if not loras:
        yield asking, base
        return
    from soupmix.base import resolve
    from soupmix.store import Store
    from soupmix.store.beside import named_base

    folders = _folders(loras)
    found = resolve(base or named_base(next(iter(folders.values()))))
    others = [name for name in asking.weights if name not in folders]
    with TemporaryDirectory(prefix="soupmix-") as scratch:
        made = Store(Path(scratch) / "store", create=True)
        if others:
            _copy(open_store(find_store(asking.store, None, others)), others, made, found)
        for name, folder in folders.items():
            made.add(folder, name=name, dimension=name, pole=name, base=found, tell=_tell)
        weights = Weights({**dict.fromkeys(folders, "1"), **asking.weights.decimals()})
        yield replace(asking, store=made.folder, weights=weights), found.name


def _copy(store: "Store", names: Sequence[str], made: "Store", base: "Base") -> None:
    open_base(base.name, None, store)
    for name in names:
        entry = store[name]
        made.add(
            store.path(name),
            name=name,
            dimension=entry.dimension,
            pole=entry.pole,
            base=base,
            tags=entry.tags,
            tell=_tell,
        )


def _folders(texts: Sequence[str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for text in texts:
        name, equals, folder = text.partition("=")
        if not equals or not folder or name in found:
            raise RecipeError(
                f"--lora {text!r:.200} is not NAME=FOLDER with a name of its own, for example dry=out/dry",
                reason="bad-lora",
            )
        found[name] = Path(folder)
    return found


def _tell(note: Any) -> None:
    click.echo(f"soupmix: note: {note.message}", err=True)

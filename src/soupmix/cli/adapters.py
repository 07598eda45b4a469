"""`soupmix adapters`: what a store holds, and adding to it."""

import json
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from soupmix.cli.extracting import extract
from soupmix.cli.options import (
    PATH,
    base_option,
    find_store,
    json_option,
    maintain_option,
    open_store,
    print_json,
    read_adapters,
    store_option,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from soupmix.base import Base
    from soupmix.findings import Finding
    from soupmix.store import ManifestEntry, Store

__all__ = ["command"]


@click.group()
def command() -> None:
    """List, show, add, remove, convert and extract adapters."""


command.add_command(extract)


@command.command("list")
@store_option
@json_option
@click.option("--approve", is_flag=True, help="Print the YAML rule with which an organisation approves these adapters.")
def list_adapters(store: Path | None, as_json: bool, approve: bool) -> None:
    """List the adapters of a store; if none is named, those that are shipped and your own."""
    from soupmix.store.places import default_stores, read_store

    if as_json and approve:
        raise click.UsageError("--json and --approve exclude each other")
    places = default_stores() if store is None else (store,)
    entries = [entry for place in places for entry in read_store(place)]
    if approve:
        click.echo(_approve_rule(entries), nl=False)
    elif as_json:
        click.echo(json.dumps([_summary(entry) for entry in entries], indent=2))
    else:
        _print_table(entries)


@command.command("show")
@click.argument("name")
@store_option
@json_option
def show(name: str, store: Path | None, as_json: bool) -> None:
    """Show everything the store knows about one adapter."""
    from soupmix.store.manifest import find_entry

    entry = find_entry(read_adapters(find_store(store, None, [name])), name)
    facts = {"digest": entry.digest, **entry.model_dump(mode="json")}
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    for field, value in facts.items():
        click.echo(f"{field:<15} {_plain(value)}")


@command.command("add")
@click.argument("source", metavar="FOLDER|ORG/NAME[@REVISION]")
@click.option("--dimension", required=True, help="What it steers, for example expertise.")
@click.option("--pole", required=True, help="To which end, for example elementary.")
@click.option("--name", help="Its name in the store.  [default: the pole]")
@base_option("The base model it was trained on.", unsaid="that of the store, else the one that the adapter names")
@click.option("--tag", "tags", multiple=True, help="A label for policies; may be given more than once.")
@click.option("--licence", default="unknown", show_default=True, help="SPDX identifier.")
@store_option
@maintain_option
@click.option("--force", is_flag=True, help="Replace an adapter of that name.")
@json_option
def add(
    source: str,
    dimension: str,
    pole: str,
    name: str | None,
    base: str | None,
    tags: tuple[str, ...],
    licence: str,
    store: Path | None,
    maintain: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Check an adapter and copy it into a store: yours for its base, if none is named.

    FOLDER is a PEFT LoRA folder as it was saved or downloaded, or one of MLX-LM or kohya; other files in it are ignored. Of a
    hub, what is in its cache is used, what is not is fetched, never a pickle.
    The `training.json` and `effect.json` that `soupmix train` leaves beside an adapter go into the manifest.
    """
    notes: list[Finding] = []
    folder = _source(source, notes.append)
    target, found = _target(store, base, folder, maintain=maintain)
    entry = target.add(
        folder,
        dimension=dimension,
        pole=pole,
        base=found,
        name=name,
        tags=tags,
        licence=licence,
        **_facts(folder, notes.append),
        force=force,
        tell=notes.append,
    )
    _tell(notes)
    click.echo(f"added {entry.name} to {target.folder}", err=True)
    if as_json:
        said = [{"kind": note.kind, "subject": note.subject, "message": note.message} for note in notes]
        print_json({"name": entry.name, "digest": entry.digest, "notes": said})
    else:
        click.echo(entry.digest)


def _source(text: str, tell: "Callable[[Finding], object]") -> Path:
    """What is on the disk goes before the hub."""
    from soupmix.findings import Finding
    from soupmix.store.hub import download, hub_reference

    folder = Path(text)
    reference = None if folder.exists() else hub_reference(text)
    if reference is None:
        return folder
    found = download(*reference)
    tell(Finding("hub", text, f"{text} is {found} of the hub's cache"))
    return found


def _target(store: Path | None, base: str | None, folder: Path, *, maintain: bool) -> "tuple[Store, Base]":
    """The store to add to, and the base that its adapters are for."""
    from soupmix.base import base_of, resolve
    from soupmix.store import Store
    from soupmix.store.beside import named_base

    target = None if store is None else Store(store, create=True, maintain=maintain)
    if base is None and target:
        first = next(iter(target))
        return target, base_of(first.base, first.base_digest)
    name = named_base(folder) if base is None else base
    if base is None:
        click.echo(f"note: its base is {name}, as its adapter_config.json says; another is given with --base", err=True)
    found = resolve(name, squares=True)
    return Store.of_user(found) if target is None else target, found


@command.command("remove")
@click.argument("name")
@store_option
@maintain_option
def remove(name: str, store: Path | None, maintain: bool) -> None:
    """Take an adapter out of a store; what is shipped with soupmix stays."""
    target = open_store(find_store(store, None, [name]), maintain=maintain)
    target[name]  # who misspelt it is told that, and not whose store it is
    target.remove(name)
    click.echo(f"removed {name} from {target.folder}", err=True)


@command.command("push")
@click.argument("source", metavar="NAME|FOLDER")
@click.argument("repo", metavar="ORG/NAME")
@store_option
@click.option("--private", is_flag=True, help="Make the repository a private one, if it is not there yet.")
def push(source: str, repo: str, store: Path | None, private: bool) -> None:
    """Put an adapter of a store, or a FOLDER that `soupmix merge` wrote of whatever kind, on the hub, and print where.

    All files of it are readable by everybody who may read the repository: of a merged folder its grant and recipe too.
    """
    from soupmix.merge.record import DIGESTS
    from soupmix.store.hub import push as put
    from soupmix.store.importing import open_source

    folder = Path(source)
    if not folder.is_dir():
        target = open_store(find_store(store, None, [source]))
        target.load(source)  # its bytes are those of the manifest
        folder = target.path(source)
    checks = _as_recorded(folder) if (folder / DIGESTS).exists() else open_source(folder, {})
    with checks:
        click.echo(
            put(folder, repo, private=private, message=f"soupmix: {folder.name if source == str(folder) else source}")
        )


@contextmanager
def _as_recorded(folder: Path) -> "Iterator[None]":
    """A result, if its files are those that were written. Raises `OutputError` ("not-as-recorded")."""
    from soupmix.errors import OutputError
    from soupmix.merge.verification import verify

    if found := verify(folder, rebuild=False).findings:
        raise OutputError(
            f"{folder} is not what `soupmix merge` wrote, so it is not put on the hub: {found[0].message}",
            reason="not-as-recorded",
        )
    yield


@command.command("convert")
@click.argument("pickled", type=PATH)
@click.argument("folder", type=PATH)
def convert(pickled: Path, folder: Path) -> None:
    """Write FOLDER from an adapter that is saved as a pickle.

    PICKLED is a folder with adapter_model.bin, or that file. It is read in a process that can open, write and start nothing.
    """
    from soupmix.store.convert import convert_pickle

    _tell(convert_pickle(pickled, folder))
    click.echo(f"wrote {folder}; add it with `soupmix adapters add {folder}`", err=True)


@command.command("budget")
@click.argument("total")
@store_option
@maintain_option
def budget(total: str, store: Path | None, maintain: bool) -> None:
    """Record TOTAL as the most that all weights together may sum to, as measured for this set; "none" lifts it."""
    from soupmix.errors import WeightError
    from soupmix.weights import to_micro

    micro = None if total == "none" else to_micro(total, "total budget")
    if micro is not None and micro < 0:
        raise WeightError(f"total budget {total} is below 0; give 0 or more, or none", reason="bad-number")
    target = open_store(find_store(store, None), maintain=maintain)
    target.set_total_budget(micro)
    click.echo(f"total budget of {target.folder}: {total}", err=True)


def _tell(notes: "Iterable[Finding]") -> None:
    for note in notes:
        click.echo(f"note: {note.message}", err=True)


def _facts(folder: Path, tell: "Callable[[Finding], object]") -> dict[str, dict[str, Any]]:
    """What `soupmix train` left beside an adapter; files of somebody else under these names are left out, and told."""
    from soupmix.errors import AdapterError
    from soupmix.findings import Finding
    from soupmix.store.folder import source_folder

    found: dict[str, dict[str, Any]] = {}
    if not folder.is_dir():
        return found
    with source_folder(folder) as opened:
        for kind in ("training", "effect"):
            name = f"{kind}.json"
            try:
                found[kind] = opened.read_object(name, cap=1 << 20, reason="bad-facts")
            except AdapterError as error:
                tell(Finding("facts", name, f"{name} is left out: {error}"))
    return found


def _summary(entry: "ManifestEntry") -> dict[str, Any]:
    fields = {"name", "dimension", "pole", "tags", "rank", "alpha", "scaling", "base", "licence", "delta_norm"}
    return {**entry.model_dump(mode="json", include=fields), "digest": entry.digest}


def _approve_rule(manifest: "Iterable[ManifestEntry]") -> str:
    import yaml

    adapters = [
        {"name": entry.name, "digest": entry.digest, "dimension": entry.dimension, "pole": entry.pole}
        for entry in manifest
    ]
    return str(yaml.safe_dump([{"rule": "approve", "adapters": adapters}], sort_keys=False, width=120))


def _print_table(manifest: "Iterable[ManifestEntry]") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "dimension", "rank", "norm", "base", "digest", box=None, pad_edge=False)
    for entry in manifest:
        table.add_row(
            entry.name, entry.dimension, str(entry.rank), f"{entry.delta_norm:.3g}", entry.base, entry.digest[:19]
        )
    Console(soft_wrap=True).print(table)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)

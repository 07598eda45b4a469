"""`soupmix adapters`: what a store holds, and adding to it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from soupmix.cli.extracting import extract
from soupmix.cli.options import PATH, base_option, json_option, open_store, print_json, read_adapters, store_option

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from soupmix.findings import Finding
    from soupmix.store import Manifest, ManifestEntry

__all__ = ["command"]


@click.group()
def command() -> None:
    """List, show, add, convert and extract adapters."""


command.add_command(extract)


@command.command("list")
@store_option
@json_option
@click.option("--approve", is_flag=True, help="Print the YAML rule with which an organisation approves these adapters.")
def list_adapters(store: Path | None, as_json: bool, approve: bool) -> None:
    """List the adapters of a store."""
    if as_json and approve:
        raise click.UsageError("--json and --approve exclude each other")
    manifest = read_adapters(store)
    if approve:
        click.echo(_approve_rule(manifest), nl=False)
    elif as_json:
        click.echo(json.dumps([_summary(entry) for entry in manifest], indent=2))
    else:
        _print_table(manifest)


@command.command("show")
@click.argument("name")
@store_option
@json_option
def show(name: str, store: Path | None, as_json: bool) -> None:
    """Show everything the store knows about one adapter."""
    from soupmix.store.manifest import find_entry

    entry = find_entry(read_adapters(store), name)
    facts = {"digest": entry.digest, **entry.model_dump(mode="json")}
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    for field, value in facts.items():
        click.echo(f"{field:<15} {_plain(value)}")


@command.command("add")
@click.argument("folder", type=PATH)
@click.option("--dimension", required=True, help="What it steers, for example expertise.")
@click.option("--pole", required=True, help="To which end, for example elementary.")
@click.option("--name", help="Its name in the store.  [default: the pole]")
@base_option("The base model it was trained on.")
@click.option("--tag", "tags", multiple=True, help="A label for policies; may be given more than once.")
@click.option("--licence", default="unknown", show_default=True, help="SPDX identifier.")
@store_option
@click.option("--force", is_flag=True, help="Replace an adapter of that name.")
@json_option
def add(
    folder: Path,
    dimension: str,
    pole: str,
    name: str | None,
    base: str,
    tags: tuple[str, ...],
    licence: str,
    store: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Check an adapter and copy it into a store.

    FOLDER is a PEFT LoRA folder as it was saved or downloaded, or one of MLX-LM or kohya; other files in it are ignored.
    The `training.json` and `effect.json` that `soupmix train` leaves beside an adapter go into the manifest.
    """
    from soupmix.base import resolve
    from soupmix.store import Store
    from soupmix.store.manifest import shipped_root

    target = Store(store or shipped_root(), create=True)
    notes: list[Finding] = []
    entry = target.add(
        folder,
        dimension=dimension,
        pole=pole,
        base=resolve(base, squares=True),
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
        found = [{"kind": note.kind, "subject": note.subject, "message": note.message} for note in notes]
        print_json({"name": entry.name, "digest": entry.digest, "notes": found})
    else:
        click.echo(entry.digest)


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
def budget(total: str, store: Path | None) -> None:
    """Record TOTAL as the most that all weights together may sum to, as measured for this set; "none" lifts it."""
    from soupmix.errors import WeightError
    from soupmix.weights import to_micro

    micro = None if total == "none" else to_micro(total, "total budget")
    if micro is not None and micro < 0:
        raise WeightError(f"total budget {total} is below 0; give 0 or more, or none", reason="bad-number")
    target = open_store(store)
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


def _approve_rule(manifest: "Manifest") -> str:
    import yaml

    adapters = [
        {"name": entry.name, "digest": entry.digest, "dimension": entry.dimension, "pole": entry.pole}
        for entry in manifest
    ]
    return str(yaml.safe_dump([{"rule": "approve", "adapters": adapters}], sort_keys=False, width=120))


def _print_table(manifest: "Manifest") -> None:
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

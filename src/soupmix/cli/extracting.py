"""`soupmix adapters extract`: an adapter of any PEFT method, or a full fine-tune, as a plain LoRA."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from soupmix.cli.extras import need
from soupmix.cli.options import PATH, base_option, json_option, print_json
from soupmix.dtypes import WORDS
from soupmix.replacing import check_folder

if TYPE_CHECKING:
    from soupmix.extract import Extracted, Extraction

__all__ = ["extract"]

_MOST_WITH_ERROR = 1024  # singular vectors that are kept where the error decides alone
_SHOWN, _SHOWN_RANK = 40, 16  # rows of the table, and the rank that it is for where none is asked; the record has all


@click.command("extract")
@click.argument("source", type=PATH)
@click.argument("out", type=PATH)
@base_option("The model that it was tuned from.", unsaid="the one that SOURCE names")
@click.option(
    "--rank", type=click.IntRange(1), help="Rank of OUT.  [default: the least that --error allows, up to 256]"
)
@click.option(
    "--error",
    type=click.FloatRange(0, 1),
    help="The most that OUT may miss of what changed, as a share of its norm.  [default: 0.01, or 0.5 with --rank]",
)
@click.option("--dtype", type=click.Choice(tuple(WORDS.values())), default="fp32", show_default=True)
@click.option("--force", is_flag=True, help="Replace OUT if it is empty or an earlier result.")
@json_option
def extract(
    source: Path,
    out: Path,
    base: str | None,
    rank: int | None,
    error: float | None,
    dtype: str,
    force: bool,
    as_json: bool,
) -> None:
    """Turn an adapter of another method, or a full fine-tune, into a plain LoRA that `adapters add` takes.

    SOURCE is a PEFT folder (DoRA, PiSSA, OLoRA, AdaLoRA, LoHa, LoKr, VeRA, IA3, OFT), or a folder with all weights of a tuned
    model. What it changes of the base is computed, and OUT is the nearest LoRA of a rank. A table says what each layer would
    need, whether OUT is written or not.
    """
    need("extract", "extracting")
    from soupmix.base import resolve
    from soupmix.extract import extract_adapter
    from soupmix.extract.opening import MOST
    from soupmix.merge.record import is_result
    from soupmix.store.beside import named_base

    found = resolve(base or named_base(source))
    check_folder(out, force=force, own=is_result, reads=(source, found.folder))
    most = rank or (MOST if error is None else _MOST_WITH_ERROR)
    extraction = extract_adapter(source, base=found, most=most)
    _print_table(extraction, rank)
    saved = extraction.save(out, rank=rank, error=error, dtype=dtype, force=force)
    for warning in saved.warnings:
        click.echo(f"soupmix: warning: {warning}", err=True)
    if as_json:
        print_json(_summary(extraction, saved))
    else:
        click.echo(
            f"{saved.folder}: rank {saved.rank}, misses {saved.errors.total:.2g} of what {extraction.source} changes"
        )


def _summary(extraction: "Extraction", saved: "Extracted") -> dict[str, Any]:
    return {
        **extraction.to_dict(),
        "folder": str(saved.folder),
        "rank": saved.rank,
        "error": saved.errors.to_dict(),
        "digests": dict(saved.digests),
        "warnings": list(saved.warnings),
    }


def _print_table(extraction: "Extraction", rank: int | None) -> None:
    """What every layer needs, on stderr: the layers that change most first."""
    from soupmix.extract.extraction import ERRORS

    at = rank or _SHOWN_RANK
    rows = [("layer", "norm", *(f"rank for {each:g}" for each in ERRORS), f"missed at rank {at}")]
    layers = sorted(extraction.layers.items(), key=lambda item: -item[1].norm)
    for path, layer in layers[:_SHOWN]:
        rows.append((path, f"{layer.norm:.3g}", *map(_told, map(layer.needed, ERRORS)), f"{layer.error(at):.2g}"))
    if len(layers) > _SHOWN:
        rows.append((f"... and {len(layers) - _SHOWN} more", *[""] * (len(ERRORS) + 2)))
    rows += [(name, f"{norm:.3g}", *["none"] * len(ERRORS), "all") for name, norm in extraction.left_out.items()]
    needs = map(_told, map(extraction.needed, ERRORS))
    rows.append(("in all", f"{extraction.norm:.3g}", *needs, f"{extraction.error(at):.2g}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(map(str.ljust, row, widths)).rstrip(), err=True)


def _told(rank: int | None) -> str:
    return "more" if rank is None else str(rank)

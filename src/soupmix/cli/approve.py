"""`soupmix approve`: screen adapters and write the document that approves what was evaluated together."""

from datetime import date
from pathlib import Path

import click

from soupmix.cli.options import store_option
from soupmix.errors import RecipeError

__all__ = ["command"]


@click.command("approve")
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--combination",
    "combinations",
    multiple=True,
    metavar="NAME+NAME",
    help="Adapters that were evaluated together; any part of them is approved too. Repeatable.",
)
@click.option("--report", required=True, metavar="FILE", type=click.Path(path_type=Path), help="The evaluation report.")
@click.option("--until", required=True, metavar="DATE", help="Last day that the report counts, as in 2027-12-31.")
@click.option("--issuer", required=True, metavar="TEXT", help="Who approves.")
@click.option(
    "--document-version", "version", default="1", metavar="TEXT", help="Version of the document; 1 if not given."
)
@click.option("--total", metavar="NUMBER", help="Most that the weights of a combination may sum to, as evaluated.")
@click.option("--scanner", "scanners", multiple=True, metavar="NAME", help="Also ask this plug-in; repeatable.")
@click.option("--accept", multiple=True, metavar="KIND", help="Approve in spite of remarks of this kind; repeatable.")
@store_option
@click.option("--force", is_flag=True, help="Replace OUT.")
def command(
    out: Path,
    combinations: tuple[str, ...],
    report: Path,
    until: str,
    issuer: str,
    version: str,
    total: str | None,
    scanners: tuple[str, ...],
    accept: tuple[str, ...],
    store: Path | None,
    force: bool,
) -> None:
    """Screen adapters of a store and write OUT, a policy document of the organisation that approves combinations of them.

    Every adapter is read; norms, places and cosines of the deltas are compared, and remarks go to stderr. Exit code 1, and
    nothing is written, if there are remarks that were not accepted.
    """
    from soupmix.approve import Approval, draft, screen
    from soupmix.approve.screening import check_screened
    from soupmix.errors import OutputError
    from soupmix.files import write_file
    from soupmix.store import Store

    if out.exists() and not force:
        raise OutputError(f"{out} exists already; choose another name or pass --force to replace it", reason="exists")
    opened = Store(store) if store is not None else Store.shipped()
    groups = tuple(tuple(dict.fromkeys(each.split("+"))) for each in combinations)
    text, _ = draft(opened, Approval(groups, report, _day(until), issuer, version, total))
    remarks = screen(opened, sorted({name for each in groups for name in each}), scanners=scanners)
    for remark in remarks:
        click.echo(f"soupmix: remark: {remark}", err=True)
    check_screened(remarks, accept=accept)
    write_file(out, text.encode("ascii"))
    click.echo(f"soupmix: wrote {out}; sign it with `soupmix trust publish`", err=True)


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise RecipeError(f"{text!r:.40} is not a date; write it as in 2027-12-31", reason="bad-date") from None

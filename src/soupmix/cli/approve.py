"""`soupmix approve`: screen adapters and write the document that approves what was evaluated together."""

from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import click

from soupmix.cli.documents import inventory_file, set_files
from soupmix.cli.options import PATH, find_store, key_option, open_store, store_option
from soupmix.errors import RecipeError
from soupmix.replacing import check_file

if TYPE_CHECKING:
    from soupmix.approve import Remark
    from soupmix.store import Store

__all__ = ["command"]


@click.command("approve")
@click.argument("out", type=PATH)
@click.option(
    "--combination",
    "combinations",
    multiple=True,
    metavar="NAME+NAME",
    help="Adapters that were evaluated together; any part of them is approved too. Repeatable.",
)
@click.option(
    "--evidence",
    metavar="REPORT",
    type=PATH,
    help="report.json of `soupmix evaluate`; refused if it is of other adapters, of another base, or has no such soups.",
)
@click.option("--report", metavar="FILE", type=PATH, help="Instead: a report of any kind, which is not read.")
@click.option("--until", required=True, metavar="DATE", help="Last day that the report counts, as in 2027-12-31.")
@click.option("--issuer", required=True, metavar="TEXT", help="Who approves.")
@click.option(
    "--document-version", "version", default="1", metavar="TEXT", help="Version of the document; 1 if not given."
)
@click.option("--total", metavar="NUMBER", help="Most that the weights of a combination may sum to, as evaluated.")
@click.option(
    "--sweep",
    "swept_on",
    metavar="BASE",
    help="Also measure what each adapter does along its weight, on this base; --evidence of --safety has it.",
)
@click.option("--scanner", "scanners", multiple=True, metavar="NAME", help="Also ask this plug-in; repeatable.")
@click.option("--accept", multiple=True, metavar="KIND", help="Approve in spite of remarks of this kind; repeatable.")
@click.option("--publish", "folder", metavar="FOLDER", type=PATH, help="Also sign OUT as the new set in this folder.")
@click.option("--beside", multiple=True, metavar="FILE", type=PATH, help="For --publish: what else the set holds.")
@key_option("--targets-key", "targets", "For --publish: signs what the set holds.")
@key_option("--online-key", "online", "For --publish: signs that it is the newest.")
@store_option
@click.option("--force", is_flag=True, help="Replace OUT.")
def command(
    out: Path,
    combinations: tuple[str, ...],
    evidence: Path | None,
    report: Path | None,
    until: str,
    issuer: str,
    version: str,
    total: str | None,
    swept_on: str | None,
    scanners: tuple[str, ...],
    accept: tuple[str, ...],
    folder: Path | None,
    beside: tuple[Path, ...],
    targets: Path | None,
    online: Path | None,
    store: Path | None,
    force: bool,
) -> None:
    """Screen adapters of a store and write OUT, a policy document of the organisation that approves combinations of them.

    Every adapter is read; norms, places and cosines of the deltas are compared, and what each does along its weight if it was
    measured; remarks go to stderr. Exit code 1, and nothing is written, if there are remarks that were not accepted. With
    --publish the document is signed and published at once, as `soupmix trust publish --store` does.
    """
    from soupmix.approve import Approval, draft, screen
    from soupmix.approve.screening import check_screened
    from soupmix.files import write_file

    signer = _publisher(folder, out, beside, store, targets, online)
    given = (evidence, report, store, folder, targets, online)
    check_file(out, force=force, reads=(*beside, *(each for each in given if each is not None)))
    opened = open_store(find_store(store, None))
    groups = tuple(tuple(dict.fromkeys(each.split("+"))) for each in combinations)
    digest = _evidence(evidence, report, opened, groups, total)
    text, _ = draft(opened, Approval(groups, digest, _day(until), issuer, version, total))
    names = sorted({name for each in groups for name in each})
    remarks = (*screen(opened, names, scanners=scanners), *_swept(opened, names, evidence, swept_on))
    for remark in remarks:
        click.echo(f"soupmix: remark: {remark}", err=True)
    check_screened(remarks, accept=accept)
    write_file(out, text.encode("ascii"))
    if signer is None:
        click.echo(f"soupmix: wrote {out}; sign it with `soupmix trust publish`", err=True)
    else:
        click.echo(f"soupmix: wrote {out} and signed it in {folder}, version {signer()}", err=True)


def _evidence(
    evidence: Path | None, report: Path | None, store: "Store", groups: Sequence[tuple[str, ...]], total: str | None
) -> str:
    """The digest of what the approval rests on."""
    if evidence is not None and report is None:
        from soupmix.evaluate.evidence import digest_of_evidence

        return digest_of_evidence(evidence, store.manifest, groups, total)
    if report is not None and evidence is None:
        from soupmix.approve.draft import file_digest

        return file_digest(report)
    raise click.UsageError("give --evidence REPORT of `soupmix evaluate`, or --report FILE of any other kind")


def _swept(store: "Store", names: Sequence[str], evidence: Path | None, base: str | None) -> "tuple[Remark, ...]":
    """Remarks on sweeps: those measured now, or those that the evidence has."""
    from soupmix.approve import swept_remarks

    if base is not None:
        from soupmix.engine import Engine
        from soupmix.evaluate.sweep import sweep

        return swept_remarks(sweep(Engine.load(base, store, compiled=True), store, names))
    if evidence is None:
        return ()
    from soupmix.evaluate.evidence import sweeps_of_evidence

    return swept_remarks(sweeps_of_evidence(evidence, [(name, store[name].digest) for name in names]))


def _publisher(
    folder: Path | None,
    out: Path,
    beside: tuple[Path, ...],
    store: Path | None,
    targets: Path | None,
    online: Path | None,
) -> Callable[[], int] | None:
    """What signs OUT once it is written; keys are read before anything is screened or written."""
    if folder is None:
        if beside or targets or online:
            raise click.UsageError("--beside, --targets-key and --online-key are for --publish FOLDER")
        return None
    if targets is None or online is None:
        raise click.UsageError("--publish FOLDER needs --targets-key and --online-key")
    from soupmix.store import shipped_root
    from soupmix.trust import RoleKeys, publish, read_private

    keys = RoleKeys(read_private(targets), read_private(online))
    files = (out, *beside)
    return lambda: publish(
        folder, set_files(files) | inventory_file(find_store(store, None) or shipped_root(), files), keys=keys
    )


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise RecipeError(f"{text!r:.40} is not a date; write it as in 2027-12-31", reason="bad-date") from None

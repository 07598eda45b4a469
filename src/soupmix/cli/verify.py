"""`soupmix verify`: is a merged folder what its own record says it is?"""

import sys
from pathlib import Path

import click

from soupmix.cli.options import PATH, check_there, json_option, print_json, store_option

__all__ = ["command"]


@click.command("verify")
@click.argument("folder", type=PATH)
@click.option("--no-rebuild", is_flag=True, help="Only check the digests of the files; do not repeat the merge.")
@click.option("--key", metavar="PUB.pem", type=PATH, help="Public key that must have signed the provenance.")
@store_option
@click.option("--base", metavar="NAME", help="Where the base model is now, if not where the recipe says.")
@json_option
def command(
    folder: Path, no_rebuild: bool, key: Path | None, store: Path | None, base: str | None, as_json: bool
) -> None:
    """Check every file of a merged FOLDER and its provenance, then repeat the merge and compare it byte for byte.

    Of a GGUF file without its folder only the merge is repeated that it records.

    Exit code 1 if anything is not as recorded.
    """
    from soupmix.merge.verification import verify

    check_there(folder, "the folder that `soupmix merge` wrote, or a GGUF file of it")
    verdict = verify(folder, rebuild=not no_rebuild, store=store, base=base, key=key)
    if as_json:
        print_json(verdict.to_dict())
    elif verdict.ok:
        repeated = "the repeated merge gives the same bytes" if verdict.rebuilt else "the merge was not repeated"
        signed = f"signed by {key}" if verdict.signed else "no signature was asked for"
        click.echo(f"{folder}: {verdict.files} files as recorded; {repeated}; {signed}")
    else:
        for finding in verdict.findings:
            click.echo("  ".join(_printable(part) for part in (finding.kind, finding.subject, finding.message)))
    if not as_json:
        for each in verdict.policies or ():
            click.echo(f"granted under {_printable(str(each))}")
    for note in verdict.notes:
        click.echo(f"soupmix: note: {note}", err=True)
    if not verdict.ok:
        click.echo(f"soupmix: {folder} is not as recorded", err=True)
        sys.exit(1)


def _printable(text: str) -> str:
    """A file in a hostile folder may be called anything, for example two lines, or no Unicode at all."""
    return text if text.isprintable() else ascii(text)

"""`soupmix audit`: check an audit log, read it, prove what is in it, and forget a person."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import click

from soupmix import audit
from soupmix.audit import AuditLog, Checkpoint
from soupmix.cli.auditing import signer_of, tell_cut
from soupmix.cli.options import PATH, json_option, print_json
from soupmix.errors import AuditError

__all__ = ["command"]

_folder = click.argument("folder", metavar="DIR", type=PATH)
_sign_option = click.option("--sign", metavar="KEY.pem", type=PATH, help="Private Ed25519 key that signs checkpoints.")
_person_option = click.option(
    "--who", metavar="ID", required=True, help="The person, as `--who` named them to `merge`."
)


@click.group()
def command() -> None:
    """Check, export and prove an audit log, as `soupmix merge --audit DIR` writes it."""


@command.command("verify")
@_folder
@click.option(
    "--key", "keys", metavar="PUB.pem", multiple=True, type=PATH, help="Public key; repeatable, one must fit."
)
@click.option(
    "--held", metavar="NOTE", multiple=True, type=PATH, help="Checkpoint that was kept elsewhere; repeatable."
)
@json_option
def verify(folder: Path, keys: tuple[Path, ...], held: tuple[Path, ...], as_json: bool) -> None:
    """Compute the whole log in DIR anew: chain, tree, checkpoints.

    Without --held a cut end cannot be seen; without --key anybody could have made the checkpoints. Exit code 1 if
    anything is wrong.
    """
    verifier = audit.Verifier.load(keys) if keys else None
    verdict = audit.verify(folder, verifier=verifier, held=[_read_note(path) for path in held])
    if as_json:
        print_json({"ok": verdict.ok, **asdict(verdict)})
    else:
        click.echo(_text(folder, verdict), nl=False)
    if not verdict.ok:
        click.echo(f"soupmix: {folder} is not as it was written", err=True)
        sys.exit(1)


@command.command("export")
@_folder
@click.option("--who", metavar="ID", help="Only the records of this person.")
@click.option("--event", type=click.Choice(audit.EVENTS), help="Only records of this kind.")
@click.option("--first", default=0, show_default=True, type=click.IntRange(0), help="Number of the first record.")
@json_option
def export(folder: Path, who: str | None, event: str | None, first: int, as_json: bool) -> None:
    """Print the records of DIR, a line of JSON each, as they stand in the log; --json prints one JSON list.

    Chain and numbers are checked on the way; the output ends before the first bad record, with exit code 1.
    """
    name = None if who is None else _name(folder, who)
    chosen = (
        line.decode("ascii")
        for line, record in audit.read_records(folder)
        if record["sequence"] >= first
        and (name is None or record["who"] == name)
        and (event is None or record["entry"].get("event") == event)
    )
    if as_json:
        print_json([json.loads(line) for line in chosen])
        return
    for line in chosen:
        click.echo(line)


@command.command("checkpoint")
@_folder
@_sign_option
@click.option("--last", is_flag=True, help="Print the newest one that is there; works while a server writes the log.")
@json_option
def checkpoint(folder: Path, sign: Path | None, last: bool, as_json: bool) -> None:
    """Write down where the log in DIR stands, and print it: to be kept where whoever writes the log cannot reach it."""
    if last:
        note = audit.newest_checkpoint(folder)
    else:
        with AuditLog.open(folder, signer=signer_of(sign), create=False) as log:
            tell_cut(log)
            note = log.checkpoint()
    if not note.signatures:
        click.echo("soupmix: note: this checkpoint is not signed; anybody could have made it", err=True)
    if as_json:
        print_json({"note": note.text(), "size": note.size})
    else:
        click.echo(note.text(), nl=False)


@command.command("erase")
@_folder
@_person_option
@_sign_option
@json_option
def erase(folder: Path, who: str, sign: Path | None, as_json: bool) -> None:
    """Destroy a person's key in DIR: no record can be linked to that person any more, and the log stays valid."""
    with AuditLog.open(folder, signer=signer_of(sign), create=False) as log:
        tell_cut(log)
        erased = log.erase(who)
    text = "the key is destroyed" if erased else "there is no key for this person: never recorded, or erased before"
    click.echo(json.dumps({"erased": erased}) if as_json else text)


@command.command("prove")
@_folder
@click.argument("sequence", type=click.IntRange(0), required=False)
@click.option("--held", metavar="NOTE", type=PATH, help="Prove instead that the log goes on from this checkpoint.")
def prove(folder: Path, sequence: int | None, held: Path | None) -> None:
    """Prove to the holder of a checkpoint that record number SEQUENCE is in DIR, as JSON.

    The proof is about the newest checkpoint. It reveals one record, and of the others only hashes.
    """
    if (sequence is None) == (held is None):
        raise click.UsageError("give the number of a record, or --held NOTE")
    proof = audit.prove_consistency(folder, _read_note(held)) if held else audit.prove_inclusion(folder, sequence or 0)
    print_json(proof.to_dict())


def _read_note(path: Path) -> Checkpoint:
    try:
        return Checkpoint.parse(path.read_bytes().decode())
    except (OSError, UnicodeDecodeError) as error:
        raise AuditError(f"cannot read checkpoint {path}: {error}", reason="bad-checkpoint") from None


def _name(folder: Path, who: str) -> str:
    name = audit.pseudonym(folder, who)
    if name is None:
        raise AuditError(f"{folder} has no key for this person: never recorded, or erased", reason="unknown-person")
    return name


def _text(folder: Path, verdict: audit.LogVerdict) -> str:
    lines = [f"{each.kind}  {each.message}" for each in verdict.findings]
    if verdict.unfinished:
        lines.append(f"{verdict.unfinished} bytes of a record that was never finished or acknowledged stand at the end")
    if verdict.ok:
        checked = "all signed by the key given" if verdict.signatures_checked else "signatures not checked (no --key)"
        lines += [
            f"{folder}: {verdict.records} records in {verdict.segments} files as they were written",
            f"{verdict.checkpoints} checkpoints agree, {verdict.held} held ones; {verdict.signed} signed, {checked}",
            f"root {verdict.root}",
        ]
    return "".join(f"{line}\n" for line in lines)

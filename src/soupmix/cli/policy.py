"""`soupmix policy`: check, compare and test policy documents, and print their schema."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from soupmix.cli.documents import policy_files
from soupmix.cli.options import PATH, find_store, json_option, print_json, read_adapters, store_option
from soupmix.errors import OutputError, PolicyError

if TYPE_CHECKING:
    from soupmix.policy import Policy
    from soupmix.policy.cases import TestReport
    from soupmix.policy.compare import Difference

__all__ = ["command"]


@click.group("policy")
def command() -> None:
    """Begin, check, explain, compare and test policy documents."""


@command.command("check")
@click.argument("documents", nargs=-1, required=True, metavar="DOCUMENT...", type=PATH)
@store_option
@json_option
@click.option("--strict", is_flag=True, help="Exit code 1 also for notes and for rules without effect.")
def check(documents: tuple[Path, ...], store: Path | None, as_json: bool, strict: bool) -> None:
    """Compile DOCUMENTs (files, or folders of them; outer tier first) and list rules that have no effect.

    Exit code 1 if a document is wrong, no weights satisfy all rules (the conflicting ones are named), or a rule names what
    no adapter is called and one nearly is.
    """
    from soupmix.policy.compare import idle_rules

    policy = _load(documents, store)
    _check_spelling(documents, store)
    idle = [str(rule) for rule in idle_rules(policy)]
    said = {
        "digest": policy.digest,
        "documents": [asdict(each) for each in policy.documents],
        "adapters": list(policy.names),
        "rules": len(policy.rules),
        "last_day": None if policy.last_day is None else policy.last_day.isoformat(),
        "notes": list(policy.notes),
        "without_effect": idle,
    }
    if as_json:
        print_json(said)
    else:
        click.echo(f"{len(policy.rules)} rules on {len(policy.names)} adapters can be satisfied; {policy.digest}")
        if policy.last_day is not None:
            click.echo(f"everything they rest on counts until {policy.last_day}")
        for note in policy.notes:
            click.echo(f"note: {note}")
        for rule in idle:
            click.echo(f"without effect: {rule} (without it the same weights would be granted)")
    if strict and (policy.notes or idle):
        sys.exit(1)


@command.command("init")
@click.argument("folder", type=PATH)
@click.option(
    "--with",
    "examples",
    metavar="NAME",
    multiple=True,
    help="Also write this example; repeatable. A name that there is not lists all.",
)
@store_option
def init(folder: Path, examples: tuple[str, ...], store: Path | None) -> None:
    """Write a FOLDER of documents to begin with: a law that is an example, and an organisation that approves your adapters.

    The adapters are those of the store, by digest. `soupmix policy explain FOLDER` says what they say, and any command takes
    the folder with --policy.
    """
    from soupmix.files import new_folder
    from soupmix.policy.starting import approving, example_documents

    known = example_documents()
    for name in examples:
        if name not in known:
            raise click.UsageError(f"there is no example {name!r}; there are {', '.join(known)}")
    adapters = read_adapters(find_store(store, None))
    if folder.exists():
        raise OutputError(f"{folder} is there already; choose another name", reason="exists")
    with new_folder(folder, force=False) as temporary:
        for name in ("law", *(each for each in examples if each != "organisation")):
            (temporary / f"{name}.yaml").write_bytes(known[name].read_bytes())
        (temporary / "organisation.yaml").write_bytes(approving(adapters))
    click.echo(f"soupmix: read and change them; then `soupmix policy check {folder}`", err=True)
    click.echo(folder)


@command.command("explain")
@click.argument("documents", nargs=-1, required=True, metavar="DOCUMENT...", type=PATH)
def explain(documents: tuple[Path, ...]) -> None:
    """Say what DOCUMENTs (files, or folders of them) say, in sentences; without adapters, and without applying them."""
    from soupmix.policy import parse_document
    from soupmix.policy.parsing import read_text
    from soupmix.policy.prose import prose

    for number, path in enumerate(policy_files(documents)):
        click.echo("\n" * bool(number) + "\n".join(prose(parse_document(read_text(path), path.name), path.name)))


@command.command("diff")
@click.argument("old", type=PATH)
@click.argument("new", type=PATH)
@store_option
@json_option
def diff(old: Path, new: Path, store: Path | None, as_json: bool) -> None:
    """Decide whether NEW lets anything through that OLD did not; each is a document, or a folder of documents.

    Prints, for every kind of request, weights that NEW grants and OLD does not. Exit code 1 if there are any, or if it
    could not be decided.
    """
    from soupmix.policy.compare import difference

    found = difference(_load([old], store), _load([new], store))
    if as_json:
        listed = [each.to_dict() for each in found.widenings]
        said = {
            "contained": found.contained,
            "kinds": found.kinds,
            "widenings": listed,
            "undecided": list(found.undecided),
        }
        print_json(said)
    else:
        for line in _told(found, new):
            click.echo(line)
    if not found.contained:
        sys.exit(1)


@command.command("test")
@click.argument("cases", type=PATH)
@click.argument("documents", nargs=-1, required=True, metavar="DOCUMENT...", type=PATH)
@store_option
@json_option
@click.option("--strict", is_flag=True, help="Exit code 1 also for rules that bound in no case.")
def test(cases: Path, documents: tuple[Path, ...], store: Path | None, as_json: bool, strict: bool) -> None:
    """Run the CASES (YAML) against DOCUMENTs, and report which rules bound in none of them."""
    from soupmix.policy.cases import read_cases, run

    report = run(_load(documents, store), read_cases(cases))
    if as_json:
        print_json(_as_json(report))
    else:
        for result in report.results:
            click.echo(f"{'failed' if result.failures else 'ok':<6}  {result.name}")
            for failure in result.failures:
                click.echo(f"        {failure}")
        for rule in report.never_bound:
            click.echo(f"never bound: {rule}")
    if not report.ok or (strict and report.never_bound):
        sys.exit(1)


@command.command("schema")
def schema() -> None:
    """Print the JSON Schema of a policy document."""
    from soupmix.policy.documents import document_schema

    print_json(document_schema())


def _load(documents: Sequence[Path], store: Path | None) -> "Policy":
    from soupmix.policy import Policy

    return Policy.load(*policy_files(documents), adapters=read_adapters(find_store(store, None)))


def _check_spelling(documents: Sequence[Path], store: Path | None) -> None:
    from soupmix.policy import parse_document
    from soupmix.policy.near import misspelt
    from soupmix.policy.parsing import read_text, rule_lines

    texts = [(path.name, read_text(path)) for path in policy_files(documents)]
    said = [(name, parse_document(text, name)) for name, text in texts]
    lines = [rule_lines(text, len(document.rules)) for (_, text), (_, document) in zip(texts, said, strict=True)]
    if found := misspelt(said, read_adapters(find_store(store, None)), lines):
        raise PolicyError("; ".join(found), reason="misspelt")


def _told(found: "Difference", new: Path) -> list[str]:
    lines = []
    for each in found.widenings:
        said = ", ".join(f"{key} {value}" for key, value in each.attributes) or "no attributes stated"
        source = f", weights {each.source}" if each.source else ""
        weights = ", ".join(f"{name} {text}" for name, text in each.weights.decimals().items()) or "the base as it is"
        lines.append(f"let through now ({said}{source}): {weights}")
    lines += [f"not decided: {each}" for each in found.undecided]
    if found.contained:
        lines.append(f"{new} lets nothing new through ({found.kinds} kinds of request)")
    return lines


def _as_json(report: "TestReport") -> dict[str, Any]:
    results = [{"name": each.name, "failures": list(each.failures)} for each in report.results]
    return {"ok": report.ok, "cases": results, "never_bound": [str(rule) for rule in report.never_bound]}

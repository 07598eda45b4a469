"""Policy documents that a command line names: files, folders of them, and signed sets; and what a set is made from."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from soupmix.errors import PolicyError, RecipeError
from soupmix.policy import TIERS, AdapterRef, Metric, Policy, parse_document
from soupmix.policy.parsing import read_text

if TYPE_CHECKING:
    from soupmix.trust import SignedSource

__all__ = ["inventory_file", "load_policy", "parse_trust", "policy_files", "set_files", "trust_files"]

_BESIDE = re.compile(r"\..*|.*~|#.*#|.*\.(?:bak|old|orig|rej|save|swp|tmp)", re.IGNORECASE | re.DOTALL)
_TRUST = re.compile(r"(law|organisation)=([^,]+),([^,]+)(?:,([0-9]{1,9}))?")


def policy_files(given: Sequence[Path]) -> list[Path]:
    """Documents from files and folders; those of a folder (*.yaml, *.yml, in any case) by tier, then by name.

    Hidden files and editors' back-ups are left out, and named on stderr.

    Raises:
        PolicyError: a folder cannot be read (reason "unreadable"), holds no document ("empty") or another file
            ("not-a-document"), or one of its documents is wrong.
    """
    found: list[Path] = []
    for path in given:
        if path.is_dir():
            inside = _documents(path)
            tiers = {each: TIERS.index(parse_document(read_text(each), each.name).tier) for each in inside}
            found += sorted(inside, key=lambda each: (tiers[each], each.name))
        else:
            found.append(path)
    return found


def _documents(folder: Path) -> list[Path]:
    """The documents of a folder. Any other file is an error, as it may hold a rule that then would not apply."""
    try:
        everything = sorted(folder.iterdir())
    except OSError as error:
        raise PolicyError(f"cannot read policy folder {folder}: {error.strerror}", reason="unreadable") from error
    beside = [each for each in everything if _BESIDE.fullmatch(each.name)]
    found = [each for each in everything if each not in beside]
    for each in found:
        if each.suffix.lower() not in (".yaml", ".yml") or not each.is_file():
            raise PolicyError(
                f"{each.name} in the policy folder {folder} is no policy document (*.yaml, *.yml), and whatever it says "
                "would not hold; rename it, or move it somewhere else",
                reason="not-a-document",
            )
    if beside:
        names = ", ".join(each.name for each in beside)
        click.echo(f"soupmix: warning: not read in {folder}: {names} (hidden, or an editor's back-up)", err=True)
    if not found:
        raise PolicyError(f"{folder} holds no policy document (*.yaml)", reason="empty")
    return found


def load_policy(
    policies: Sequence[Path],
    adapters: Iterable[AdapterRef],
    trust: Sequence[str] = (),
    *,
    metric: Metric = "weights",
) -> Policy:
    """The policy of the command line, with its notes on stderr; without documents every grant says that there is none."""
    if not policies and not trust:
        return Policy.open(adapters, metric=metric)
    found = policy_files(policies)
    if trust:
        policy = _signed(found, adapters, trust, metric)
    else:
        policy = Policy.load(*found, adapters=adapters, metric=metric)
        click.echo("soupmix: note: these policy documents are not signed (see --trust)", err=True)
    for note in policy.notes:
        click.echo(f"soupmix: note: {note}", err=True)
    return policy


def _signed(
    policies: Sequence[Path],
    adapters: Iterable[AdapterRef],
    trust: Sequence[str],
    metric: Metric,
) -> Policy:
    from soupmix.trust import load_signed

    sources = parse_trust(trust)
    made = load_signed(
        law=sources.get("law"),
        organisation=sources.get("organisation"),
        user=policies,
        adapters=adapters,
        metric=metric,
    )
    for tier, found in made.sets.items():
        click.echo(
            f"soupmix: {tier}: signed set version {found.version}, good until {found.expires:%Y-%m-%d %H:%M} UTC",
            err=True,
        )
    return made.policy


def parse_trust(texts: Sequence[str]) -> "dict[str, SignedSource]":
    """Signed sets by tier from TIER=DIR,ROOT[,FLOOR] texts.

    Raises:
        RecipeError: a text is something else, or a tier comes twice (reason "bad-trust").
    """
    if not texts:
        return {}
    from soupmix.trust import SignedSource

    found: dict[str, SignedSource] = {}
    for text in texts:
        match = _TRUST.fullmatch(text)
        if match is None:
            raise RecipeError(
                f"{text!r} is not TIER=DIR,ROOT[,FLOOR] with a tier of law or organisation, for example "
                "law=sets/law,law-root.json",
                reason="bad-trust",
            )
        tier, folder, root, floor = match.groups()
        if tier in found:
            raise RecipeError(f"--trust {tier} is given twice; every tier has one signed set", reason="bad-trust")
        found[tier] = SignedSource.pinned(folder, root, floor=int(floor or 0))
    return found


def trust_files(texts: Sequence[str]) -> list[Path]:
    """The folders and root files that TIER=DIR,ROOT[,FLOOR] texts name, as far as they are such texts."""
    return [Path(match[part]) for text in texts if (match := _TRUST.fullmatch(text)) for part in (2, 3)]


def set_files(files: Sequence[Path]) -> dict[str, bytes]:
    """Name -> bytes of the files that a signed set is made from.

    Raises:
        PolicyError: one cannot be read (reason "unreadable").
    """
    if len({path.name for path in files}) < len(files):
        raise click.UsageError("two of the files have the same name; a set has one of each name")
    try:
        return {path.name: path.read_bytes() for path in files}
    except OSError as error:
        raise PolicyError(f"{error.filename} cannot be read: {error.strerror}", reason="unreadable") from error


def inventory_file(store: Path, files: Sequence[Path]) -> dict[str, bytes]:
    """What a store (or: shipped) says of its adapters, as one more file of a set.

    Args:
        files: the others of the set; none may have its name.

    Raises:
        AdapterError: the store cannot be read.
    """
    from soupmix.files import canonical_json
    from soupmix.policy.inventory import inventory
    from soupmix.store import read_manifest, shipped_root
    from soupmix.trust.layout import INVENTORY

    if INVENTORY in [path.name for path in files]:
        raise click.UsageError(f"{INVENTORY} is written from the store; leave that file out")
    root = shipped_root() if store == Path("shipped") else store
    return {INVENTORY: canonical_json(inventory(read_manifest(root)))}

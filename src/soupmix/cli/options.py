"""Options that several commands share: weights, policy, attributes, store."""

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from soupmix.errors import PolicyError, RecipeError
from soupmix.policy import ATTRIBUTES, SOURCES, TIERS, AdapterRef, Policy, parse_document
from soupmix.policy.parsing import read_text

if TYPE_CHECKING:
    from soupmix.store import Manifest
    from soupmix.trust import SignedSource

__all__ = [
    "attribute_option",
    "contents",
    "json_option",
    "load_policy",
    "parse_attributes",
    "parse_sources",
    "parse_trust",
    "policy_files",
    "policy_option",
    "read_adapters",
    "source_option",
    "store_option",
    "trust_files",
    "trust_option",
    "weight_option",
]

_Command = TypeVar("_Command", bound=Callable[..., Any])
_BESIDE = re.compile(r"\..*|.*~|#.*#|.*\.(?:bak|old|orig|rej|save|swp|tmp)", re.IGNORECASE | re.DOTALL)
_TRUST = re.compile(r"(law|organisation)=([^,]+),([^,]+)(?:,([0-9]{1,9}))?")


def weight_option(*, required: bool = False) -> Callable[[_Command], _Command]:
    """`-w NAME=NUMBER[,...]`, repeatable; the command gets `weights: tuple[str, ...]` for `Weights.parse`."""
    return click.option(
        "-w",
        "--weight",
        "weights",
        multiple=True,
        required=required,
        metavar="NAME=NUMBER",
        help="Weight of an adapter, for example -w elementary=0.9; repeatable, or several with commas.",
    )


def policy_option(command: _Command) -> _Command:
    """`--policy FILE`, repeatable; the command gets `policies: tuple[Path, ...]` for `load_policy`."""
    return click.option(
        "--policy",
        "policies",
        multiple=True,
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="Policy document; repeatable, outer tier first: law, organisation, user.",
    )(command)


def trust_option(command: _Command) -> _Command:
    """`--trust TIER=DIR,ROOT[,FLOOR]`, repeatable; the command gets `trust: tuple[str, ...]` for `load_policy`."""
    return click.option(
        "--trust",
        "trust",
        multiple=True,
        metavar="TIER=DIR,ROOT",
        help="Signed set of a tier (law or organisation): its folder, and the root file you trust; repeatable. With a third "
        "part, the least version accepted. --policy is then for user documents only.",
    )(command)


def attribute_option(command: _Command) -> _Command:
    """`--attribute KEY=VALUE`, repeatable; the command gets `attributes: tuple[str, ...]` for `parse_attributes`."""
    return click.option(
        "--attribute",
        "attributes",
        multiple=True,
        metavar="KEY=VALUE",
        help=f"What the request says about itself: {', '.join(ATTRIBUTES)}. Left open, every rule applies.",
    )(command)


def source_option(command: _Command) -> _Command:
    """`--source [NAME=]SOURCE`, repeatable; the command gets `sources: tuple[str, ...]` for `parse_sources`."""
    return click.option(
        "--source",
        "sources",
        multiple=True,
        metavar="[NAME=]SOURCE",
        help=f"Where the weights come from, {', '.join(SOURCES)}; of all, or of one adapter. Left open, every rule applies.",
    )(command)


def store_option(command: _Command) -> _Command:
    """`--store DIR`; the command gets `store: Path | None`, None for the shipped adapters."""
    return click.option(
        "--store",
        metavar="DIR",
        type=click.Path(path_type=Path),
        help="Folder with adapters and their manifest; the adapters shipped with soupmix if not given.",
    )(command)


def json_option(command: _Command) -> _Command:
    """`--json`; the command gets `as_json: bool`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")(command)


def read_adapters(store: Path | None) -> "Manifest":
    """The manifest of a store, without torch. Raises `AdapterError` if there is none."""
    from soupmix.store.manifest import read_manifest, shipped_root

    return read_manifest(store if store is not None else shipped_root())


def parse_attributes(texts: Sequence[str]) -> dict[str, str]:
    """Attributes from KEY=VALUE texts.

    Raises:
        RecipeError: a text is not KEY=VALUE (reason "bad-attribute"), or a key comes twice
            (reason "duplicate-attribute").
    """
    found: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise RecipeError(f"{text!r} is not KEY=VALUE, for example audience=minor", reason="bad-attribute")
        if key in found:
            raise RecipeError(
                f"attribute {key!r} is given twice; give every attribute once", reason="duplicate-attribute"
            )
        found[key] = value
    return found


def parse_sources(texts: Sequence[str]) -> str | dict[str, str]:
    """Sources from SOURCE or NAME=SOURCE texts.

    Raises:
        RecipeError: both ways are mixed, or something comes twice (reason "bad-source").
    """
    pairs = [text.rpartition("=")[::2] for text in texts]
    names = [name for name, _ in pairs]
    if names == [""]:
        return pairs[0][1]
    if "" in names or len(set(names)) < len(names):
        raise RecipeError(
            "give --source once for all weights, or once for each adapter as NAME=SOURCE", reason="bad-source"
        )
    return dict(pairs)


def policy_files(given: Sequence[Path]) -> list[Path]:
    """Documents from files and folders; those of a folder (*.yaml, *.yml, in any case) in the order of their tiers, then names.

    Hidden files and editors' back-ups are left out, and named on stderr.

    Raises:
        PolicyError: a folder holds no document (reason "empty"), one that cannot be read, or anything else ("not-a-document").
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
    """The documents of a folder; a file that nobody reads is a rule that nobody applies, so none is passed over in silence."""
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
    metric: Literal["weights", "delta"] = "weights",
) -> Policy:
    """The policy of the command line, with its notes on stderr; without documents every grant says that there is none."""
    if not policies and not trust:
        return Policy.open(adapters, metric=metric)
    if trust:
        policy = _signed(policies, adapters, trust, metric)
    else:
        policy = Policy.load(*policies, adapters=adapters, metric=metric)
        click.echo("soupmix: note: these policy documents are not signed (see --trust)", err=True)
    for note in policy.notes:
        click.echo(f"soupmix: note: {note}", err=True)
    return policy


def _signed(
    policies: Sequence[Path],
    adapters: Iterable[AdapterRef],
    trust: Sequence[str],
    metric: Literal["weights", "delta"],
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


def contents(files: Sequence[Path]) -> dict[str, bytes]:
    """Files of a set by name. Raises PolicyError (reason "unreadable")."""
    if len({path.name for path in files}) < len(files):
        raise click.UsageError("two of the files have the same name; a set has one of each name")
    try:
        return {path.name: path.read_bytes() for path in files}
    except OSError as error:
        raise PolicyError(f"{error.filename} cannot be read: {error.strerror}", reason="unreadable") from error


def stock(store: Path, files: Sequence[Path]) -> dict[str, bytes]:
    """What a store says of its adapters, as the file of a set. Raises AdapterError; no other file may have its name."""
    from soupmix.files import canonical_json
    from soupmix.policy.inventory import inventory
    from soupmix.store import read_manifest, shipped_root
    from soupmix.trust.layout import INVENTORY

    if INVENTORY in [path.name for path in files]:
        raise click.UsageError(f"{INVENTORY} is written from the store; leave that file out")
    root = shipped_root() if store == Path("shipped") else store
    return {INVENTORY: canonical_json(inventory(read_manifest(root)))}

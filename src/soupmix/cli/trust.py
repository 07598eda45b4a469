"""`soupmix trust`: keys, signed sets of policy documents, and OpenSSF model signatures."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from soupmix.cli.documents import inventory_file, set_files
from soupmix.cli.options import PATH, json_option, key_option, print_facts, print_json
from soupmix.trust.layout import INVENTORY

if TYPE_CHECKING:
    from soupmix.trust import Lifetimes, RoleKeys

__all__ = ["command"]


_days_option = click.option(
    "--days",
    metavar="ROLE=N",
    multiple=True,
    help="Days until what a role signs now expires; repeatable.  [default: root=365, targets=90, snapshot=30, timestamp=7]",
)


@click.group()
def command() -> None:
    """Keys, signed sets of policy documents, and model signatures."""


@command.command("keygen")
@click.argument("key", type=PATH)
@click.option("--kind", type=click.Choice(["ed25519", "ecdsa-p256"]), default="ed25519", show_default=True)
def keygen(key: Path, kind: str) -> None:
    """Make a private KEY (mode 0600) and its public half beside it; ecdsa-p256 is for model signatures."""
    from soupmix.trust import generate_key

    click.echo(generate_key(key, kind=kind))


@command.command("init")
@click.argument("folder", type=PATH)
@key_option("--root-key", "roots", "Root key, repeatable; private keys sign, public ones are named.", multiple=True)
@click.option("--threshold", type=int, default=1, show_default=True, help="How many root keys must sign a root.")
@key_option("--targets-key", "targets", "Private key that signs what the set holds.", required=True)
@key_option("--online-key", "online", "Private key that signs that the set is the newest.", required=True)
@_days_option
def init(
    folder: Path, roots: tuple[Path, ...], threshold: int, targets: Path, online: Path, days: tuple[str, ...]
) -> None:
    """Make an empty signed set in FOLDER; prints the root file, which readers must get on a way they trust."""
    from soupmix.trust import create, read_private, read_public

    create(
        folder,
        root_keys=[read_public(path) for path in roots],
        threshold=threshold,
        signers=[read_private(path) for path in roots if b"PRIVATE KEY-----" in path.read_bytes()],
        keys=_keys(targets, online),
        days=_lifetimes(days),
    )
    click.echo(folder / "metadata" / "1.root.json")


@command.command("publish")
@click.argument("folder", type=PATH)
@click.argument("files", nargs=-1, type=PATH)
@click.option(
    "--store",
    metavar="FOLDER",
    type=PATH,
    help="Also sign what this store (or: shipped) says of its adapters; a policy from the set is for no other.",
)
@key_option("--targets-key", "targets", "Private key that signs what the set holds; not needed without FILES.")
@key_option("--online-key", "online", "Private key that signs that the set is the newest.", required=True)
@_days_option
def publish(
    folder: Path,
    files: tuple[Path, ...],
    store: Path | None,
    targets: Path | None,
    online: Path,
    days: tuple[str, ...],
) -> None:
    """Sign exactly FILES as the new set in FOLDER; without FILES, say that the set is still the newest."""
    from soupmix.trust import publish, read_private, renew

    if not files and store is not None:
        raise click.UsageError("--store is signed beside FILES; name the documents of the set too")
    if not files:
        renew(folder, online=read_private(online), days=_lifetimes(days))
        click.echo(f"{folder}: still the newest", err=True)
        return
    if targets is None:
        raise click.UsageError("--targets-key is needed to sign FILES")
    content = set_files(files) | ({} if store is None else inventory_file(store, files))
    version = publish(folder, content, keys=_keys(targets, online), days=_lifetimes(days))
    click.echo(f"{folder}: version {version}, {len(content)} files", err=True)
    if INVENTORY not in content:
        click.echo("soupmix: note: the set does not sign what a store says of its adapters (see --store)", err=True)


@command.command("rotate")
@click.argument("folder", type=PATH)
@key_option("--root-key", "roots", "Private root key that signs the new root; repeatable.", multiple=True)
@key_option("--add", "add", "Root key to add; repeatable.", multiple=True)
@key_option("--remove", "remove", "Root key to revoke; repeatable.", multiple=True)
@click.option("--threshold", type=int, help="How many root keys must sign from now on.")
@key_option("--targets-key", "targets", "Private targets key from now on; any other is revoked.")
@key_option("--online-key", "online", "Private online key from now on; any other is revoked.")
@_days_option
def rotate(
    folder: Path,
    roots: tuple[Path, ...],
    add: tuple[Path, ...],
    remove: tuple[Path, ...],
    threshold: int | None,
    targets: Path | None,
    online: Path | None,
    days: tuple[str, ...],
) -> None:
    """Sign the next root of FOLDER: other keys, or the same ones for longer."""
    from soupmix.trust import read_private, read_public, rotate

    if (targets is None) != (online is None):
        raise click.UsageError("give --targets-key and --online-key together: the set is signed again by both")
    version = rotate(
        folder,
        signers=[read_private(path) for path in roots],
        add=[read_public(path) for path in add],
        remove=[read_public(path) for path in remove],
        threshold=threshold,
        keys=_keys(targets, online) if targets and online else None,
        days=_lifetimes(days),
    )
    click.echo(f"{folder}: root version {version}", err=True)


@command.command("show")
@click.argument("folder", type=PATH)
@json_option
def show(folder: Path, as_json: bool) -> None:
    """Show what a signed set in FOLDER says of itself; `verify` is what to believe."""
    from soupmix.trust import describe

    _show(describe(folder), as_json=as_json)


@command.command("verify")
@click.argument("folder", type=PATH)
@click.argument("root", type=PATH)
@click.option("--floor", default=0, show_default=True, help="Least version of the set that is accepted.")
@json_option
def verify(folder: Path, root: Path, floor: int, as_json: bool) -> None:
    """Read the signed set in FOLDER from the ROOT file that you trust; exit code 1 if anything is not as signed."""
    from soupmix.trust import SignedSource, read_set

    found = read_set(SignedSource.pinned(folder, root, floor=floor))
    facts = {"version": found.version, "versions": dict(found.versions), "expires": found.expires.isoformat()}
    files = {name: len(data) for name, data in found.files.items()}
    _show({**facts, "root": found.root, "files": files}, as_json=as_json)


@command.command("sign-model")
@click.argument("folder", type=PATH)
@click.argument("key", type=PATH)
def sign_model(folder: Path, key: Path) -> None:
    """Write model.sig into FOLDER with a private ECDSA P-256 KEY; OpenSSF's `model_signing verify key` checks it."""
    from soupmix.trust import sign_folder

    click.echo(sign_folder(folder, key))


def _keys(targets: Path, online: Path) -> "RoleKeys":
    from soupmix.trust import RoleKeys, read_private

    return RoleKeys(read_private(targets), read_private(online))


def _lifetimes(texts: tuple[str, ...]) -> "Lifetimes":
    from soupmix.trust import Lifetimes

    given: dict[str, int] = {}
    for text in texts:
        role, _, number = text.partition("=")
        if role not in Lifetimes.__annotations__ or not (number.isascii() and number.isdigit() and len(number) < 9):
            raise click.UsageError(
                f"--days {text!r}: write ROLE=N with a role of {', '.join(Lifetimes.__annotations__)}"
            )
        given[role] = int(number)
    return Lifetimes(**given)


def _show(facts: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(facts)
    else:
        print_facts(facts)

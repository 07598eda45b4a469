"""`soupmix merge`: adapters and a person's weights, through the policy, into an adapter or a model, for PEFT or llama.cpp."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from soupmix.cli.asking import Asking, asking_options
from soupmix.cli.options import PATH, find_store, json_option, open_base, open_store, print_json, read_adapters
from soupmix.dtypes import WORDS
from soupmix.errors import PolicyError
from soupmix.methods import DEFAULT, METHODS, options_of
from soupmix.options import Option, check_shares
from soupmix.replacing import check_folder
from soupmix.weights import Weights

if TYPE_CHECKING:
    from soupmix.base import Base
    from soupmix.merge import Recipe, Saved, Soup
    from soupmix.policy import Grant, Policy
    from soupmix.store import Manifest, Store

__all__ = ["command"]


def method_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """An option for everything that a method can be asked for; the command gets None where it is not given."""
    holders: dict[str, list[tuple[str, Option]]] = {}
    for method in METHODS.values():
        for option in method.options:
            holders.setdefault(option.name, []).append((method.name, option))
    for name, found in sorted(holders.items(), reverse=True):
        option = found[0][1]
        of = ", ".join(method for method, _ in found)
        flags = f"--{name.replace('_', '-')}" + (f"/--no-{name.replace('_', '-')}" if option.kind == "flag" else "")
        text = f"Of method {of}: {option.help}" + (
            f"; {option.default} if not given." if option.default is not None else "."
        )
        command = click.option(flags, name, type=_click_type(option), default=None, help=text)(command)
    return command


def _click_type(option: Option) -> Any:
    match option.kind:
        case "flag":
            return bool
        case "choice":
            return click.Choice(option.choices)
        case "whole":
            return int
        case "share":
            return float


@click.command("merge")
@click.argument("paths", nargs=-1, metavar="[RECIPE.yaml] OUT", type=PATH)
@asking_options(finds_store=False, profile=True)  # a recipe may say more
@click.option(
    "--base", metavar="NAME", envvar="SOUPMIX_BASE", help="Base model: a known name, a folder, a GGUF file or a hub id."
)
@click.option(
    "--as",
    "kind",
    type=click.Choice(["adapter", "model", "gguf-lora", "gguf"]),
    help="What to write; a PEFT adapter if not given. gguf-lora is an adapter for llama.cpp and Ollama, gguf a model for them.",
)
@click.option("--method", type=click.Choice(list(METHODS)), help=f"How to merge; {DEFAULT} (exact) if not given.")
@method_options
@click.option("--mode", hidden=True)  # for the sentence that says why not
@click.option("--rank", type=int, help="Highest rank of the adapter; exact if not given.")
@click.option(
    "--dtype",
    type=click.Choice(tuple(WORDS.values())),
    help="fp32 for an adapter, the base's own for a model, if not given.",
)
@click.option(
    "--dequantise",
    is_flag=True,
    default=None,
    help="With --as model: write plain weights where the base has quantised ones.",
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    help="Blocks of a model that are made at a time; as many as there are processors if not given, 8 at most.",
)
@click.option(
    "--sign",
    metavar="KEY.pem",
    type=PATH,
    help="Private key that signs the provenance; unsigned if not given.",
)
@click.option(
    "--sign-model",
    metavar="KEY.pem",
    type=PATH,
    help="ECDSA P-256 private key for model.sig, which OpenSSF's model_signing verifies.",
)
@click.option(
    "--print-for",
    "server",
    type=click.Choice(["llama.cpp", "vllm"]),
    help="Print how that server is told of the soup: for llama.cpp the granted scales of single adapters (writes nothing, no "
    "OUT), for vllm the line that serves OUT.",
)
@click.option("--dry-run", is_flag=True, help="Only show what would be granted; OUT is not needed.")
@click.option("--force", is_flag=True, help="Replace OUT if it is empty or an earlier result.")
@json_option
def command(
    paths: tuple[Path, ...],
    asking: Asking,
    sign: Path | None,
    sign_model: Path | None,
    server: str | None,
    workers: int | None,
    dry_run: bool,
    force: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Merge adapters by weights into OUT, and print where it is: a PEFT adapter, or what --as says.

    What to merge comes from a recipe, from options, or from both: --policy and --attribute add to the recipe, every
    other option replaces what it says.
    """
    from soupmix.merge.recipe import read_recipe, with_options

    source, out = _paths(paths, dry_run or server == "llama.cpp")
    given: dict[str, Any] = {
        "weights": asking.weights or None,
        "policies": tuple(map(str, asking.policies)),
        "attributes": asking.attributes,
        "sources": asking.sources,
        "store": None if asking.store is None else str(asking.store),
        **_apart(options),
    }
    if source is not None and asking.shares and asking.store is None:
        raise click.UsageError("a share of an effect, as in -w NAME=50%, is read from a store: name it with --store")
    recipe = with_options(read_recipe(source) if source else None, given)
    _check_server(server, recipe, out, dry_run=dry_run)
    asking = _asked(recipe, asking)
    if out is not None and not dry_run:
        from soupmix.merge.record import is_result

        read = (source, sign, sign_model, None if recipe.base is None else Path(recipe.base))
        check_folder(out, force=force, own=is_result, reads=(*asking.files, *(each for each in read if each)))
    with asking.refusals():
        adapters = read_adapters(asking.store)
        base = _base(recipe, adapters)
    grant = _asked_of_policy(recipe, asking, adapters)
    if dry_run or out is None:
        asking.granted(grant)
        click.echo(grant.explain(), err=True)
        _print(_scales(recipe, grant) if server else grant.to_dict() if as_json else grant.granted)
        return
    asking.granted(grant, merge=_identity(recipe, grant, adapters, base))
    click.echo(grant.explain(), err=True)
    keys = {"sign": sign, "sign_model": sign_model}
    soup, saved = _carry_out(recipe, open_store(asking.store), grant, base, out, force=force, workers=workers, **keys)
    _tell(saved, is_signed=sign is not None, as_text=not as_json)
    _print(_vllm(saved) if server else _summary(soup, saved) if as_json else saved.folder)


def _check_server(server: str | None, recipe: "Recipe", out: Path | None, *, dry_run: bool) -> None:
    """What is printed for a server goes with what is written."""
    if server == "llama.cpp" and out is not None:
        raise click.UsageError("--print-for llama.cpp writes nothing: leave OUT out")
    if server == "vllm" and (out is None or dry_run or recipe.kind != "adapter"):
        raise click.UsageError("--print-for vllm serves the PEFT adapter in OUT: give OUT, without --dry-run and --as")


def _scales(recipe: "Recipe", grant: "Grant") -> Mapping[str, Any]:
    from soupmix.merge.servers import llama_cpp_scales

    return llama_cpp_scales(grant.granted, recipe.method, recipe.options)


def _vllm(saved: "Saved") -> str:
    from soupmix.merge.servers import vllm_line

    return vllm_line(saved.folder)


def _apart(given: Mapping[str, Any]) -> dict[str, Any]:
    """What the command line gives, with that which is of the method as a mapping of its own."""
    of_methods = {option.name for method in METHODS.values() for option in method.options}
    said = {name: value for name, value in given.items() if name in of_methods and value is not None}
    return {"options": said, **{name: value for name, value in given.items() if name not in of_methods}}


def _tell(saved: "Saved", *, is_signed: bool, as_text: bool) -> None:
    """What is worth knowing of a result, on stderr."""
    if not is_signed:
        click.echo("soupmix: note: the provenance is not signed (see --sign)", err=True)
    for warning in saved.warnings:
        click.echo(f"soupmix: warning: {warning}", err=True)
    if saved.kept:
        click.echo(f"soupmix: note: an earlier run, which was killed, had finished {', '.join(saved.kept)}", err=True)
    if as_text:
        click.echo(_text(saved), err=True)


def _print(said: object) -> None:
    if isinstance(said, Mapping) and not isinstance(said, Weights):
        print_json(said)
    else:
        click.echo(said)


def _paths(paths: tuple[Path, ...], dry_run: bool) -> tuple[Path | None, Path | None]:
    """Recipe and output folder."""
    if len(paths) > 2 or (not paths and not dry_run):
        raise click.UsageError("give OUT, or RECIPE.yaml OUT; see `soupmix merge --help`")
    if len(paths) == 2:
        return paths[0], paths[1]
    if paths and paths[0].suffix.lower() in (".yaml", ".yml"):
        if not dry_run:
            raise click.UsageError(f"{paths[0]} looks like a recipe; give the folder to write as well: RECIPE.yaml OUT")
        return paths[0], None
    return None, paths[0] if paths else None


def _asked(recipe: "Recipe", given: Asking) -> Asking:
    """What a recipe asks for, on the same record."""
    return replace(
        given,
        weights=recipe.weights,
        attributes=recipe.attributes,
        sources=recipe.sources,
        policies=tuple(map(Path, recipe.policies)),
        store=_store(recipe),
    )


def _store(recipe: "Recipe") -> Path | None:
    """Where its adapters are: where it says, else where `find_store` finds them; None for the shipped ones."""
    if "store" not in recipe.model_fields_set:
        return find_store(None, recipe.base, set(recipe.weights))
    return None if recipe.store == "shipped" else Path(recipe.store)


def _asked_of_policy(recipe: "Recipe", asking: Asking, adapters: "Manifest") -> "Grant":
    """What the policy lets through, if the recipe was not carried out under another and its method obeys it."""
    policy = asking.policy(adapters)
    with asking.refusals():
        _check_unchanged(recipe, policy)
    grant = asking.clamp(policy, recipe.method)
    with asking.refusals():
        check_shares(recipe.method, recipe.options, is_open=grant.is_open)
    return grant


def _check_unchanged(recipe: "Recipe", policy: "Policy") -> None:
    if recipe.record is None:
        return
    recorded = recipe.record.inputs.get("policy")
    if recorded not in (None, policy.digest, policy.former_digest):
        under = "; ".join(str(each.ref()) for each in recipe.record.policies)
        raise PolicyError(
            f"this recipe was carried out under policy {recorded}{f' ({under})' if under else ''}, but the policy given is "
            f"{policy.digest}: name the same documents with --policy or --trust and the same store, or take the part `record` "
            "out of the recipe",
            reason="policy-changed",
        )


def _base(recipe: "Recipe", adapters: "Manifest") -> "Base | None":
    """The base that is read; None for a PEFT adapter, whose base is only held to the one that is named."""
    labels = {None, *(entry.base for entry in adapters)}  # a recipe inside of a result has the label, which is no path
    if recipe.kind == "adapter" and recipe.base in labels:
        return None
    found = open_base(recipe.base, None, adapters)
    return None if recipe.kind == "adapter" else found


def _identity(recipe: "Recipe", grant: "Grant", adapters: "Manifest", base: "Base | None") -> str | None:
    """The merge identity that the result will have; None for an adapter of nothing, which cannot be made."""
    from soupmix.merge.result import Result, ingredients_of

    said = options_of(recipe.method, recipe.options)
    result = Result(grant, recipe.method, ingredients_of(adapters, grant), recipe.export(), base, options=said)
    return result.identity if result.export.is_model or result.ingredients else None


def _carry_out(
    recipe: "Recipe",
    store: "Store",
    grant: "Grant",
    base: "Base | None",
    out: Path,
    *,
    workers: int | None,
    **options: Any,
) -> "tuple[Soup, Saved]":
    from soupmix.cli.progress import volume
    from soupmix.merge.soup import merge

    soup = merge(store, grant, method=recipe.method, options=recipe.options)
    if base is None:
        return soup, soup.save_adapter(out, rank=recipe.rank, dtype=recipe.dtype, **options)
    if recipe.kind == "gguf-lora":
        return soup, soup.save_gguf_lora(out, base=base, rank=recipe.rank, dtype=recipe.dtype, **options)
    export = recipe.export()
    options |= {"dtype": recipe.dtype, "dequantise": export.dequantise, "workers": workers}
    with volume() as tell:
        if recipe.kind == "gguf":
            return soup, soup.save_gguf(out, base=base, tell=tell, **options)
        return soup, soup.save_model(out, base=base, tell=tell, shard_size=export.shard_size, **options)


def _summary(soup: "Soup", saved: "Saved") -> Mapping[str, Any]:
    return {
        "digests": dict(saved.digests),
        "errors": {name: error.total for name, error in saved.errors.items()},
        "folder": str(saved.folder),
        "grant": soup.grant.to_dict(),
        "identity": saved.identity,
        "method": soup.method,
        **({"options": dict(soup.options)} if soup.options else {}),
        "warnings": list(saved.warnings),
    }


def _text(saved: "Saved") -> str:
    lines = [f"identity {saved.identity}"]
    lines += [f"{name.replace('_', ' ')} {error.total:.3g} of the delta" for name, error in saved.errors.items()]
    lines += [f"{digest}  {name}" for name, digest in saved.digests.items()]
    return "\n".join(lines)

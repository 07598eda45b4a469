"""Options that several commands share, and what their texts mean."""

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from soupmix.cli.defaults import default_base
from soupmix.dtypes import HELD, WORDS
from soupmix.errors import BaseModelError, FileError, RecipeError, SoupmixError
from soupmix.methods import DEFAULT, METHODS, served
from soupmix.modes import FULL, MODES
from soupmix.policy import ATTRIBUTES, SOURCES

if TYPE_CHECKING:
    from soupmix.base import Base
    from soupmix.store import Manifest, ManifestEntry, Store

__all__ = [
    "DEFAULT_BASE",
    "PATH",
    "ServedMethod",
    "attribute_option",
    "base_option",
    "chat_template_option",
    "check_there",
    "device_option",
    "dtype_option",
    "find_store",
    "held_option",
    "json_option",
    "key_option",
    "length_option",
    "method_option",
    "metric_option",
    "mode_option",
    "open_base",
    "open_store",
    "parse_attributes",
    "parse_sources",
    "policy_option",
    "print_facts",
    "print_json",
    "read_adapters",
    "source_option",
    "store_option",
    "trust_option",
    "weight_option",
]

DEFAULT_BASE = "smollm2-135m-instruct"
PATH = click.Path(path_type=Path)

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _adapters_from(context: click.Context, _: click.Parameter, begun: str) -> list[str]:
    """Names of adapters for the shell to complete, behind the last comma; none where a store cannot be read."""
    before, comma, name = begun.rpartition(",")
    try:
        adapters = read_adapters(find_store(context.params.get("store"), None))
    except SoupmixError:
        return []
    return [f"{before}{comma}{each.name}=" for each in adapters if each.name.startswith(name)]


def weight_option(*, required: bool = False) -> Callable[[_Command], _Command]:
    """`-w NAME=NUMBER[,...]`, repeatable; the command gets `weights: tuple[str, ...]` for `Weights`."""
    return click.option(
        "-w",
        "--weight",
        "weights",
        multiple=True,
        required=required,
        metavar="NAME=NUMBER",
        shell_complete=_adapters_from,
        help="Weight of an adapter, for example -w elementary=0.9; repeatable, or several with commas. NAME=50% is the weight "
        "with half of its effect, where the store has a surface.json.",
    )


def policy_option(command: _Command) -> _Command:
    """`--policy FILE`, repeatable; the command gets `policies: tuple[Path, ...]` for `load_policy`."""
    return click.option(
        "--policy",
        "policies",
        multiple=True,
        metavar="FILE",
        type=PATH,
        envvar="SOUPMIX_POLICY",
        help="Policy document, or a folder of them; repeatable, outer tier first: law, organisation, user.",
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
    """`--store DIR`; the command gets `store: Path | None` for `find_store`."""
    return click.option(
        "--store",
        metavar="DIR",
        type=PATH,
        envvar="SOUPMIX_STORE",
        help="Folder with adapters and their manifest; if not given, the shipped adapters and your own.",
    )(command)


def base_option(text: str = "Base model.", unsaid: str = "that of the adapters") -> Callable[[_Command], _Command]:
    """`--base NAME`; the command gets `base: str | None` for `open_base`.

    Args:
        unsaid: what it is if not given, for people.
    """
    return click.option("--base", metavar="NAME", envvar="SOUPMIX_BASE", help=f"{text}  [default: {unsaid}]")


def chat_template_option(command: _Command) -> _Command:
    """`--chat-template FILE`; the command gets `chat_template: Path | None` for `open_base`."""
    return click.option(
        "--chat-template",
        metavar="FILE",
        type=PATH,
        help="Jinja template by which conversations are read, instead of the base model's own.",
    )(command)


class ServedMethod(click.Choice[str]):
    """A method by which rows merge; one that merges at load time only is refused by a sentence that says what it is for."""

    def __init__(self) -> None:
        super().__init__(served())

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name; fails by a sentence."""
        if value in METHODS and value not in served():
            self.fail(
                f"{value!r} makes adapters and models at load time, and no row can have it: use {' or '.join(served())} here, "
                f"or write a model with `soupmix merge --method {value} --as model OUT` and take that as the base",
                param,
                ctx,
            )
        return super().convert(value, param, ctx)


def method_option(command: _Command) -> _Command:
    """`--method NAME`; the command gets `method: str`, how a soup is merged."""
    return click.option("--method", type=ServedMethod(), default=DEFAULT, show_default=True)(command)


def mode_option(command: _Command) -> _Command:
    """`--mode NAME`; the command gets `mode: Mode`, where a soup acts."""
    return click.option(
        "--mode",
        type=click.Choice(MODES),
        default=FULL,
        show_default=True,
        help="Where the soup acts: on every token, or on the answer alone, while the prompt runs on the bare base.",
    )(command)


def metric_option(command: _Command) -> _Command:
    """`--metric NAME`; the command gets `metric: Metric` for `Policy`."""
    return click.option(
        "--metric",
        type=click.Choice(["weights", "delta"]),
        default="weights",
        show_default=True,
        help="What a clamp keeps as near as possible: the weights, or the merged delta.",
    )(command)


def held_option(command: _Command) -> _Command:
    """As `dtype_option`, and what the weights of the base may be held in."""
    told = "[default: that of the base]; int8, int4: bf16, and the base in fewer bits (docs/kernels.md)"
    return click.option("--dtype", type=click.Choice((*WORDS.values(), *HELD)), help=told)(command)


def dtype_option(command: _Command) -> _Command:
    """`--dtype NAME`; the command gets `dtype: str | None`, what the engine computes in."""
    return click.option("--dtype", type=click.Choice(tuple(WORDS.values())), help="[default: that of the base]")(
        command
    )


def device_option(command: _Command) -> _Command:
    """`--device NAME`; the command gets `device: str`, where it computes."""
    return click.option(
        "--device",
        default="cpu",
        show_default=True,
        metavar="NAME",
        envvar="SOUPMIX_DEVICE",
        help="Where to compute: cpu, cuda, or cuda:N. `soupmix doctor` says what there is.",
    )(command)


def length_option(command: _Command) -> _Command:
    """`--length N`; the command gets `length: int`, in tokens."""
    return click.option(
        "--length", default=2048, show_default=True, type=click.IntRange(2), help="Most tokens of prompt and answer."
    )(command)


def key_option(
    flag: str, name: str, text: str, *, required: bool = False, multiple: bool = False
) -> Callable[[_Command], _Command]:
    """An option for a key file, or several; the command gets `name: Path | None`, or a tuple of paths."""
    return click.option(flag, name, metavar="KEY", type=PATH, required=required, multiple=multiple, help=text)


def json_option(command: _Command) -> _Command:
    """`--json`; the command gets `as_json: bool`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")(command)


def print_json(facts: object) -> None:
    """What `--json` prints: indented, keys sorted."""
    click.echo(json.dumps(facts, indent=2, sort_keys=True))


def print_facts(facts: Mapping[str, object]) -> None:
    """One fact a line: its name, and its value or, of a mapping, all its names and values."""
    for key, value in facts.items():
        text = ", ".join(f"{name} {each}" for name, each in value.items()) if isinstance(value, dict) else value
        click.echo(f"{key:<10} {text}")


def open_base(name: str | None, chat_template: Path | None, adapters: "Iterable[ManifestEntry]" = ()) -> "Base":
    """The base of `--base`, else that of the adapters; with the chat template of `--chat-template`, told with its digest.

    Args:
        adapters: of the store that it is for.

    Raises:
        BaseModelError: there is no such base, or it is not the one of the adapters ("wrong-base"), or the file cannot be read
            as a template.
    """
    from soupmix.base import base_of, resolve

    entry = next(iter(adapters), None)
    found = base_of(entry.base, entry.base_digest) if name is None and entry else resolve(name or DEFAULT_BASE)
    if entry is not None and entry.base_digest != found.digest:
        raise BaseModelError(
            f"the adapters were trained on {entry.base} ({entry.base_digest[:23]}...), and you gave {name} "
            f"({found.digest[:23]}...): leave --base out, or name the store of its adapters with --store",
            reason="wrong-base",
        )
    if chat_template is None:
        return found
    found = found.with_chat_template(chat_template)
    click.echo(f"soupmix: note: conversations are read by {chat_template}, {found.chat_template_digest}", err=True)
    return found


def find_store(store: Path | None, base: str | None, names: Collection[str] = ()) -> Path | None:
    """The store of `--store`; else that of the base, which may be a default; else the first that has all of these adapters.
    None is the shipped one.

    Raises:
        BaseModelError: there is no such base, or no base for which a store has all of the adapters ("wrong-base").
        AdapterError: a store of the user is damaged.
    """
    from soupmix.store.places import default_stores, home_of, read_store

    if store is not None:
        return store
    base = default_base() if base is None else base
    if base is None:
        places = default_stores()
        held = {place: set(read_store(place).names) for place in places}
        found = next((place for place, has in held.items() if has.issuperset(names)), places[0])
        if not held[found].issuperset(names) and set().union(*held.values()).issuperset(names):
            raise BaseModelError(
                f"{', '.join(sorted(names))} are adapters of different bases, and a soup has one base: ask for those of one",
                reason="wrong-base",
            )
    else:
        from soupmix.base import resolve

        found = home_of(resolve(base).digest)
    return _laid(found)


def _laid(store: Path) -> Path | None:
    """A store, laid anew over what is shipped if that is another now; None for the shipped one."""
    from soupmix.store.manifest import MANIFEST, shipped_root
    from soupmix.store.places import beneath, is_stale

    if store == shipped_root() or (beneath(store) is not None and not (store / MANIFEST).exists()):
        return None
    if is_stale(store):
        from soupmix.store.adding import refresh

        refresh(store)
        click.echo(f"soupmix: note: {store} was laid anew over the adapters that are shipped now", err=True)
    return store


def maintain_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """--maintain, of commands that write a store."""
    text = "Write the shipped adapters themselves, if --store names them; for who maintains soupmix."
    return click.option("--maintain", is_flag=True, help=text)(command)


def open_store(store: Path | None, *, maintain: bool = False) -> "Store":
    """The store that `find_store` found. Raises `AdapterError` if there is none."""
    from soupmix.store import Store
    from soupmix.store.places import data_root

    if store is None:
        return Store.shipped(maintain=maintain)
    return Store(store, create=store.parent == data_root() / "adapters", maintain=maintain)


def read_adapters(store: Path | None) -> "Manifest":
    """The manifest of the store that `find_store` found, without torch. Raises `AdapterError` if there is none."""
    from soupmix.store.manifest import MANIFEST, Manifest, read_manifest, shipped_root
    from soupmix.store.places import data_root, read_store

    if store is None:
        return read_manifest(shipped_root())
    is_new = store.parent == data_root() / "adapters" and not (store / MANIFEST).exists()
    return Manifest() if is_new else read_store(store)


def check_there(path: Path, what: str) -> None:
    """Raise `FileError` (reason "missing") if there is nothing at a path; `what` says what to name instead."""
    if not path.exists():
        raise FileError(f"{path} is not there; name {what}", reason="missing")


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

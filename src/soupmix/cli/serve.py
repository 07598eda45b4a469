"""`soupmix serve`: the HTTP server, and the keys that it is called with."""

import ipaddress
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import click
import platformdirs

from soupmix.cli.backends import backend_options, opener
from soupmix.cli.documents import parse_trust, policy_files
from soupmix.cli.options import (
    PATH,
    attribute_option,
    base_option,
    chat_template_option,
    check_there,
    find_store,
    held_option,
    json_option,
    length_option,
    method_option,
    metric_option,
    open_base,
    open_store,
    parse_attributes,
    policy_option,
    print_json,
    store_option,
    trust_option,
)
from soupmix.cli.wanting import CUES, reader_of
from soupmix.errors import EvaluationError, SoupmixError
from soupmix.policy.rules import check_attributes

if TYPE_CHECKING:
    from soupmix.backends import Backend, Limits
    from soupmix.base import Base
    from soupmix.serve.keys import ApiKeys
    from soupmix.serve.state import ServerConfig
    from soupmix.store import Store
    from soupmix.surface import Surface

__all__ = ["command"]

_Command = TypeVar("_Command", bound=Callable[..., Any])
_EXTRA = {"alembic", "fastapi", "prometheus_client", "psycopg", "sqlalchemy", "starlette", "uvicorn"}


def _database_option(command: _Command) -> _Command:
    """`--database FILE|URL`; the command gets `database: str`."""
    return click.option(
        "--database",
        metavar="FILE|URL",
        default=lambda: str(platformdirs.user_data_path("soupmix") / "serve.db"),
        show_default="serve.db in the user's data folder",
        help="Profiles and keys: a file (SQLite), or a URL such as postgresql+psycopg://HOST/NAME.",
    )(command)


@click.group("serve", invoke_without_command=True)
@backend_options
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="0 is any that is free.")
@base_option()
@chat_template_option
@click.option("--model", metavar="NAME", help="Name that clients give the base model.  [default: that of the base]")
@store_option
@policy_option
@trust_option
@metric_option
@click.option("--allow-unsigned", is_flag=True, help="Serve under policy documents that nobody has signed.")
@click.option("--open", "is_open", is_flag=True, help="Serve without any policy.")
@click.option(
    "--value",
    "values",
    metavar="KEY=VALUE",
    multiple=True,
    help="Value of an attribute that requests and keys may have though no policy document names it; * as VALUE is any. "
    "Repeatable.",
)
@click.option("--no-auth", is_flag=True, help="Answer without keys; only on an address of this machine alone.")
@_database_option
@click.option("--audit", metavar="DIR", type=PATH, help="Record every grant and refusal in this audit log.")
@click.option("--audit-key", metavar="KEY.pem", type=PATH, help="Private Ed25519 key that signs its checkpoints.")
@method_option
@held_option
@click.option("--rows", default=64, show_default=True, type=click.IntRange(1), help="Answers made at once.")
@length_option
@click.option("--waiting", default=256, show_default=True, type=click.IntRange(1), help="Answers in the queue.")
@click.option("--chunk", default=512, show_default=True, type=click.IntRange(1), help="Prompt tokens per step.")
@click.option("--answers", default=8, show_default=True, type=click.IntRange(1, 128), help="Answers per request.")
@click.option(
    "--shared-prefix",
    "shared",
    metavar="FILE",
    type=PATH,
    multiple=True,
    help="System prompt that is no secret: computed once for all people with the same merge; repeatable.",
)
@click.option(
    "--cues",
    default="rules",
    show_default=True,
    type=click.Choice(CUES),
    help="What reads cues in conversations of profiles that listen: rules, the model where they read nothing, or it alone.",
)
@click.option("--share", type=click.IntRange(1), help="Answers of one tenant at once.  [default: no limit]")
@click.option("--body", default=1 << 20, show_default=True, type=click.IntRange(1024), help="Bytes per request.")
@click.option(
    "--bodies",
    default=64 << 20,
    show_default=True,
    type=click.IntRange(1 << 20),
    help="Bytes of all requests being read.",
)
@click.option("--profiles", default=100_000, show_default=True, type=click.IntRange(1), help="Profiles per tenant.")
@click.option("--patience", default=30.0, show_default=True, help="Seconds for a client to send or to read.")
@click.option("--drain", default=30.0, show_default=True, help="Seconds for running answers at the end.")
@click.option("--origin", "origins", metavar="URL", multiple=True, help="Web origin that browsers may call from.")
@click.pass_context
def command(context: click.Context, /, **options: Any) -> None:
    """Serve chat and completions over HTTP in OpenAI's shape, a soup per request.

    Needs keys (`soupmix serve keys create`) and a signed policy (--trust), or the options that do without.
    """
    if context.invoked_subcommand is None:
        _check(options)
        _needing(lambda: _serve(options))


@command.group("keys")
def keys() -> None:
    """API keys: whose profiles a request sees, and what is so of it whatever it says."""


@keys.command("create")
@click.option("--tenant", required=True, help="Whose key it is.")
@attribute_option
@click.option("--operator", is_flag=True, help="May also reload the policy and read the metrics.")
@_database_option
def create(tenant: str, attributes: tuple[str, ...], operator: bool, database: str) -> None:
    """Print a new key: it is shown this once, and only its digest is kept."""
    fixed = parse_attributes(attributes)
    made = _needing(lambda: _keys(database).create(tenant, fixed, operator=operator))
    click.echo("soupmix: keep it; it cannot be shown again", err=True)
    click.echo(made)


@keys.command("list")
@_database_option
@json_option
def list_(database: str, as_json: bool) -> None:
    """List all keys, never the keys themselves."""
    found = _needing(lambda: _keys(database).list())
    lines = [
        {
            "id": each.id,
            "tenant": each.caller.tenant,
            "attributes": dict(each.caller.attributes),
            "operator": each.caller.operator,
            "created": _day(each.created),
            "revoked": None if each.revoked is None else _day(each.revoked),
        }
        for each in found
    ]
    if as_json:
        print_json(lines)
        return
    for line in lines:
        said = ",".join(f"{key}={value}" for key, value in line["attributes"].items())  # type: ignore[union-attr]
        state = f"revoked {line['revoked']}" if line["revoked"] else "good"
        click.echo(f"{line['id']}  {said}  {'operator  ' if line['operator'] else ''}{line['created']}  {state}")


@keys.command("revoke")
@click.argument("name", metavar="ID")
@_database_option
def revoke(name: str, database: str) -> None:
    """Refuse the key with this ID from the next request on."""
    _needing(lambda: _keys(database).revoke(name))
    click.echo(f"soupmix: key {name} is revoked", err=True)


def _check(options: dict[str, Any]) -> None:
    """Refuse what nobody should do unknowingly."""
    if options["is_open"] and (options["policies"] or options["trust"]):
        raise click.UsageError("--open is for a server without a policy; leave out --policy and --trust, or --open")
    if not options["trust"] and not options["policies"] and not options["is_open"]:
        raise click.UsageError("there is no policy; give --trust, or --policy with --allow-unsigned, or --open")
    if not options["trust"] and options["policies"] and not options["allow_unsigned"]:
        raise click.UsageError("these policy documents are not signed; give --trust, or say --allow-unsigned")
    if options["no_auth"] and not _is_loopback(options["host"]):
        raise click.UsageError(f"--no-auth answers everybody, and {options['host']} is not this machine alone")
    if options["audit_key"] and not options["audit"]:
        raise click.UsageError("--audit-key goes with --audit DIR")
    for path in options["shared"]:
        check_there(path, "a file with the shared system prompt")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _serve(options: dict[str, Any]) -> None:
    from soupmix.serve.listening import bound
    from soupmix.serve.logs import set_up
    from soupmix.serve.server import Server
    from soupmix.serve.state import open_server

    host, is_watched = options["host"], sys.stderr.isatty()
    with ExitStack() as stack:
        sockets = [stack.enter_context(each) for each in bound(host, options["port"])]
        if is_watched:
            click.echo("soupmix: loading the model ...", err=True)
        state = stack.enter_context(open_server(_config(options)))
        set_up()  # what is refused before is told as every command tells it
        Server(state, host, options["port"], partial(_tell_address, host) if is_watched else _nothing).run(sockets)


def _tell_address(host: str, port: int) -> None:
    at = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    click.echo(f"soupmix: the page is at {at}/, OpenAI's clients take {at}/v1; Ctrl-C ends the server", err=True)


def _nothing(port: int) -> None:
    """Nobody watches: a log says all."""


def _config(options: dict[str, Any]) -> "ServerConfig":
    from soupmix.backends import Limits
    from soupmix.cli.auditing import signer_of
    from soupmix.evaluate.measures.here import TextMeasuring, measures_here
    from soupmix.evaluate.rewarding import RewardMeasuring
    from soupmix.serve.learners import Measurer
    from soupmix.serve.state import ServerConfig, Settings

    store = open_store(find_store(options["store"], options["base"]))
    base = open_base(options["base"], options["chat_template"], store)
    limits = Limits(**{name: options[name] for name in ("rows", "length", "waiting", "chunk")})
    shared = {
        name: options[name]
        for name in ("method", "no_auth", "body", "bodies", "answers", "share", "profiles", "patience", "drain")
    }
    return ServerConfig(
        settings=Settings(
            model=options["model"] or base.label,
            origins=options["origins"],
            values=_values(options["values"]),
            **shared,
        ),
        # under today's policy the engine would refuse the grants of the next one: a grant is the only bound there
        backend=_opener(options, base, store, limits),
        adapters=store,
        database=options["database"],
        policies=lambda: policy_files(options["policies"]),
        trust=parse_trust(options["trust"]),
        metric=options["metric"],
        audit=options["audit"],
        signer=signer_of(options["audit_key"]),
        shared=options["shared"],
        surface=_surface(store),
        measurer=Measurer(measures_here(), TextMeasuring, RewardMeasuring, partial(reader_of, options["cues"])),
    )


def _opener(
    options: dict[str, Any], base: "Base", store: "Store", limits: "Limits"
) -> "Callable[[], AbstractContextManager[Backend]]":
    from soupmix.backends.vllm_server import ServedPolicy

    trust = parse_trust(options["trust"])
    return opener(
        options["asked"],
        base,
        store,
        limits,
        dtype=options["dtype"],
        method=options["method"],
        served=lambda: ServedPolicy(policy_files(options["policies"]), trust, options["metric"]),
    )


def _values(texts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Attribute -> further values, from KEY=VALUE texts. Raises `RecipeError` as `parse_attributes` and the policy do."""
    found: dict[str, tuple[str, ...]] = {}
    for text in texts:
        for key, value in parse_attributes([text]).items():
            check_attributes({key: "any" if value == "*" else value})
            found[key] = (*found.get(key, ()), value)
    return found


def _surface(store: "Store") -> "Surface | None":
    """What soups of these adapters are expected to do; None, and a note, if it is of others than a store has by now."""
    from soupmix.surface import Surface

    try:
        return Surface.beside(store.folder, store)
    except EvaluationError as error:
        if error.reason not in ("no-surface", "wrong-base", "other-adapters"):
            raise
        if error.reason != "no-surface":
            click.echo(f"soupmix: note: nobody can ask for a measure: {error}", err=True)
        return None


def _keys(database: str) -> "ApiKeys":
    from soupmix.serve.keys import ApiKeys
    from soupmix.serve.tables import open_database

    return ApiKeys(open_database(database))


_Made = TypeVar("_Made")


def _needing(work: Callable[[], _Made]) -> _Made:
    """What needs the extra `serve`. Raises `SoupmixError` if that is not installed (reason "no-serve-extra")."""
    try:
        return work()
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        raise SoupmixError(
            f"serving needs {error.name}, which is not installed: pip install 'soupmix[serve]'", reason="no-serve-extra"
        ) from error


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")

"""The single binary `soupmix`: one file per sub-command, imported only when that sub-command runs."""

import importlib
import sys

import click

from soupmix.cli.defaults import read_config
from soupmix.cli.leaving import leave_with
from soupmix.cli.stopping import exit_code, stoppable
from soupmix.cli.streams import hold
from soupmix.errors import SoupmixError
from soupmix.version import __version__

__all__ = ["cli", "main", "run"]

_COMMANDS = (
    "adapters",
    "approve",
    "ask",
    "audit",
    "batch",
    "chat",
    "clamp",
    "doctor",
    "evaluate",
    "learn",
    "merge",
    "policy",
    "serve",
    "simulate",
    "train",
    "trust",
    "verify",
)


_NO_FILE = 1  # exit code, whatever the file was for
_OF_FILES = ("missing", "unreadable", "no-record", "bad-record")


class _Lazy(click.Group):
    """A group whose commands live in modules of the same name, each exporting `command`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"soupmix.cli.{cmd_name}").command
        return command


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, "--version", prog_name="soupmix")
@click.pass_context
def cli(context: click.Context) -> None:
    """One language model for many people: a LoRA soup per person, clamped by policy.

    Defaults of --store, --base and --policy come from SOUPMIX_STORE, SOUPMIX_BASE and SOUPMIX_POLICY, then from the config
    file that `soupmix doctor` names.
    """
    context.default_map = read_config()


def main() -> None:
    """Run the command line; a refusal is one sentence on stderr and an exit code, never a traceback."""
    try:
        with stoppable():
            hold()
            cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt) as stop:
        wrong = stop.__cause__ if isinstance(stop.__cause__, SoupmixError | OSError) else None
        click.echo(f"soupmix: interrupted; {wrong or 'nothing was left half-written'}", err=True)
        sys.exit(exit_code(stop))
    except SoupmixError as error:
        click.echo(f"soupmix: {error}", err=True)
        sys.exit(_NO_FILE if error.reason in _OF_FILES else error.exit_code)
    except OSError as error:
        if error.errno is None or isinstance(error, BlockingIOError):
            raise
        where = "" if error.filename is None else f" {error.filename}"
        click.echo(f"soupmix: the system refuses{where}: {error.strerror}", err=True)
        sys.exit(_NO_FILE)


def run() -> None:
    """`main` as the program itself, which ends the process: without taking the interpreter apart, which takes a second."""
    try:
        main()
    except SystemExit as stop:
        if isinstance(stop.code, int):
            leave_with(stop.code)
        raise
    leave_with(0)

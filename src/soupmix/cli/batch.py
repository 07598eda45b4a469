"""`soupmix batch`: a file of requests, each with its own soup, answered in order; a stopped run goes on where it was."""

import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from types import FrameType
from typing import TYPE_CHECKING

import click

from soupmix.backends import TALKING
from soupmix.cli.asking import Asking, asking_options
from soupmix.cli.backends import AskedBackend, batch_backend_options, opener
from soupmix.cli.documents import parse_trust, policy_files
from soupmix.cli.options import (
    PATH,
    base_option,
    chat_template_option,
    held_option,
    json_option,
    length_option,
    method_option,
    mode_option,
    open_base,
    open_store,
    print_json,
)
from soupmix.cli.stopping import exit_code
from soupmix.methods import check_linear
from soupmix.modes import Mode

if TYPE_CHECKING:
    from soupmix.backends import Backend, Limits
    from soupmix.base import Base
    from soupmix.batch import Defaults, InputFile, Journal
    from soupmix.policy import Policy
    from soupmix.store import Store

__all__ = ["command"]


@click.command("batch")
@click.argument("source", metavar="IN", type=PATH)
@click.argument("out", type=PATH)
@click.option(
    "--column",
    "columns",
    multiple=True,
    metavar="TARGET=COLUMN",
    help="Of CSV and Parquet: which column says what. Targets are prompt, system, custom_id, user, mode, seed, max_tokens, "
    "temperature, top_p, weights.NAME, attributes.KEY and sources.NAME; repeatable.  [default: prompt=prompt]",
)
@asking_options()
@base_option()
@chat_template_option
@click.option("--model", help="What lines call the base model.  [default: its own name]")
@click.option("--system", help="System prompt of chats that have none.")
@batch_backend_options
@method_option
@mode_option
@held_option
@click.option(
    "--max-new-tokens", default=256, show_default=True, type=click.IntRange(1), help="Where a line is silent."
)
@click.option(
    "--temperature", default=TALKING.temperature, show_default=True, help="Where a line is silent; 0 is greedy."
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**61), help="Line i draws from SEED + i.")
@click.option("--rows", default=64, show_default=True, type=click.IntRange(1, 4096), help="Answers made at once.")
@length_option
@click.option(
    "--line-bytes",
    default=1 << 20,
    show_default=True,
    type=click.IntRange(1024, 1 << 28),
    help="Most bytes of a line, and of a table's row.",
)
@click.option("--force", is_flag=True, help="Begin anew, and replace OUT.")
@json_option
def command(
    source: Path,
    out: Path,
    columns: tuple[str, ...],
    asking: Asking,
    asked: AskedBackend,
    base: str | None,
    chat_template: Path | None,
    model: str | None,
    system: str | None,
    method: str,
    mode: Mode,
    dtype: str | None,
    max_new_tokens: int,
    temperature: float,
    seed: int,
    rows: int,
    length: int,
    line_bytes: int,
    force: bool,
    as_json: bool,
) -> None:
    """Answer every line of IN (OpenAI's batch JSONL, CSV or Parquet) into OUT, in order.

    Results are gathered in OUT.part; the same command again goes on behind the last of them.
    """
    from soupmix.batch import (
        Columns,
        Defaults,
        check_free,
        check_new,
        finish,
        open_input,
        open_journal,
        settings_of,
    )

    held = open_store(asking.store)
    found = open_base(base, chat_template, held)
    policy = asking.policy(held)
    for rule in policy.norm_rules:
        if not rule.within:  # it holds for every line
            check_linear(method, str(rule.ref))
    stated, said, name = asking.attributes, asking.sources, model or found.label
    policy._check(asking.weights, stated, said)
    defaults = Defaults(name, method, stated, said, asking.weights, system, max_new_tokens, temperature, seed, mode)
    template = () if chat_template is None else (chat_template,)
    check_new(out, force=force, reads=(source, found.folder, held.folder, *asking.files, *template))
    file = open_input(source, out, Columns.parse(columns, limit=line_bytes, model=name))
    work = _Work(file, file.count(), found, held, policy, defaults, dtype, rows, length, asking, asked)
    settings = settings_of(
        file,
        work.lines,
        defaults,
        {"base": found.digest, "policy": policy.digest, "signed": asking.signed, "dtype": dtype, "length": length}
        | {f"adapter {each.name}": each.digest for each in held}
        | asked.settings
        | ({} if chat_template is None else {"chat template": found.chat_template_digest}),
    )
    with open_journal(out, settings, force=force) as journal, _interrupted(journal, work.lines):
        check_free(out, journal, work.lines)
        _tell_resumed(journal, work.lines)
        if work.lines:
            work.answer(journal)  # also where all is answered: what the journal holds must be what is granted
        seen = finish(file, journal, out, digest=settings["input"])
    _tell(seen, as_json=as_json)


@dataclass(frozen=True, slots=True)
class _Work:
    """Everything that answering needs."""

    source: "InputFile"
    lines: int
    base: "Base"
    store: "Store"
    policy: "Policy"
    defaults: "Defaults"
    dtype: str | None
    rows: int
    length: int
    asking: Asking
    asked: AskedBackend

    def answer(self, journal: "Journal") -> None:
        """Answer what the journal does not hold; KeyboardInterrupt if somebody stops it."""
        from soupmix.backends import Limits
        from soupmix.batch import MOST_ANSWERS, Desk, answer_lines, waiting_room
        from soupmix.cli.progress import rates
        from soupmix.openai.requests import shared_prefix

        limits = Limits(rows=self.rows, length=self.length, waiting=waiting_room(self.rows, MOST_ANSWERS))
        with (
            _stopping() as stop,
            self.asking.recorder.opened() as append,
            self._opener(limits)() as backend,
            rates(self.lines, journal.done) as advance,
        ):
            if self.defaults.system:
                backend.share(shared_prefix(backend, self.defaults.system))
            desk = Desk(
                backend,
                self.policy,
                self.defaults,
                signed=self.asking.signed,
                append=append,
                who=self.asking.recorder.person,
            )
            answer_lines(
                self.source,
                journal,
                desk,
                backend,
                advance=lambda done: advance(done, backend.state().generated_tokens),
                stopping=stop.is_set,
            )
        if journal.done < self.lines:
            raise KeyboardInterrupt

    def _opener(self, limits: "Limits") -> "Callable[[], AbstractContextManager[Backend]]":
        from soupmix.backends.vllm_server import ServedPolicy

        asked = self.asking
        return opener(
            self.asked,
            self.base,
            self.store,
            limits,
            dtype=self.dtype,
            method=self.defaults.method,
            served=lambda: ServedPolicy(policy_files(asked.policies), parse_trust(asked.trust)),
            policy=self.policy,
        )


@contextmanager
def _stopping() -> Iterator[Event]:
    """Set by the first Ctrl-C; a second one does not wait. Where it is ignored, it stays so."""
    stop, before = Event(), signal.getsignal(signal.SIGINT)

    def handle(_signal: int, _frame: FrameType | None) -> None:
        stop.set()
        signal.signal(signal.SIGINT, before)

    if before is signal.SIG_IGN:
        yield stop
        return
    signal.signal(signal.SIGINT, handle)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _interrupted(journal: "Journal", lines: int) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as stop:
        click.echo(
            f"soupmix: interrupted; {journal.path} keeps {journal.done} of {lines} results, and the same command goes "
            "on behind them",
            err=True,
        )
        sys.exit(exit_code(stop))


def _tell_resumed(journal: "Journal", lines: int) -> None:
    if journal.cut:
        click.echo(f"soupmix: note: {journal.cut} bytes of an unfinished result were cut off {journal.path}", err=True)
    if journal.done:
        click.echo(f"soupmix: going on behind {journal.done} of {lines} results in {journal.path}", err=True)


def _tell(seen: Counter[int], *, as_json: bool) -> None:
    counts = {"answered": seen[200], "refused": seen[403], "bad": seen[400], "failed": seen[503]}
    click.echo(
        f"soupmix: {seen.total()} lines: " + ", ".join(f"{count} {name}" for name, count in counts.items()), err=True
    )
    if as_json:
        print_json({"lines": seen.total(), **counts})

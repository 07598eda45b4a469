"""A conversation in a terminal: a line at a time, answers as they are made, and a few words that begin with a slash.

Ctrl-C ends the answer that is being made, or empties the line; Ctrl-D ends the conversation.
"""

import json
import queue
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import click

from soupmix.backends import Backend, Delta, Request, Sampling
from soupmix.errors import OutputError, RecipeError, SoupmixError
from soupmix.files import write_file
from soupmix.modes import Mode, explained
from soupmix.policy import Grant
from soupmix.store.places import data_root
from soupmix.weights import Weights

__all__ = ["Conversation", "converse"]

_HELP = """\
/soup friendly=0.3,concise=0.5   other weights, from the next answer on
/why                             what was asked for, what is granted, and why
/reset                           forget what was said
/save FILE                       write the conversation as JSON
/quit                            end (as Ctrl-D does)"""


class _Interrupted(Exception):
    """Somebody pressed Ctrl-C."""


@dataclass(slots=True)
class Conversation:
    """What was said, and how the next answer is made.

    Attributes:
        backend: who answers. allow: asks the policy anew for weights, each time: it may end while somebody talks.
        weights: as they are asked for. messages: so far.
    """

    backend: Backend
    allow: Callable[[Weights], Grant]
    weights: Weights
    sampling: Sampling
    method: str
    mode: Mode
    messages: list[dict[str, str]] = field(default_factory=list)
    _first: int = 0

    def __post_init__(self) -> None:
        self._first = len(self.messages)  # a system prompt is not forgotten

    def answer(self, said: str) -> Iterator[str]:
        """The parts of an answer as they are made; both are remembered at its end, also if the reader ends it before.

        Raises:
            SoupmixError: as `Backend.tokens` and `Backend.submit` raise, and what an answer ends with.
        """
        if (mark := self.backend.marker(said)) is not None:
            raise RecipeError(
                f"this holds {mark!r}, which to this model is the end or the beginning of a message; leave it out",
                reason="special-token",
            )
        asked = [*self.messages, {"role": "user", "content": said}]
        deltas: queue.SimpleQueue[Delta] = queue.SimpleQueue()
        prompt = self.backend.tokens(asked)
        request = Request(
            prompt, self.allow(self.weights), self.sampling, method=self.method, mode=self.mode, person=""
        )
        ticket, made = self.backend.submit(request, deltas.put), ""
        try:
            finish = None
            while finish is None:
                delta = deltas.get()
                if delta.error is not None:
                    raise delta.error
                made, finish = made + delta.text, delta.finish
                yield delta.text
        finally:
            ticket.cancel()
            if made.strip():
                self.messages = [*asked, {"role": "assistant", "content": made.strip()}]

    def reset(self) -> None:
        """Forget all but the system prompt."""
        self.messages = self.messages[: self._first]

    def why(self) -> str:
        """What is granted of the weights, in words."""
        return explained(self.allow(self.weights).explain(), self.mode)

    def save(self, path: Path) -> None:
        """Write what was said and asked for. Raises `OutputError` if the file is there, or the disk refuses."""
        if path.exists():
            raise OutputError(f"{path} is there already; choose another name", reason="exists")
        said = {
            "messages": self.messages,
            "weights": self.weights.decimals(),
            "granted": self.allow(self.weights).to_dict(),
        }
        write_file(path, (json.dumps(said, indent=2, ensure_ascii=False) + "\n").encode())


def converse(talk: Conversation) -> None:
    """Talk in a terminal until the input ends."""
    click.echo("soupmix: /help says what there is; Ctrl-C stops an answer, Ctrl-D ends", err=True)
    with _history(), _interrupting():
        while True:
            try:
                line = input("> ").strip()
                if line.startswith("/"):
                    if not _command(talk, *line[1:].partition(" ")[::2]):
                        return
                elif line:
                    _show(talk, line)
            except EOFError:
                click.echo()
                return
            except _Interrupted:
                click.echo()
            except SoupmixError as error:
                click.echo(f"soupmix: {error}", err=True)


def _show(talk: Conversation, line: str) -> None:
    answer = talk.answer(line)
    try:
        for number, part in enumerate(answer):
            click.echo(part if number else part.lstrip(), nl=False)
    finally:
        answer.close()  # type: ignore[attr-defined]  # it is a generator
        click.echo()


def _command(talk: Conversation, word: str, rest: str) -> bool:
    """Carry out what begins with a slash; whether the conversation goes on."""
    match word:
        case "soup":
            weights = Weights(re.sub(r"=(-?)\.", r"=\g<1>0.", rest.strip()))
            talk.allow(weights)  # what is refused changes nothing
            talk.weights = weights
            click.echo(talk.why(), err=True)
        case "why":
            click.echo(talk.why(), err=True)
        case "reset":
            talk.reset()
        case "save":
            if not rest.strip():
                raise RecipeError("say where: /save FILE", reason="no-file")
            talk.save(Path(rest.strip()).expanduser())
        case "help":
            click.echo(_HELP, err=True)
        case "quit" | "exit":
            return False
        case _:
            raise RecipeError(f"there is no /{word[:40]}; /help says what there is", reason="no-command")
    return True


@contextmanager
def _interrupting() -> Iterator[None]:
    """Ctrl-C is an exception of the conversation, and not the end of the command."""

    def interrupt(_: int, __: FrameType | None) -> None:
        raise _Interrupted

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _history() -> Iterator[None]:
    """Editing and history of lines by readline, where Python has it; kept in the folder for user data."""
    try:
        import readline
    except ImportError:
        yield
        return
    path = data_root() / "chat_history"
    with suppress(OSError):
        readline.read_history_file(path)
    readline.set_history_length(1000)
    try:
        yield
    finally:
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            readline.write_history_file(path)
            path.chmod(0o600)

"""Learning what somebody wants, in a terminal: questions with two answers side by side, or a conversation.

What was said is kept after every answer, so that Ctrl-C loses nothing.
"""

import queue
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from rich.columns import Columns
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from soupmix.backends import Backend, Delta, Request, Sampling
from soupmix.errors import PreferenceError, SoupmixError
from soupmix.policy import Grant
from soupmix.preference import Learner, Signal
from soupmix.preference.cues import CueReader, cued, is_cue
from soupmix.preference.learner import Values
from soupmix.preference.question import ENOUGH
from soupmix.preference.signal import Kind
from soupmix.weights import Weights

__all__ = ["LearningSession", "ask_questions", "drawn", "listen"]

_OFFERED = 6
_SOURCE = "terminal"
_BAR = 31
_FARTHEST: Final = {"linear": 1.0, "ideal": 3.0}  # ends of the bars, in units of wants
_KEYS = "1 left, 2 right, 0 equally good, n neither, s another question, u undo, q end"
_COMMANDS = """\
/up, /down       the answer is good, or bad
/again           another answer      /copy   I take this one
/edit TEXT       how I would have it
/why             which evidence moved what
/quit            end (as Ctrl-D does)
"shorter please", "too complicated", "warmer": as you would say it; whatever else you say is answered"""


@dataclass(slots=True)
class LearningSession:
    """Who answers, who learns, and where it is kept.

    Attributes:
        backend: answers. allow: asks the policy for weights, each time.
        learner: of the person. keep: called after all that was learnt.
        sampling: how answers are made. method: of merging. topic: of all that is said, None for none.
        console: what is drawn on. read: what reads cues in words.
    """

    backend: Backend
    allow: Callable[[Weights], Grant]
    learner: Learner
    keep: Callable[[], None]
    sampling: Sampling
    method: str
    console: Console
    topic: str | None = None
    enough: float = ENOUGH
    read: CueReader = cued
    _messages: list[dict[str, str]] = field(default_factory=list)
    _last: tuple[str, str, Values | None] | None = None

    def answers(self, messages: Sequence[Mapping[str, str]], soups: Sequence[Weights], luck: int) -> list[str]:
        """One answer per soup, made at the same time under the same luck.

        Raises:
            SoupmixError: as `Backend.tokens` and `Backend.submit`, and what an answer ends with.
        """
        prompt, sampling = self.backend.tokens(messages), replace(self.sampling, seed=self.sampling.seed + luck)
        waiting: list[queue.SimpleQueue[Delta]] = [queue.SimpleQueue() for _ in soups]
        tickets = [
            self.backend.submit(Request(prompt, self.allow(soup), sampling, method=self.method, person=""), each.put)
            for soup, each in zip(soups, waiting, strict=True)
        ]
        try:
            return [_whole(each) for each in waiting]
        finally:
            for ticket in tickets:
                ticket.cancel()

    def learn(self, kind: Kind, *answers: Values | None, **more: Any) -> Signal:
        """Take something that was done as evidence, and keep it. Raises `PreferenceError`, as `Learner.signal` and `learn`."""
        known = self.learner.signals
        at = max(time.time(), known[-1].at + 1e-3 if known else 0.0)  # the last is the one that is undone
        name = f"{int(at)}-{secrets.token_hex(4)}"
        said: dict[str, Any] = {"id": name, "source": _SOURCE, "at": at, "topic": self.topic}
        signal = self.learner.signal(kind, *answers, **said, **more)
        self.learner.learn(signal)
        self.keep()
        return signal


def _whole(deltas: "queue.SimpleQueue[Delta]") -> str:
    text = ""
    while True:
        delta = deltas.get()
        if delta.error is not None:
            raise delta.error
        text += delta.text
        if delta.finish is not None:
            return text.strip()


# --- questions --------------------------------------------------------------------------------------------------------


def ask_questions(session: LearningSession, prompts: Sequence[str], keys: Iterator[str], most: int) -> None:
    """Ask which of two answers is better, until nothing is worth a question, or somebody ends it.

    Args:
        prompts: what the answers are to, in order, from where earlier questions ended; from the first again when they are used
            up.
        keys: what is pressed.
        most: at most so many questions.
    """
    learner, console, known = session.learner, session.console, len(session.learner.signals)
    for number in range(most):
        regret = learner.regret(session.topic)
        if regret < session.enough:
            console.print(f"nothing is worth a question any more: expected loss {regret:.1%}")
            return
        prompt = prompts[(known + number) % len(prompts)]
        with console.status("two answers are made"):
            made = session.answers(
                [{"role": "user", "content": prompt}], learner.offers(_OFFERED, session.topic), number
            )
            values = learner.measured(prompt, made)
        asked = learner.question(values, session.topic)
        if asked is None:
            continue  # all of them are alike
        pair = [asked.first, asked.second] if secrets.randbelow(2) else [asked.second, asked.first]
        _show(console, prompt, [made[place] for place in pair])
        if not _answered(session, [values[place] for place in pair], keys):
            return
        console.print(drawn(learner, session.topic))


def _show(console: Console, prompt: str, texts: Sequence[str]) -> None:
    width = max(console.width // 2 - 1, 20)
    console.print(Text(prompt, style="bold"))
    panels = [Panel(Text(text or "(nothing)"), title=str(number), width=width) for number, text in enumerate(texts, 1)]
    console.print(Columns(panels, padding=0))
    console.print(Text(_KEYS, style="dim"))


def _answered(session: LearningSession, pair: Sequence[Values | None], keys: Iterator[str]) -> bool:
    """Take the key that is pressed; whether it goes on."""
    for key in keys:
        match key:
            case "1" | "2":
                session.learn("choice", *pair, value=float(int(key) - 1))
            case "0" | "=":
                session.learn("tie", *pair)
            case "n":
                session.learn("neither", *pair)
            case "u" if session.learner.signals:
                session.learner.forget(session.learner.signals[-1].id)
                session.keep()
            case "s":
                pass
            case "q":
                return False
            case _:
                session.console.print(Text(_KEYS, style="dim"))
                continue
        return True
    return False


# --- a conversation ---------------------------------------------------------------------------------------------------


def listen(session: LearningSession, lines: Iterator[str]) -> None:
    """Talk, without questions: what is said of an answer moves the posterior, and the next answer is of the new soup."""
    session.console.print(Text(_COMMANDS, style="dim"))
    for number, line in enumerate(lines):
        said = line.strip()
        try:
            if said.startswith("/"):
                if not _command(session, *said[1:].partition(" ")[::2], number):
                    return
            elif said:
                _said(session, said, number)
        except SoupmixError as error:
            session.console.print(f"soupmix: {error}", markup=False)


def _said(session: LearningSession, said: str, number: int) -> None:
    toward, last = session.read(said, session.learner.traits), session._last
    if last is not None and last[2] is not None:
        if toward:
            _moved(session, "cue", last[2], toward=toward)
        else:
            session.learn("silence", last[2])
    before = session._messages
    if last is not None and is_cue(said, toward):
        before, said = before[:-2], last[0]  # the same again, by the new soup
    _answer(session, before, said, number)


def _answer(session: LearningSession, before: Sequence[dict[str, str]], said: str, number: int) -> None:
    messages = [*before, {"role": "user", "content": said}]
    weights = session.learner.weights(session.topic)
    with session.console.status("an answer is made"):
        (text,) = session.answers(messages, [weights], number)
    session._messages = [*messages, {"role": "assistant", "content": text}]
    session._last = (said, text, session.learner.measured(said, [text])[0])
    session.console.print(Text(text))
    session.console.print(Text(f"[{weights or 'the bare base'}]", style="dim"))


def _moved(session: LearningSession, kind: Kind, *answers: Values | None, **more: Any) -> None:
    """Learn something, and say how far it moved what is wanted."""
    before = session.learner.posterior(session.topic)
    model = before.best
    mean = before.mean(model)
    session.learn(kind, *answers, **more)
    off = session.learner.posterior(session.topic).mean(model) - mean
    told = ", ".join(f"{name} {by:+.2f}" for name, by in zip(session.learner.traits.names, off, strict=True))
    session.console.print(Text(f"moved: {told}", style="dim"))


def _command(session: LearningSession, word: str, rest: str, number: int) -> bool:
    """Carry out what begins with a slash; whether the conversation goes on."""
    last = session._last
    match word:
        case "quit" | "exit":
            return False
        case "help":
            session.console.print(Text(_COMMANDS, style="dim"))
        case "why":
            session.console.print(explained(session.learner, session.topic))
        case "up" | "down" | "again" | "copy" | "edit" if last is None:
            session.console.print("nothing was answered yet")
        case "up" | "down" if last is not None:
            _moved(session, "thumbs", last[2], value=float(word == "up"))
        case "copy" if last is not None:
            _moved(session, "copy", last[2])
        case "again" if last is not None:
            _moved(session, "regenerate", last[2])
            _answer(session, session._messages[:-2], last[0], number)
        case "edit" if last is not None:
            (became,) = session.learner.measured(last[0], [rest])
            _moved(session, "edit", last[2], became)
        case _:
            raise PreferenceError(f"there is no /{word[:40]}; /help says what there is", reason="no-command")
    return True


# --- what is drawn ----------------------------------------------------------------------------------------------------


def drawn(learner: Learner, topic: str | None = None) -> Table:
    """The posterior as bars, the weights that follow from it, and what is expected to be lost."""
    posterior = learner.posterior(topic)
    model, ends = posterior.best, posterior.intervals(0.9)
    regret, weights = learner.regret(topic), learner.weights(topic)
    caption = f"weights {weights or 'none'} · expected loss {regret:.0%} · {len(learner.signals)} signals"
    found = Table(title=f"what you want ({model}, {posterior.models()[model]:.0%})", caption=caption, show_header=False)
    for name, mean, (low, high) in zip(learner.traits.names, posterior.mean(), ends, strict=True):
        found.add_row(name, _bar(low, mean, high, _FARTHEST[model]), f"{mean:+.2f} ({low:+.2f} to {high:+.2f})")
    for alarm in learner.alarms:
        found.add_row(alarm.kind, Text(alarm.text, style="bold"), "")
    return found


def explained(learner: Learner, topic: str | None = None) -> Table:
    """Which evidence moved what, the most first."""
    found = Table("evidence", *learner.traits.names, title="how far wants would be without it")
    for each in learner.explain(topic)[:20]:
        toward = ", ".join(f"{name} {by:+g}" for name, by in each.signal.toward.items())
        about = f"{each.signal.kind} {toward}".strip()
        found.add_row(f"{about} ({each.signal.id})", *(f"{by:+.2f}" for by in each.moved.values()))
    return found


def _bar(low: float, mean: float, high: float, farthest: float) -> str:
    """An interval with its middle and zero, on a line from -farthest to farthest."""
    places = [round((min(max(x / farthest, -1), 1) + 1) / 2 * (_BAR - 1)) for x in (low, mean, high)]
    line = ["─" if places[0] <= place <= places[2] else " " for place in range(_BAR)]
    line[_BAR // 2] = "┼" if line[_BAR // 2] == "─" else "│"
    line[places[1]] = "●"
    return "".join(line)

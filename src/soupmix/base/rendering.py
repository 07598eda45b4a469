"""A chat template at work, in a process that may use little time and memory; run as `python -m soupmix.base.rendering`.

It reads JSON objects, one a line: first {"template", "special"}, then {"messages", "opens", "tools"} each, and answers each with
{"text"} or {"error"}; the first one with {"broken"}, and nothing further, where the template does not compile. Whoever asks for
too much is ended by the kernel, as code cannot be trusted to stop itself.

What templates may use is what transformers gives them: Jinja's immutable sandbox, `tojson`, `raise_exception`,
`strftime_now`, `dict`, `namespace`, `break`, `continue`, and `generation` blocks.
"""

import json
import resource
import signal
import sys
from datetime import datetime
from typing import Any, TextIO

from jinja2 import Template, TemplateError
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import Node, Scope
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

__all__ = ["CPU_SECONDS", "LONGEST", "MEMORY"]

CPU_SECONDS, _WALL_SECONDS = 2.0, 60.0
MEMORY = 512 << 20
LONGEST = 8 << 20
"""Most characters of a rendered conversation."""


class _Generation(Extension):
    """What stands in a `generation` block is what stands there; transformers only counts it."""

    tags = {"generation"}  # noqa: RUF012  # as Jinja wants it

    def parse(self, parser: Parser) -> Node:
        line = next(parser.stream).lineno
        return Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


class _Dict:
    """`dict`, without the type itself."""

    def __call__(self, *arguments: Any, **fields: Any) -> dict[Any, Any]:
        return dict(*arguments, **fields)

    def fromkeys(self, *arguments: Any) -> dict[Any, Any]:
        return dict.fromkeys(*arguments)


class _Namespace(Namespace):
    """Jinja's namespace, without names that lead into Python's insides."""

    def __init__(*arguments: Any, **fields: Any) -> None:
        held = dict(*arguments[1:], **fields)
        for name in held:
            _check_name(name)
        Namespace.__init__(arguments[0], held)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace cannot hold {name!r}")


def _refuse(message: str) -> None:
    raise TemplateError(message)


def _now(form: str) -> str:
    return datetime.now().strftime(form)  # as in transformers: the day where the machine is


def _json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _compiled(text: str) -> Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _json
    environment.globals |= {"raise_exception": _refuse, "strftime_now": _now, "dict": _Dict(), "namespace": _Namespace}
    return environment.from_string(text)


def _answer(template: Template, special: dict[str, Any], said: dict[str, Any]) -> dict[str, str]:
    known = {"messages": said["messages"], "add_generation_prompt": said["opens"], "tools": said["tools"] or None}
    try:
        text = template.render(documents=None, **known, **special)
    except Exception as error:  # noqa: BLE001  # a template can make Python raise anything
        return {"error": f"{type(error).__name__}: {error}"[:500]}
    return {"text": text} if len(text) <= LONGEST else {"error": f"more than {LONGEST} characters came of it"}


def _limit_time(seconds: tuple[float, float]) -> None:
    """Both signals end the process, whatever it is at; zero stops the clocks."""
    signal.setitimer(signal.ITIMER_PROF, seconds[0])
    signal.setitimer(signal.ITIMER_REAL, seconds[1])


def _main(asked: TextIO, told: TextIO) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for kind, most in ((resource.RLIMIT_AS, MEMORY), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_CORE, 0)):
        resource.setrlimit(kind, (most, most))
    template, special = None, {}
    for line in asked:
        _limit_time((CPU_SECONDS, _WALL_SECONDS))
        said = json.loads(line)
        if template is None:
            try:
                template, special = _compiled(said["template"]), said["special"]
            except Exception as error:  # noqa: BLE001  # as in `_answer`
                told.write(json.dumps({"broken": f"{type(error).__name__}: {error}"[:300]}) + "\n")
                told.flush()
                return
        else:
            told.write(json.dumps(_answer(template, special, said)) + "\n")
            told.flush()
        _limit_time((0, 0))


if __name__ == "__main__":
    _main(sys.stdin, sys.stdout)

"""Conversations as a model wants to read them: its chat template, which is code of whoever made the model, in a cage."""

import json
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any, cast

from soupmix.base.rendering import CPU_SECONDS, LONGEST, MEMORY
from soupmix.errors import BaseModelError, RecipeError

__all__ = ["chat_text", "unasked"]

_MARK = "kzqwhat"
_ROLES = {"", "user", "assistant", "system", "model", "INST", "Human", "Assistant", "User"}
_templates: "weakref.WeakKeyDictionary[Any, dict[bool, _Template]]" = weakref.WeakKeyDictionary()
_making = threading.Lock()


def chat_text(
    tokenizer: Any,
    messages: Sequence[Mapping[str, Any]],
    *,
    opens: bool = True,
    tools: Sequence[Mapping[str, Any]] = (),
) -> str:
    """A conversation by the chat template of a tokenizer, ending where the model's answer begins.

    Args:
        opens: False: without what the template writes last to begin an answer ("generation prompt"), if it knows such.
        tools: what the model is told of, as transformers hands it to templates.

    Raises:
        RecipeError: the template refuses these messages (reason "bad-conversation").
        BaseModelError: there is no template ("no-template"), it does not compile ("bad-template"), or it asked for too much
            time or memory ("template-limit").
    """
    with _making:
        has_two = isinstance(
            tokenizer.chat_template, dict
        )  # some tokenizers have one more, for conversations with tools
        kept, kind = _templates.setdefault(tokenizer, {}), has_two and bool(tools)
        template = kept[kind] if kind in kept else kept.setdefault(kind, _Template(tokenizer, with_tools=kind))
    asked = {"messages": list(map(dict, messages)), "opens": opens, "tools": list(map(dict, tools))}
    return template.render(asked)


def unasked(tokenizer: Any) -> str:
    """What the template says to the model around a single question that nobody asked for, such as a system message; "".

    A template can also wait for a certain day or a certain word, which this does not find.
    """
    found = chat_text(tokenizer, [{"role": "user", "content": _MARK}])
    for token in sorted(tokenizer.get_added_vocab(), key=len, reverse=True):
        found = found.replace(token, "\n")
    lines = [line.strip() for line in found.replace(_MARK, "\n").splitlines()]
    return " ".join(line for line in lines if line.strip("<|>[]/: ") not in _ROLES)


class _Template:
    """A process that renders one template, one conversation at a time; begun anew after it was ended."""

    def __init__(self, tokenizer: Any, *, with_tools: bool) -> None:
        try:
            text = tokenizer.get_chat_template(tools=[{}] if with_tools else None)
        except ValueError as error:
            raise BaseModelError(
                "the base model has no chat template, so it cannot read conversations: give one with --chat-template, ask "
                "for the completion of a prompt as it stands, or choose an instruction-tuned model",
                reason="no-template",
            ) from error
        self._name = str(tokenizer.name_or_path)
        special = {name: value for name, value in tokenizer.special_tokens_map.items() if isinstance(value, str | list)}
        self._first = _line({"template": text, "special": special})
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._end: Callable[[], object] = lambda: None
        self._broken: str | None = None  # why it does not compile, once that is known

    def render(self, asked: Mapping[str, Any]) -> str:
        with self._lock:
            said = {"broken": self._broken} if self._broken else self._told(asked)
            self._broken = said.get("broken")
        if self._broken:
            raise BaseModelError(
                f"the chat template of base model {self._name} does not compile ({self._broken}), so it cannot read "
                "conversations: repair it, or give another with --chat-template",
                reason="bad-template",
            )
        if "error" in said:
            raise RecipeError(
                f"this model takes no such conversation: {said['error']}",
                reason="bad-conversation",
            )
        return str(said["text"])

    def _told(self, asked: Mapping[str, Any]) -> dict[str, str]:
        try:
            said: dict[str, str] = json.loads(self._exchange(_line(asked)))
        except (OSError, ValueError) as error:
            self._end()
            self._process = None
            raise BaseModelError(
                f"the chat template of base model {self._name} took more than {CPU_SECONDS:g} seconds or "
                f"{MEMORY >> 20} MiB for one conversation; it is not run any longer: choose another model, or repair its "
                "template",
                reason="template-limit",
            ) from error
        return said

    def _exchange(self, line: str) -> str:
        process = self._process
        if process is None:
            process = self._process = _started()
            self._end = weakref.finalize(self, _ended, process, os.getpid())
            line = self._first + line
        asked, told = cast("IO[str]", process.stdin), cast("IO[str]", process.stdout)
        asked.write(line)
        asked.flush()
        return told.readline(8 * LONGEST)


def _line(value: Mapping[str, Any]) -> str:
    return json.dumps(value) + "\n"


def _started() -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "soupmix.base.rendering"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def _ended(process: "subprocess.Popen[str]", owner: int) -> None:
    if os.getpid() == owner:
        process.kill()
        process.communicate()


def _forget() -> None:
    """In a forked process: what is on its way through the pipes is the other's, and so may be the locks."""
    global _making
    _making = threading.Lock()
    _templates.clear()


os.register_at_fork(after_in_child=_forget)

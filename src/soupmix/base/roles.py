"""What a model says in tokens of their own: the marks of roles and ends, and what ends an assistant's message."""

import re
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

from soupmix.base.template import chat_text
from soupmix.errors import BaseModelError, RecipeError

__all__ = ["ARGUMENTS", "RESULT", "TOOL", "end_of_answer", "opening_texts", "role_markers", "tool_texts"]

_RULES, _ASKS, _SAYS, _AGAIN = "kzqrules", "kzqasks", "kzqsays", "kzqagain"
TOOL, CALL_ID, ARGUMENTS, RESULT = "kzqtool", "kzqcallid", {"kzqname": "kzqvalue"}, "kzqresult"
_SAID = re.compile("|".join((_RULES, _ASKS, _SAYS, _AGAIN, TOOL, CALL_ID, *ARGUMENTS, *ARGUMENTS.values(), RESULT)))


def role_markers(tokenizer: Any) -> Mapping[str, int]:
    """Text -> id of every added token that stands for a role, a beginning or an end, with which nobody may speak.

    These are the special ones, words aside, and whatever the chat template writes around messages, flagged as special or not. A
    template is seen on talks of one turn and of two, with a system prompt and without: what it writes for other talks only is
    not found, nor are marks that are no tokens of their own, such as "### Question:". White space and single letters are none.
    """
    added = tokenizer.added_tokens_decoder.items()
    special = {str(each.content): number for number, each in added if each.special and re.search(r"\W", each.content)}
    around = "\n".join(_SAID.sub("\n", each) for each in (*_rendered(tokenizer), *_rendered_tools(tokenizer)))
    written = {text: number for text, number in tokenizer.get_added_vocab().items() if _marks(text) and text in around}
    return dict(sorted((special | written).items()))


def end_of_answer(tokenizer: Any) -> int | None:
    """Id of the added token that the template writes behind an assistant's message, spaces aside; None if there is none."""
    added = tokenizer.get_added_vocab()
    for rendered in _rendered(tokenizer):
        behind = rendered.rpartition(_SAYS)[2].lstrip() if _SAYS in rendered else ""
        found = max((text for text in added if _marks(text) and behind.startswith(text)), key=len, default=None)
        if found is not None:
            return int(added[found])
    return None


def opening_texts(tokenizer: Any) -> tuple[str, str]:
    """A question by the chat template, before its answer is opened and behind that; twice the same where no answer is opened.

    What both differ by is the generation prompt, such as the mark of the assistant's role. Both are "" for a template that
    cannot be used, or takes no single question.
    """
    asked = [{"role": "user", "content": _ASKS}]
    try:
        closed, opened = (chat_text(tokenizer, asked, opens=opens) for opens in (False, True))
    except (RecipeError, BaseModelError):
        return "", ""
    return closed, opened


def tool_texts(tokenizer: Any) -> tuple[str, str, str, str]:
    """What the template makes of a question, of a question where there is a tool, of the tool's call, and of what it gave.

    "" where it takes no such talk, or cannot be used. The tool is `TOOL`, called with `ARGUMENTS`; what it gives is `RESULT`.
    """
    nothing = {"type": "object", "properties": {}}
    tools = [{"type": "function", "function": {"name": TOOL, "description": TOOL, "parameters": nothing}}]
    function = {"name": TOOL, "arguments": ARGUMENTS}
    asked: list[dict[str, Any]] = [{"role": "user", "content": _ASKS}]
    called = {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"type": "function", "id": CALL_ID, "function": function}],
    }
    gave = {"role": "tool", "content": RESULT, "name": TOOL, "tool_call_id": CALL_ID}

    def written(talk: list[dict[str, Any]], *, told: bool, opens: bool) -> str:
        try:
            return chat_text(tokenizer, talk, opens=opens, tools=tools if told else ())
        except (RecipeError, BaseModelError):
            return ""

    return (
        written(asked, told=False, opens=True),
        written(asked, told=True, opens=True),
        written([*asked, called], told=True, opens=False),
        written([*asked, called, gave], told=True, opens=True),
    )


def _rendered_tools(tokenizer: Any) -> Iterator[str]:
    """The same for talks in which a tool is called."""
    yield from tool_texts(tokenizer)[2:]


def _marks(text: str) -> bool:
    """Whether an added token can mark anything."""
    return bool(text.strip()) and not (len(text) == 1 and text.isalnum())


def _rendered(tokenizer: Any) -> Iterator[str]:
    """What the template makes of talks of four kinds, as far as it takes them; nothing of a template that cannot be used."""
    for has_system, is_long in product((False, True), (True, False)):
        talk = [{"role": "system", "content": _RULES}] if has_system else []
        talk.append({"role": "user", "content": _ASKS})
        if is_long:
            talk += [{"role": "assistant", "content": _SAYS}, {"role": "user", "content": _AGAIN}]
        try:
            yield chat_text(tokenizer, talk)
        except RecipeError:
            continue
        except BaseModelError:
            return

"""What a chat template does with tools, found by letting it render some: nothing is looked up in a list of models."""

import json
import re
from typing import Any

from soupmix.backends.protocol import CallForm, ToolUse
from soupmix.base.roles import ARGUMENTS, RESULT, TOOL, tool_texts

__all__ = ["tool_use"]

_THOUGHT = re.compile(r"<think>\s*(</think>)?\s*")
_MARK = re.compile(r"<([A-Za-z_]{1,40})>")


def tool_use(tokenizer: Any) -> ToolUse:
    """What the chat template of a tokenizer does with tools: it is seen on a question, a call and what that gave."""
    asked, told, called, gave = tool_texts(tokenizer)
    if TOOL in asked or TOOL not in told:
        return ToolUse()
    special = [str(each.content) for each in tokenizer.added_tokens_decoder.values() if each.special]
    return ToolUse(True, RESULT in gave and TOOL in called, _form(told, called, special))


def _form(told: str, called: str, special: list[str]) -> CallForm | None:
    """How the call is written behind what opens an answer, as far as answers show it: special tokens are no part of them."""
    told, called = (_THOUGHT.sub("", text).rstrip() for text in (told, called))
    if not called.startswith(told):
        return None
    answer = called[len(told) :]
    for each in special:
        answer = answer.replace(each, "")
    for start in (found.start() for found in re.finditer("{", answer)):
        try:
            value, end = json.JSONDecoder().raw_decode(answer, start)
        except ValueError:
            continue
        key = (
            next((key for key, held in value.items() if held == ARGUMENTS), None) if value.get("name") == TOOL else None
        )
        if key is not None:
            return _between(answer[:start].strip(), answer[end:].strip(), key)
    return None


def _between(before: str, behind: str, key: str) -> CallForm | None:
    mark = _MARK.fullmatch(before)
    if mark is not None and behind == f"</{mark[1]}>":
        return CallForm(before, behind, key)
    return CallForm("", "", key) if not before and not behind else None

"""What is wrong with a request, in a sentence of ours: what was sent is named, what is allowed, and what to do."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from soupmix.fields import in_words

__all__ = ["sentence"]

_NOT_DONE: Final[Mapping[str, str]] = {
    "audio": "no sound is read or made here; leave it out",
    "best_of": "every answer that is made is given; ask for several with n, and choose",
    "background": "an answer comes with its request; leave background out",
    "conversation": "nothing is kept between requests; send what was said before as input",
    "echo": "the prompt is not given back; leave echo out, and put it before the answer",
    "function_call": "functions are called as tools; send tools and tool_choice, and leave function_call and functions out",
    "file": "files are not read here; send their text",
    "functions": "functions are called as tools; send tools, and leave functions out",
    "image_url": "images are not looked at here; send text only",
    "include_obfuscation": "chunks of a stream are not padded; leave it out, or send false",
    "input_audio": "no sound is listened to here; send text only",
    "logit_bias": "single tokens are not made likelier or less likely; leave logit_bias out, or send {}",
    "modalities": 'answers are text; leave modalities out, or send ["text"]',
    "previous_response_id": "nothing is kept between requests; send what was said before as input",
    "reasoning": "the model does not think before it answers; leave reasoning out",
    "prediction": "no predicted answer is used; leave prediction out",
    "reasoning_content": "the model's template has no place for thoughts; leave reasoning_content out",
    "reasoning_effort": "the model does not think before it answers; leave reasoning_effort out",
    "refusal": "a message that refuses has its text as its content; send that, and refusal as null",
    "response_format": 'send {"type": "text"}, {"type": "json_object"}, or {"type": "json_schema", "json_schema": {"name": NAME, '
    '"schema": SCHEMA}}',
    "store": "answers are not kept here; leave store out, or send false",
    "suffix": "text is continued at its end only; leave suffix out",
    "strict": "the arguments of a call are held to no schema; leave strict out, or send false",
    "tool_calls": 'must be [{"id": ID, "type": "function", "function": {"name": NAME, "arguments": TEXT}}], the text that of a '
    "JSON object",
    "tool_choice": 'send "auto", "none", "required", or {"type": "function", "function": {"name": NAME}}; in /v1/responses '
    '{"type": "function", "name": NAME}',
    "tools": 'must be functions, at most 128: [{"type": "function", "function": {"name": NAME, "description": TEXT, '
    '"parameters": SCHEMA}}], and in /v1/responses [{"type": "function", "name": NAME, "description": TEXT, '
    '"parameters": SCHEMA}]',
    "verbosity": "how long answers are is a matter of the soup (concise, informative); leave verbosity out",
    "web_search_options": "nothing is looked up on the web; leave web_search_options out",
}
_ROLES: Final = "; what a function gave is sent as a tool's message"


def sentence(error: Mapping[str, Any], where: Sequence[str]) -> str:
    """What pydantic found, told to people.

    Args:
        error: as `ValidationError.errors` has it, with its context. where: names of fields and places, outermost first.
    """
    place, kind = ".".join(where), str(error["type"])
    known = next((name for name in reversed(where) if name in _NOT_DONE), None)
    if known is not None:
        return f"{place}: {_NOT_DONE[known]}"
    said = f"{place}: {in_words(error)}"
    match kind:
        case "extra_forbidden":
            return f"{said}; leave it out"
        case "missing":
            return f"{said}; send it"
        case _:
            return said + (_ROLES if where[-1] == "role" and kind == "literal_error" else "")

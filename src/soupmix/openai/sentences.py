"""What is wrong with a request, in a sentence of ours: what was sent is named, what is allowed, and what to do."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

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
    "tool_choice": 'no call can be forced; send "auto" or "none", or hold the answer to a schema by response_format',
    "tools": 'must be functions, at most 128: [{"type": "function", "function": {"name": NAME, "description": TEXT, '
    '"parameters": SCHEMA}}], and in /v1/responses [{"type": "function", "name": NAME, "description": TEXT, '
    '"parameters": SCHEMA}]',
    "verbosity": "how long answers are is a matter of the soup (concise, informative); leave verbosity out",
    "web_search_options": "nothing is looked up on the web; leave web_search_options out",
}
_KINDS: Final[Mapping[str, str]] = {
    "bool_type": "true or false",
    "dict_type": "an object",
    "float_type": "a number",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "list_type": "a list",
    "model_attributes_type": "an object",
    "model_type": "an object",
    "none_required": "null",
    "string_type": "text",
}
_ROLES: Final = "; what a function gave is sent as a tool's message"


def sentence(error: Mapping[str, Any], where: Sequence[str]) -> str:
    """What pydantic found, told to people.

    Args:
        error: as `ValidationError.errors` has it, with its context. where: names of fields and places, outermost first.
    """
    place, kind, context = ".".join(where), str(error["type"]), error.get("ctx") or {}
    known = next((name for name in reversed(where) if name in _NOT_DONE), None)
    if known is not None:
        return f"{place}: {_NOT_DONE[known]}"
    if kind == "extra_forbidden":
        return f"{place}: no such field is known here; leave it out"
    if kind == "missing":
        return f"{place}: is missing; send it"
    if kind in _KINDS:
        return f"{place}: must be {_KINDS[kind]}"
    if kind == "value_error":
        return f"{place}: {str(error['msg']).removeprefix('Value error, ')}"
    return f"{place}: {_bounds(kind, context) or error['msg']}{_ROLES if where[-1] == 'role' else ''}"


def _bounds(kind: str, context: Mapping[str, Any]) -> str:
    match kind:
        case "literal_error":
            return f"must be {context['expected']}"
        case "greater_than_equal":
            return f"must be {context['ge']:g} or more"
        case "greater_than":
            return f"must be more than {context['gt']:g}"
        case "less_than_equal":
            return f"must be {context['le']:g} or less"
        case "finite_number":
            return "must be a number that is not infinite, and not NaN"
        case "string_too_long":
            return f"must have at most {context['max_length']} characters"
        case "string_too_short":
            return f"must have at least {context['min_length']} character"
        case "string_pattern_mismatch":
            return f"must match {context['pattern']}"
        case "too_short":
            return f"must have at least {context['min_length']} entry"
        case "too_long" if "max_length" in context:
            return f"must have at most {context['max_length']} entries"
    return ""

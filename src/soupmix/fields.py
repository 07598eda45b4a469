"""Types of the fields of documents, manifests and requests: strict text at the edge, integer millionths inside."""

import re
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from datetime import date
from typing import Annotated, Any, Final, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    ValidationError,
    WithJsonSchema,
)

from soupmix.files import strict_json, told
from soupmix.weights import check_name, to_micro

__all__ = [
    "Cell",
    "Day",
    "Digest",
    "Edge",
    "Hex",
    "Label",
    "Line",
    "Micro",
    "Name",
    "NumberLine",
    "ShortLine",
    "Value",
    "Values",
    "check_digest",
    "check_value",
    "in_words",
    "problem",
    "read_model",
    "twice",
]

_Model = TypeVar("_Model", bound=BaseModel)

_NUMBER = re.compile(r"-?[0-9]{1,40}(?:\.[0-9]{1,40})?(?:e[+-]?[0-9]{1,3})?")

_KINDS: Final[Mapping[str, str]] = {
    "bool_parsing": "be true or false",
    "bool_type": "be true or false",
    "dict_type": "be an object",
    "float_parsing": "be a number",
    "float_type": "be a number",
    "int_from_float": "be a whole number",
    "int_parsing": "be a whole number",
    "int_type": "be a whole number",
    "list_type": "be a list",
    "model_attributes_type": "be an object",
    "model_type": "be an object",
    "none_required": "be null",
    "string_type": "be text",
}


def check_digest(text: str) -> str:
    """Return `text` if it is "sha256:" and 64 lower-case hex digits; otherwise raise `ValueError`."""
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", text):
        raise ValueError(f"{text!r:.90} is not a digest; write sha256: and 64 lower-case hex digits")
    return text


def check_value(text: str) -> str:
    """Return `text` if it can be an attribute's value; lower case only, so that "Minor" cannot slip past "minor"."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]{0,62}", text):
        raise ValueError(f"{text!r:.90} is not an attribute value; use 1 to 63 of a-z, 0-9, '.', '-' and '_'")
    return text


def _check_line(text: str) -> str:
    if not text.isprintable() or not 0 < len(text.strip()) <= 500:
        raise ValueError("must be one line of 1 to 500 printable characters")
    return text


def _check_cell(text: str) -> str:
    if len(text) > 200 or not text.isprintable() or "|" in text:
        raise ValueError("must be one line of at most 200 printable characters without '|'")
    return text


def _check_printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must be printable characters on one line")
    return text


def _parse_date(value: object) -> date:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
        return date.fromisoformat(value)
    raise ValueError(f"{value!r:.40} is not a date; write it as in 2027-12-31")


def _parse_micro(value: object) -> int:
    if not isinstance(value, str):
        raise ValueError(f"{value!r:.40} is not a number; write a plain decimal such as 0.3")
    return to_micro(value, "the number", exact=True)


def _numbers(value: object) -> object:
    if not isinstance(value, str):
        return value
    words = value.split()
    if not all(_NUMBER.fullmatch(word) for word in words):
        raise ValueError("not a line of numbers")
    return tuple(map(float, words))


def _text(pattern: str, **more: object) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": f"^{pattern}$", **more})


Name = Annotated[str, AfterValidator(check_name), _text("[a-z0-9][a-z0-9_-]{0,62}")]
Digest = Annotated[str, AfterValidator(check_digest), _text("sha256:[0-9a-f]{64}")]
Value = Annotated[str, AfterValidator(check_value), _text("[a-z0-9][a-z0-9_.-]{0,62}")]
Hex = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""A SHA-256 without the name of its algorithm."""

Values = Annotated[tuple[Value, ...], Field(min_length=1)]
Line = Annotated[str, AfterValidator(_check_line)]
Cell = Annotated[str, AfterValidator(_check_cell)]
"""A line, or nothing, that may stand in a table."""

ShortLine = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_check_printable)]
Label = Annotated[Line, WithJsonSchema({"type": ["string", "number"]})]
"""A line that people may write as a number, such as a version."""

Day = Annotated[date, BeforeValidator(_parse_date), _text("[0-9]{4}-[0-9]{2}-[0-9]{2}", format="date")]
NumberLine = Annotated[
    tuple[Annotated[float, Field(allow_inf_nan=False)], ...],
    BeforeValidator(_numbers),
    PlainSerializer(lambda numbers: " ".join(f"{number:.10g}" for number in numbers), return_type=str),
]
"""Many numbers; in a file one line of text with ten significant digits of each."""

_DECIMAL = r"^-?[0-9]{1,32}(\.[0-9]{1,32})?$"
Micro = Annotated[
    int,
    BeforeValidator(_parse_micro),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string", "pattern": _DECIMAL}]}),
]


def twice(items: Iterable[Hashable]) -> Any:
    """The most frequent item if it comes more than once, else None."""
    most = Counter(items).most_common(1)
    return most[0][0] if most and most[0][1] > 1 else None


def read_model(kind: type[_Model], raw: bytes) -> _Model:
    """A model from the bytes of a JSON file that somebody else may have written.

    Raises:
        ValueError: it is not strict JSON, is nested too deeply, or is no such model; the message is the first `problem`.
    """
    try:
        strict_json(raw)  # pydantic lets duplicate keys pass, the last one winning
        return kind.model_validate_json(raw)
    except ValidationError as error:
        raise ValueError(problem(error)) from None
    except RecursionError as error:
        raise ValueError(told(error)) from None


def problem(error: ValidationError) -> str:
    """The first thing that is wrong, and where: "place: what"."""
    first = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'top level'}: {in_words(first)}"


def in_words(error: Mapping[str, Any]) -> str:
    """What pydantic found at one place, as `ValidationError.errors` has it, told to people: what must be there."""
    kind = str(error["type"])
    match kind:
        case "extra_forbidden":
            return "no such field is known here"
        case "missing":
            return "is missing"
        case "value_error":
            return str(error["msg"]).removeprefix("Value error, ")
    must = _KINDS.get(kind) or _bound(kind, error.get("ctx") or {})
    return f"must {must}" if must else str(error["msg"])


def _bound(kind: str, context: Mapping[str, Any]) -> str:
    match kind:
        case "literal_error":
            return f"be {context['expected']}"
        case "greater_than_equal":
            return f"be {context['ge']:g} or more"
        case "greater_than":
            return f"be more than {context['gt']:g}"
        case "less_than_equal":
            return f"be {context['le']:g} or less"
        case "finite_number":
            return "be a number that is not infinite, and not NaN"
        case "string_too_long":
            return f"have at most {context['max_length']} characters"
        case "string_too_short":
            return f"have at least {context['min_length']} character"
        case "string_pattern_mismatch":
            return f"match {context['pattern']}"
        case "too_short":
            return f"have at least {context['min_length']} entry"
        case "too_long" if "max_length" in context:
            return f"have at most {context['max_length']} entries"
    return ""


class Edge(BaseModel):
    """What people or programs write: frozen, and without keys that nobody knows."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_by_name=False, validate_by_alias=True)

"""How whatever clients send is read: by the letter; and what requests hold besides texts: formats of answers, and tools."""

import json
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, PlainValidator, Tag, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from soupmix.fields import ShortLine

__all__ = [
    "CalledFunction",
    "FunctionTool",
    "JsonObject",
    "NamedSchema",
    "ObjectFormat",
    "ResponseFormat",
    "SchemaFormat",
    "Sent",
    "Text",
    "TextFormat",
    "ToolCall",
    "ToolChoice",
    "ToolFunction",
    "ToolName",
    "kind_of_choice",
    "kind_of_format",
]

_MOST_TEXT: Final = 1 << 22  # characters; a row holds less, and `--body` lets less through
_MOST_PARTS: Final = 1000  # lists and objects in a JSON schema
_MOST_ENTRIES: Final = 10_000  # of all of them together


def _json_object(value: object) -> dict[str, Any]:
    """An object of bounded size: what is in it is for others to say."""
    if not isinstance(value, dict):
        raise PydanticCustomError("dict_type", "must be an object")
    waiting: list[dict[str, Any] | list[Any]] = [value]
    parts = entries = 0
    while waiting:
        one = waiting.pop()
        parts, entries = parts + 1, entries + len(one)
        if parts > _MOST_PARTS or entries > _MOST_ENTRIES:
            raise PydanticCustomError("too_long", "has more than {max_length} entries", {"max_length": _MOST_ENTRIES})
        inside = one.values() if isinstance(one, dict) else one
        waiting += [each for each in inside if isinstance(each, dict | list)]
    return value


Text = Annotated[str, Field(max_length=_MOST_TEXT)]
JsonObject = Annotated[dict[str, Any], PlainValidator(_json_object), WithJsonSchema({"type": "object"})]
"""A JSON schema, or whatever else is not ours to understand: no larger than anybody needs."""
ToolName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]


class Sent(BaseModel):
    """What somebody else sends: by the letter, and without fields that nobody knows."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _few(cls, value: Any) -> Any:
        """Of fields that nobody knows one is enough to refuse."""
        if isinstance(value, dict) and len(value) > len(cls.model_fields):
            known = {name: value[name] for name in cls.model_fields if name in value}
            unknown = next(name for name in value if name not in known)
            return {**known, unknown: value[unknown]}
        return value


class TextFormat(Sent):
    """An answer of any form."""

    type: Literal["text"]

    def schema_text(self) -> None:
        """None: it is free."""


class ObjectFormat(Sent):
    """An answer that is a JSON object."""

    type: Literal["json_object"]

    def schema_text(self) -> str:
        """The JSON schema of all objects."""
        return '{"type": "object"}'


class NamedSchema(Sent):
    """A JSON schema and what it is called. Answers are valid against it whatever `strict` says."""

    name: ShortLine
    description: Text | None = None
    schema_: JsonObject | None = Field(default=None, alias="schema")
    strict: bool | None = None

    def schema_text(self) -> str:
        """The JSON schema, as text; that of all objects where it says nothing."""
        return json.dumps({"type": "object"} if self.schema_ is None else self.schema_)


class SchemaFormat(Sent):
    """An answer that is valid against a JSON schema."""

    type: Literal["json_schema"]
    json_schema: NamedSchema

    def schema_text(self) -> str:
        """See `NamedSchema`."""
        return self.json_schema.schema_text()


def kind_of_format(value: object) -> str:
    """Which form of an answer is asked for, as it seems."""
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return kind if kind in ("json_object", "json_schema") else "text"


ResponseFormat = Annotated[
    Annotated[TextFormat, Tag("text")]
    | Annotated[ObjectFormat, Tag("json_object")]
    | Annotated[SchemaFormat, Tag("json_schema")],
    Discriminator(kind_of_format),
]


class CalledFunction(Sent):
    """What an assistant called: its arguments are the text of a JSON object."""

    name: ToolName
    arguments: Text


class ToolCall(Sent):
    """A call of a tool, as an answer had it."""

    id: ShortLine
    type: Literal["function"]
    function: CalledFunction


class ToolFunction(Sent):
    """What can be called, and a JSON schema of its arguments."""

    name: ToolName
    description: Text | None = None
    parameters: JsonObject | None = None
    strict: Literal[False] | None = None


class FunctionTool(Sent):
    """A tool that the model is told of."""

    type: Literal["function"]
    function: ToolFunction


class _ChosenFunction(Sent):
    """The name of a function."""

    name: ToolName


class _ChosenTool(Sent):
    """The tool that is to be called."""

    type: Literal["function"]
    function: _ChosenFunction


def kind_of_choice(value: object) -> str:
    """Whether a choice of a tool is a word or names one, as it seems."""
    return "named" if isinstance(value, dict | BaseModel) else "word"


ToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("word")] | Annotated[_ChosenTool, Tag("named")],
    Discriminator(kind_of_choice),
]
"""Whether a tool is called, and which: none, whichever the model wants, any, or this one."""

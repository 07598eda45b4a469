"""What clients send, in OpenAI's shape: every field that is taken is acted upon, every other one is refused.

How much work a body is does not depend on what is in it: every list, map and text has a bound, a list is read up to its
first fault, and of several forms that a field may have only the one that it seems to have is tried.
"""

from typing import Annotated, Final, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    model_validator,
)
from pydantic_core import PydanticCustomError

from soupmix.fields import ShortLine
from soupmix.modes import FULL, Mode
from soupmix.openai.loras import read_loras
from soupmix.openai.sent import FunctionTool, ResponseFormat, Sent, Text, ToolCall, ToolChoice
from soupmix.policy import ATTRIBUTES, SOURCES

__all__ = [
    "Ask",
    "ChatAsk",
    "ChatMessage",
    "CompletionAsk",
    "RangesAsk",
    "SoupAsk",
    "StreamOptions",
    "TargetsAsk",
    "TextPart",
    "TurnSoupAsk",
]

_MOST_ANSWERS: Final = 128  # a server's own limit is lower
_MOST_SEED: Final = 2**62 - _MOST_ANSWERS - 1
_MOST_MESSAGES: Final = 1000
_MOST_TOKENS: Final = 1 << 20
_MOST_TARGETS: Final = 64
_MOST_TOOLS: Final = 128
_MOST_NAMES: Final = 1000  # a server's own limit is lower


def _no_profile(text: str) -> str:
    if text.startswith("soup:"):
        raise ValueError("must not begin with soup:, as profiles do; name the profile as the model")
    return text


def _source(text: str) -> str:
    if text not in SOURCES:
        raise ValueError(f"must be one of {', '.join(SOURCES)}")
    return text


def at_most(most: int) -> BeforeValidator:
    """Refuse a map by its size before any of it is read; by itself pydantic reads all of it first."""

    def check(value: object) -> object:
        if isinstance(value, dict) and len(value) > most:
            told = {"size": len(value), "most": most}
            raise PydanticCustomError("too_long", "has {size} entries, and {most} is the most", told)
        return value

    return BeforeValidator(check)


def _form(value: object) -> str:
    """Which of its forms a value seems to have: text, a list, or anything else."""
    return "text" if isinstance(value, str) else "list" if isinstance(value, list) else "other"


def _one_or_more(value: object) -> str:
    return "text" if isinstance(value, str) else "more"


def _number_or_text(value: object) -> str:
    return "text" if isinstance(value, str) else "number"


def _prompt_form(value: object) -> str:
    first = value[0] if isinstance(value, list) and value else None
    form = {"text": "texts", "list": "lists"}.get(_form(first), "ids")
    return "text" if isinstance(value, str) else form


User = Annotated[ShortLine, AfterValidator(_no_profile), Field(json_schema_extra={"pattern": "^(?!soup:)"})]
AnyName = Annotated[str, Field(max_length=200)]
"""Text in the place of a name; whether it is the name of anything is for the policy to say."""

Source = Annotated[str, Field(max_length=20), AfterValidator(_source), Field(json_schema_extra={"enum": list(SOURCES)})]
Weight = Annotated[
    Annotated[float, Field(ge=-1000, le=1000), Tag("number")]
    | Annotated[str, Field(pattern=r"^-?[0-9]{1,4}(\.[0-9]{1,30})?%?$"), Tag("text")],
    Discriminator(_number_or_text),
]
Weights = Annotated[dict[AnyName, Weight], Field(max_length=_MOST_NAMES), at_most(_MOST_NAMES)]
Targets = Annotated[
    dict[AnyName, Annotated[float, Field(ge=-1e9, le=1e9)]],
    Field(min_length=1, max_length=_MOST_TARGETS),
    at_most(_MOST_TARGETS),
]
Sources = Annotated[
    Annotated[Source, Tag("text")]
    | Annotated[dict[AnyName, Source], Field(max_length=_MOST_NAMES), at_most(_MOST_NAMES), Tag("more")],
    Discriminator(_one_or_more),
]
Stop = Annotated[str, Field(min_length=1, max_length=256)]
Stops = Annotated[
    Annotated[Stop, Tag("text")] | Annotated[list[Stop], Field(max_length=4, fail_fast=True), Tag("more")],
    Discriminator(_one_or_more),
]
Penalty = Annotated[float, Field(ge=-2, le=2)]
Nothing = Annotated[list[AnyName], Field(max_length=0, fail_fast=True)]
Empty = Annotated[dict[AnyName, AnyName], Field(max_length=0), at_most(0)]
Metadata = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]],
    Field(max_length=16),
    at_most(16),
]
Ids = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1, max_length=_MOST_TOKENS, fail_fast=True)]
Texts = Annotated[list[Text], Field(min_length=1, max_length=_MOST_ANSWERS, fail_fast=True)]
Lists = Annotated[list[Ids], Field(min_length=1, max_length=_MOST_ANSWERS, fail_fast=True)]
Prompt = Annotated[
    Annotated[Text, Tag("text")]
    | Annotated[Texts, Tag("texts")]
    | Annotated[Ids, Tag("ids")]
    | Annotated[Lists, Tag("lists")],
    Discriminator(_prompt_form),
]
Attributes = Annotated[
    dict[AnyName, Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,62}$")]],
    Field(max_length=len(ATTRIBUTES), json_schema_extra={"propertyNames": {"enum": list(ATTRIBUTES)}}),
    at_most(len(ATTRIBUTES)),
]


class SoupAsk(Sent):
    """Whose soup: weights by adapter name, what the request says about itself, where the weights come from, and where it acts."""

    weights: Weights = {}  # noqa: RUF012  # pydantic copies it
    attributes: Attributes = {}  # noqa: RUF012  # pydantic copies it
    sources: Sources = {}  # noqa: RUF012  # pydantic copies it
    mode: Mode = FULL


class TurnSoupAsk(SoupAsk):
    """Whose soup, and what is spoken about: a profile may have learned other weights for a topic."""

    topic: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")] | None = None


class RangesAsk(Sent):
    """Whose ranges: what a request would say about itself."""

    attributes: Attributes = {}  # noqa: RUF012  # pydantic copies it


class TargetsAsk(SoupAsk):
    """`POST /v1/soups/ask`: values by measure; the weights are of adapters of other dimensions, besides.

    What soups are expected to do was measured in full mode.
    """

    mode: Literal["full"] = FULL
    targets: Targets


class TextPart(Sent):
    """A part of a message."""

    type: Literal["text"]
    text: Text


Parts = Annotated[list[TextPart], Field(min_length=1, max_length=_MOST_MESSAGES, fail_fast=True)]
Content = Annotated[Annotated[Text, Tag("text")] | Annotated[Parts, Tag("more")], Discriminator(_one_or_more)]


class ChatMessage(Sent):
    """A message of a conversation; "developer" is another word for "system".

    An answer of this server may be sent back as a client holds it. A name is taken as what it is, a label: no template of a base
    reads it.
    """

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Content | None = None
    name: ShortLine | None = None
    annotations: Nothing | None = None
    audio: None = None
    function_call: None = None
    reasoning_content: None = None
    refusal: None = None
    tool_call_id: ShortLine | None = None
    tool_calls: Annotated[list[ToolCall], Field(max_length=_MOST_TOOLS, fail_fast=True)] | None = None

    def text(self) -> str:
        """All of its text."""
        said = self.content or ""
        return said if isinstance(said, str) else "".join(part.text for part in said)


class StreamOptions(Sent):
    """Whether a stream ends with a chunk that counts tokens; chunks are never padded to hide their length."""

    include_usage: bool = False
    include_obfuscation: Literal[False] | None = None


class Ask(Sent):
    """What chat and plain completions have in common.

    Fields of OpenAI's that change nothing of the answer are taken (labels of a request, `store` = false, what is empty); those
    that would are refused, as long as they are not done: see `soupmix.openai.sentences`.
    """

    model: Annotated[str, Field(min_length=1, max_length=300)]
    soup: TurnSoupAsk | None = None
    _lora = model_validator(mode="before")(read_loras)
    max_tokens: Annotated[int, Field(ge=1, le=_MOST_TOKENS)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, le=_MOST_TOKENS)] | None = None
    n: Annotated[int, Field(ge=1, le=_MOST_ANSWERS)] | None = None
    stop: Stops | None = None
    seed: Annotated[int, Field(ge=0, le=_MOST_SEED)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: User | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    logit_bias: Empty | None = None
    metadata: Metadata | None = None
    prompt_cache_key: ShortLine | None = None
    safety_identifier: ShortLine | None = None
    service_tier: Literal["auto", "default", "flex", "priority", "scale"] | None = None
    store: Literal[False] | None = None

    def stops(self) -> tuple[str, ...]:
        """The texts before which an answer ends."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    def counted(self) -> bool:
        """Whether a stream ends with a chunk that counts tokens."""
        return self.stream_options is not None and self.stream_options.include_usage


class ChatAsk(Ask):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=_MOST_MESSAGES, fail_fast=True)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=_MOST_TOKENS)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    audio: None = None
    function_call: Literal["none", "auto"] | None = None
    functions: Nothing | None = None
    modalities: Annotated[list[Literal["text"]], Field(max_length=1, fail_fast=True)] | None = None
    parallel_tool_calls: bool | None = None
    prediction: None = None
    reasoning_effort: Literal["none"] | None = None
    response_format: ResponseFormat | None = None
    tool_choice: ToolChoice | None = None
    tools: Annotated[list[FunctionTool], Field(max_length=_MOST_TOOLS, fail_fast=True)] | None = None
    verbosity: Literal["medium"] | None = None
    web_search_options: None = None

    def chosen_tool(self) -> str | None:
        """The name of the tool that is to be called; None: it is left open, or none is."""
        return None if self.tool_choice is None or isinstance(self.tool_choice, str) else self.tool_choice.function.name

    def schema_text(self) -> str | None:
        """The JSON schema that answers are held to, as text; None: answers are free."""
        return None if self.response_format is None else self.response_format.schema_text()


class CompletionAsk(Ask):
    """`POST /v1/completions`: text or token ids, as they stand, without the chat template."""

    prompt: Prompt
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    best_of: Literal[1] | None = None
    echo: Literal[False] | None = None
    suffix: Literal[""] | None = None

    def prompts(self) -> list[str] | list[list[int]]:
        """One or several prompts, as a list."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if isinstance(self.prompt[0], int):
            return [[each for each in self.prompt if isinstance(each, int)]]
        texts = [each for each in self.prompt if isinstance(each, str)]
        return texts or [each for each in self.prompt if isinstance(each, list)]

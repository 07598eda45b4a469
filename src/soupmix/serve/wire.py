"""What clients send, in OpenAI's shape: every field that is taken is acted upon, every other one is refused."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from soupmix.policy import ATTRIBUTES, SOURCES

__all__ = [
    "Ask",
    "ChatAsk",
    "ChatMessage",
    "CompletionAsk",
    "ProfileAsk",
    "RangesAsk",
    "SoupAsk",
    "StreamOptions",
    "TextPart",
]

_MOST_ANSWERS = 128  # a server's own limit is lower
_MOST_SEED = 2**62 - _MOST_ANSWERS - 1
_MOST_MESSAGES = 1000
_MOST_TOKENS = 1 << 20


def _one_line(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must be printable characters on one line")
    return text


def _source(text: str) -> str:
    if text not in SOURCES:
        raise ValueError(f"must be one of {', '.join(SOURCES)}")
    return text


Line = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_one_line)]
Source = Annotated[str, AfterValidator(_source), Field(json_schema_extra={"enum": list(SOURCES)})]
Weight = (
    Annotated[int, Field(ge=-1000, le=1000)]
    | Annotated[float, Field(ge=-1000, le=1000)]
    | Annotated[str, Field(pattern=r"^-?[0-9]{1,4}(\.[0-9]{1,30})?$")]
)
Stop = Annotated[str, Field(min_length=1, max_length=256)]
Zero = Annotated[float, Field(ge=0, le=0)]
Ids = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
Attributes = Annotated[
    dict[str, Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,62}$")]],
    Field(json_schema_extra={"propertyNames": {"enum": list(ATTRIBUTES)}}),
]


class _Edge(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class SoupAsk(_Edge):
    """Whose soup: weights by adapter name, what the request says about itself, and where the weights come from."""

    weights: dict[str, Weight] = {}
    attributes: Attributes = {}
    sources: Source | dict[str, Source] = {}


class RangesAsk(_Edge):
    """Whose ranges: what a request would say about itself."""

    attributes: Attributes = {}


class ProfileAsk(SoupAsk):
    """A named profile, as it is created or replaced."""

    name: Line | None = None
    weights: dict[str, Weight]


class TextPart(_Edge):
    """A part of a message."""

    type: Literal["text"]
    text: str


class ChatMessage(_Edge):
    """A message of a conversation; "developer" is another word for "system"."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[TextPart], Field(min_length=1, max_length=_MOST_MESSAGES)]

    def text(self) -> str:
        """All of its text."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class StreamOptions(_Edge):
    """Whether a stream ends with a chunk that counts tokens."""

    include_usage: bool = False


class Ask(_Edge):
    """What chat and plain completions have in common."""

    model: Annotated[str, Field(min_length=1, max_length=300)]
    soup: SoupAsk | None = None
    max_tokens: Annotated[int, Field(ge=1, le=_MOST_TOKENS)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, le=_MOST_TOKENS)] | None = None
    n: Annotated[int, Field(ge=1, le=_MOST_ANSWERS)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=4)] | None = None
    seed: Annotated[int, Field(ge=0, le=_MOST_SEED)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: Line | None = None
    frequency_penalty: Zero | None = None
    presence_penalty: Zero | None = None

    def stops(self) -> tuple[str, ...]:
        """The texts before which an answer ends."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    def counted(self) -> bool:
        """Whether a stream ends with a chunk that counts tokens."""
        return self.stream_options is not None and self.stream_options.include_usage


class ChatAsk(Ask):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=_MOST_MESSAGES)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=_MOST_TOKENS)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None


class CompletionAsk(Ask):
    """`POST /v1/completions`: text or token ids, as they stand, without the chat template."""

    prompt: str | Annotated[list[str], Field(min_length=1)] | Ids | Annotated[list[Ids], Field(min_length=1)]
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    echo: Literal[False] | None = None

    def prompts(self) -> list[str] | list[list[int]]:
        """One or several prompts, as a list."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if isinstance(self.prompt[0], int):
            return [[each for each in self.prompt if isinstance(each, int)]]
        texts = [each for each in self.prompt if isinstance(each, str)]
        return texts or [each for each in self.prompt if isinstance(each, list)]

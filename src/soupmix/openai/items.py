"""What `/v1/responses` is asked: a conversation as its items, which are texts, calls of tools and what these gave."""

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, Discriminator, Field, Tag

from soupmix.fields import ShortLine
from soupmix.openai.sent import (
    CalledFunction,
    FunctionTool,
    NamedSchema,
    ObjectFormat,
    SchemaFormat,
    Sent,
    Text,
    TextFormat,
    ToolCall,
    ToolFunction,
    ToolName,
    kind_of_choice,
    kind_of_format,
)
from soupmix.openai.wire import ChatAsk, ChatMessage, Metadata, Nothing, StreamOptions, TurnSoupAsk, User

__all__ = ["ResponsesAsk"]

_MOST_TOKENS, _MOST_ITEMS, _MOST_TOOLS = 1 << 20, 1000, 128


class _Part(Sent):
    """A part of a message: of the user, or of an answer that is sent back."""

    type: Literal["input_text", "output_text", "text"]
    text: Text
    annotations: Nothing | None = None
    logprobs: Nothing | None = None


_Status = Literal["completed", "incomplete", "in_progress"]


def _form(value: object) -> str:
    return "text" if isinstance(value, str) else "more"


Parts = Annotated[list[_Part], Field(min_length=1, max_length=_MOST_ITEMS, fail_fast=True)]


class _Message(Sent):
    """A message. An answer of this server may be sent back as a client holds it."""

    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[Annotated[Text, Tag("text")] | Annotated[Parts, Tag("more")], Discriminator(_form)]
    id: ShortLine | None = None
    phase: None = None
    status: _Status | None = None

    def message(self) -> ChatMessage:
        """As chat has it."""
        return ChatMessage(role=self.role, content=_joined(self.content))


class _Call(Sent):
    """A tool that an earlier answer called, as a client holds it."""

    type: Literal["function_call"]
    call_id: ShortLine
    name: ToolName
    arguments: Text
    id: ShortLine | None = None
    status: _Status | None = None
    caller: None = None
    namespace: None = None
    async_: None = Field(default=None, validation_alias=AliasChoices("async", "async_"))

    def message(self) -> ChatMessage:
        """As chat has it."""
        function = CalledFunction(name=self.name, arguments=self.arguments)
        call = ToolCall(id=self.call_id, type="function", function=function)
        return ChatMessage(role="assistant", tool_calls=[call])


class _Output(Sent):
    """What a tool gave."""

    type: Literal["function_call_output"]
    call_id: ShortLine
    output: Annotated[Annotated[Text, Tag("text")] | Annotated[Parts, Tag("more")], Discriminator(_form)]
    name: ToolName | None = None
    id: ShortLine | None = None
    status: _Status | None = None
    caller: None = None
    namespace: None = None

    def message(self) -> ChatMessage:
        """As chat has it."""
        return ChatMessage(role="tool", content=_joined(self.output), tool_call_id=self.call_id, name=self.name)


def _joined(content: str | list[_Part]) -> str:
    return content if isinstance(content, str) else "".join(part.text for part in content)


def _kind(value: object) -> str:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return kind if kind in ("function_call", "function_call_output") else "message"


_Item = Annotated[
    Annotated[_Message, Tag("message")]
    | Annotated[_Call, Tag("function_call")]
    | Annotated[_Output, Tag("function_call_output")],
    Discriminator(_kind),
]
Items = Annotated[list[_Item], Field(min_length=1, max_length=_MOST_ITEMS, fail_fast=True)]


class _SchemaText(NamedSchema):
    """A text that is valid against a JSON schema."""

    type: Literal["json_schema"]


class _TextAsk(Sent):
    """The form of the text."""

    format: (
        Annotated[
            Annotated[TextFormat, Tag("text")]
            | Annotated[ObjectFormat, Tag("json_object")]
            | Annotated[_SchemaText, Tag("json_schema")],
            Discriminator(kind_of_format),
        ]
        | None
    ) = None
    verbosity: Literal["medium"] | None = None


class _Tool(ToolFunction):
    """A tool that the model is told of."""

    type: Literal["function"]
    allowed_callers: None = None
    async_: None = Field(default=None, validation_alias=AliasChoices("async", "async_"))
    defer_loading: Literal[False] | None = None
    output_schema: None = None

    def chat(self) -> FunctionTool:
        """As chat has it."""
        said = {name: getattr(self, name) for name in ToolFunction.model_fields}
        return FunctionTool(type="function", function=ToolFunction(**said))


class _ChosenTool(Sent):
    """The tool that is to be called."""

    type: Literal["function"]
    name: ToolName


_Choice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("word")] | Annotated[_ChosenTool, Tag("named")],
    Discriminator(kind_of_choice),
]


class ResponsesAsk(Sent):
    """`POST /v1/responses`. Nothing is kept between requests: what was said before is sent again."""

    model: Annotated[str, Field(min_length=1, max_length=300)]
    input: Annotated[Annotated[Text, Tag("text")] | Annotated[Items, Tag("more")], Discriminator(_form)]
    instructions: Text | None = None
    soup: TurnSoupAsk | None = None
    max_output_tokens: Annotated[int, Field(ge=1, le=_MOST_TOKENS)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: User | None = None
    background: Literal[False] | None = None
    conversation: None = None
    include: Nothing | None = None
    max_tool_calls: None = None
    metadata: Metadata | None = None
    parallel_tool_calls: bool | None = None
    previous_response_id: None = None
    prompt: None = None
    prompt_cache_key: ShortLine | None = None
    reasoning: None = None
    safety_identifier: ShortLine | None = None
    service_tier: Literal["auto", "default", "flex", "priority", "scale"] | None = None
    store: Literal[False] | None = None
    text: _TextAsk | None = None
    tool_choice: _Choice | None = None
    tools: Annotated[list[_Tool], Field(max_length=_MOST_TOOLS, fail_fast=True)] | None = None
    top_logprobs: Literal[0] | None = None
    truncation: Literal["disabled"] | None = None

    def chat(self) -> ChatAsk:
        """The same as a chat."""
        said = [] if self.instructions is None else [ChatMessage(role="system", content=self.instructions)]
        asked = self.input
        said += [ChatMessage(role="user", content=asked)] if isinstance(asked, str) else _turns(asked)
        return ChatAsk(
            model=self.model,
            messages=said,
            soup=self.soup,
            max_completion_tokens=self.max_output_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            stream=self.stream,
            user=self.user,
            response_format=self._chat_format(),
            parallel_tool_calls=self.parallel_tool_calls,
            tool_choice=self._chat_choice(),
            tools=None if self.tools is None else [each.chat() for each in self.tools],
        )

    def _chat_choice(self) -> Any:
        said = self.tool_choice
        return {"type": "function", "function": {"name": said.name}} if isinstance(said, _ChosenTool) else said

    def _chat_format(self) -> ObjectFormat | SchemaFormat | None:
        asked = None if self.text is None else self.text.format
        if isinstance(asked, _SchemaText):
            named = NamedSchema(**asked.model_dump(exclude={"type"}, by_alias=True))
            return SchemaFormat(type="json_schema", json_schema=named)
        return asked if isinstance(asked, ObjectFormat) else None


def _turns(items: Iterable[_Message | _Call | _Output]) -> list[ChatMessage]:
    """Items as messages: calls that follow a text of the assistant, or one another, are of one message, as they were answered."""
    said = list[ChatMessage]()
    for each in items:
        message = each.message()
        if message.tool_calls and said and said[-1].role == "assistant":
            calls = [*(said[-1].tool_calls or ()), *message.tool_calls]
            said[-1] = said[-1].model_copy(update={"tool_calls": calls})
        else:
            said.append(message)
    return said

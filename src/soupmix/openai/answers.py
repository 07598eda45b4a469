"""What clients get, in OpenAI's shape, with one field more: `soup`."""

from typing import Literal

from pydantic import BaseModel, Field

from soupmix.modes import FULL, Mode, explained
from soupmix.policy import Binding, Grant

__all__ = [
    "BindingAnswer",
    "ChatAnswer",
    "ChatChoice",
    "ChatLogprobs",
    "ChatText",
    "CompletionAnswer",
    "CompletionChoice",
    "CompletionLogprobs",
    "SoupAnswer",
    "TokenLogprob",
    "TopLogprob",
    "Usage",
]

Finish = Literal["stop", "length"]
ChatFinish = Literal["stop", "length", "tool_calls"]


class BindingAnswer(BaseModel):
    """A rule that held the request back."""

    adapters: list[str]
    rule: str
    issuer: str
    tier: str
    limit: str
    public_reason: str | None

    @classmethod
    def of(cls, binding: Binding) -> "BindingAnswer":
        """A rule, as its issuer tells it."""
        said = {name: getattr(binding, name) for name in cls.model_fields}
        return cls(**said | {"adapters": list(binding.adapters)})


class PolicyName(BaseModel):
    """Under which policy: digest, whether there are no documents, whether they came with good signatures."""

    digest: str
    open: bool
    signed: bool


class SoupAnswer(BaseModel):
    """What was asked for, what was granted, and why. Weights are exact decimals; `mode` is told where it is not "full",
    `inferred` where some of what was asked for was inferred from a person's evidence, `topic` where that is of a topic's own.
    """

    profile: str | None
    requested: dict[str, str]
    granted: dict[str, str]
    clamped: bool
    binding: list[BindingAnswer]
    explanation: str
    attributes: dict[str, str]
    policy: PolicyName
    obligations: list[str]
    method: str
    mode: Mode = Field(default=FULL, exclude_if=lambda mode: mode == FULL)
    merge: str
    inferred: dict[str, str] = Field(default={}, exclude_if=lambda inferred: not inferred)
    topic: str | None = Field(default=None, exclude_if=lambda topic: topic is None)

    @classmethod
    def of(
        cls, grant: Grant, *, profile: str | None, signed: bool, method: str, merge: str, mode: Mode = FULL
    ) -> "SoupAnswer":
        """A grant as its tenant may see it."""
        return cls(
            profile=profile,
            requested=grant.requested.decimals(),
            granted=grant.granted.decimals(),
            clamped=grant.clamped,
            binding=[BindingAnswer.of(each) for each in grant.binding],
            explanation=explained(grant.explain(), mode),
            attributes=grant.attributes,
            policy=PolicyName(digest=grant.policy_digest, open=grant.is_open, signed=signed),
            obligations=list(grant.obligations),
            method=method,
            mode=mode,
            merge=merge,
        )


class TokenDetails(BaseModel):
    """How many tokens of the prompt were not computed again."""

    cached_tokens: int


class Usage(BaseModel):
    """Tokens of all answers of a request; the prompt counts once per answer, as it is computed or looked up for each."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: TokenDetails

    @classmethod
    def of(cls, prompt: int, completion: int, cached: int) -> "Usage":
        """From counts."""
        return cls(
            prompt_tokens=prompt,
            completion_tokens=completion,
            total_tokens=prompt + completion,
            prompt_tokens_details=TokenDetails(cached_tokens=cached),
        )


class TopLogprob(BaseModel):
    """A likely token: natural log of its probability, and its bytes."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(TopLogprob):
    """A token of the answer, with the likeliest in its place."""

    top_logprobs: list[TopLogprob]


class ChatLogprobs(BaseModel):
    """Every token of an answer."""

    content: list[TokenLogprob]


class CalledFunctionAnswer(BaseModel):
    """What is called; the arguments are the text of a JSON object."""

    name: str
    arguments: str


class ToolCallAnswer(BaseModel):
    """A tool that the answer calls."""

    id: str
    type: Literal["function"]
    function: CalledFunctionAnswer


class ChatText(BaseModel):
    """The answer as a message; it has no content where all that it does is to call tools."""

    role: Literal["assistant"]
    content: str | None
    tool_calls: list[ToolCallAnswer] | None = Field(default=None, exclude_if=lambda calls: calls is None)


class ChatChoice(BaseModel):
    """One answer of a chat."""

    index: int
    message: ChatText
    logprobs: ChatLogprobs | None
    finish_reason: ChatFinish


class CompletionLogprobs(BaseModel):
    """Every token of a plain completion, in four lists of the same length."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class CompletionChoice(BaseModel):
    """One plain completion."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: Finish


class _Answer(BaseModel):
    id: str
    created: int
    model: str
    usage: Usage
    soup: SoupAnswer


class ChatAnswer(_Answer):
    """`POST /v1/chat/completions`, not streamed."""

    object: Literal["chat.completion"]
    choices: list[ChatChoice]


class CompletionAnswer(_Answer):
    """`POST /v1/completions`, not streamed."""

    object: Literal["text_completion"]
    choices: list[CompletionChoice]

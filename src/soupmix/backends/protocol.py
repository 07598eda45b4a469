"""What a backend is asked, and what it answers: all that the server and batches know of whoever computes.

A backend holds one base model and the adapters of one store. It takes requests from any thread, merges the adapters of each by
the request's own grant, and tells every answer as it is made. Nothing here says how: no tensors, no model, no process.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol, TypedDict

from soupmix.errors import RecipeError, SoupmixError
from soupmix.modes import FULL, Mode
from soupmix.policy import Grant
from soupmix.public import public

__all__ = [
    "MOST_SEEDS",
    "TALKING",
    "Backend",
    "CallForm",
    "Delta",
    "Limits",
    "Message",
    "Request",
    "Sampling",
    "SamplingFields",
    "State",
    "Ticket",
    "Token",
    "Tool",
    "ToolUse",
    "Vocabulary",
]

Message = Mapping[str, Any]
"""A message of a conversation: {"role": "system" | "user" | "assistant" | "tool", "content": text}; with the assistant's also
"tool_calls": [{"id", "type": "function", "function": {"name", "arguments": an object}}], with a tool's "tool_call_id"."""

Tool = Mapping[str, Any]
"""A tool that a model is told of: {"type": "function", "function": {"name", "description", "parameters": a JSON schema}}."""

MOST_SEEDS = 2**62


@dataclass(frozen=True, slots=True)
class CallForm:
    """How a model writes that it calls a tool: a JSON object with "name" and the arguments, between two marks.

    Attributes:
        opening, closing: the marks, as <tool_call> and </tool_call>; both empty: the object is the whole answer.
        arguments: key of the arguments in it, "arguments" or "parameters".
    """

    opening: str
    closing: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ToolUse:
    """What a model's chat template does with tools.

    Attributes:
        told: whether it tells the model of tools. answered: whether it has a place for calls, and for what tools gave.
        form: how calls are written; None: in a form that is not known here, so that they come back as text.
    """

    told: bool = False
    answered: bool = False
    form: CallForm | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """How much runs and waits at once, at most.

    Attributes:
        rows: answers that are made at the same time.
        length: tokens of prompt and answer together, per row. The KV cache never holds more than rows x length tokens.
        waiting: requests in the queue.
        chunk: prompt tokens that are computed per step, beside one token of every answer that has begun.
    """

    rows: int = 64
    length: int = 2048
    waiting: int = 256
    chunk: int = 512


@public
@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen.

    Attributes:
        max_new_tokens: at most this many tokens per answer.
        temperature: 0 is greedy; otherwise logits are divided by it.
        top_k: only the k likeliest tokens; 0 means all.
        top_p: only the smallest set of tokens with this much probability together.
        seed: row i of a call draws from its own stream, seeded by `seed + i`.
        frequency_penalty: taken from the logit of a token for each time that it is in the answer already (below 0: added).
        presence_penalty: taken from it once, if it is.

    Raises:
        RecipeError: a value out of its range.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_k: int = 40
    top_p: float = 1.0
    seed: int = 0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0

    def __post_init__(self) -> None:
        checks = {
            "max_new_tokens": (self.max_new_tokens >= 1, "at least 1"),
            "temperature": (0.0 <= self.temperature <= 10.0, "between 0 and 10"),
            "top_k": (self.top_k >= 0, "0 (all) or more"),
            "top_p": (0.0 < self.top_p <= 1.0, "above 0 and at most 1"),
            "seed": (0 <= self.seed < MOST_SEEDS, "between 0 and 2**62"),
            "frequency_penalty": (-2.0 <= self.frequency_penalty <= 2.0, "between -2 and 2"),
            "presence_penalty": (-2.0 <= self.presence_penalty <= 2.0, "between -2 and 2"),
        }
        for name, (valid, allowed) in checks.items():
            if not valid:
                raise RecipeError(
                    f"{name} = {getattr(self, name)} is not allowed; it must be {allowed}", reason="sampling"
                )


TALKING = Sampling(temperature=0.7)
"""How tokens are chosen for people who say nothing of it: in chat, on the page, in batches and by the server. The likeliest token
every time, `Sampling()`, is for comparing: small models repeat themselves under it."""


class SamplingFields(TypedDict, total=False):
    """The fields of `Sampling` as keywords."""

    max_new_tokens: int
    temperature: float
    top_k: int
    top_p: float
    seed: int
    frequency_penalty: float
    presence_penalty: float


@dataclass(frozen=True, slots=True)
class Request:
    """One answer to make.

    Attributes:
        prompt: token ids; see `Backend.tokens`.
        grant: the soup of the answer.
        sampling: how tokens are chosen, and how many at most.
        stop: texts before which the answer ends.
        logprobs: how many of the likeliest tokens are told beside each chosen one; None: no log probabilities.
        method: how adapters are merged, one of `Backend.methods`; None: as the first of them.
        mode: where the soup acts, one of `Backend.modes`.
        schema: text of a JSON schema that the answer is valid against, unless it is cut; None: it is free.
        tenant: keys and values computed for one tenant are never used for another.
        person: nor those of one person for another. None: those of this request are not used again.
    """

    prompt: tuple[int, ...]
    grant: Grant
    sampling: Sampling = Sampling()  # frozen
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    method: str | None = None
    mode: Mode = FULL
    schema: str | None = None
    tenant: str = ""
    person: str | None = None

    def __repr__(self) -> str:
        """As a dataclass has it, with the number of tokens instead of the tokens."""
        rest = ", ".join(f"{each.name}={getattr(self, each.name)!r}" for each in fields(self) if each.name != "prompt")
        return f"Request(<{len(self.prompt)} tokens>, {rest})"


@dataclass(frozen=True, slots=True)
class Token:
    """A token of an answer.

    Attributes:
        id: its number in the vocabulary. text, data: what it adds to a text, as text and as bytes, its space included; a token
            may be a part of a character, and its text is a replacement mark then. A special token adds nothing: its text is
            its name. Of a token that reaches into a stop text both are what stands before that.
        logprob: natural log of its probability before temperature, top-k and top-p.
        likeliest: (id, text, bytes, logprob) of the likeliest tokens at its place, likeliest first.
    """

    id: int
    text: str
    data: bytes
    logprob: float
    likeliest: tuple[tuple[int, str, bytes, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Delta:
    """What one step adds to an answer.

    Attributes:
        text: whole characters; characters that could begin a stop text come in a later delta.
        tokens: those whose text has come with this delta, if log probabilities were asked for, else none. All together they
            have the bytes of the text; but for the space that a tokenizer takes from the first one of a text.
        finish: None while the answer goes on, then "stop", "length", "cancelled" or "error".
        prompt_tokens, completion_tokens: counts so far.
        cached_tokens: tokens of the prompt whose keys and values were taken from an earlier answer.
        error: why the answer ended, if `finish` is "error".
    """

    text: str
    tokens: tuple[Token, ...]
    finish: str | None
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    error: SoupmixError | None = None


@dataclass(frozen=True, slots=True)
class State:
    """Gauges and counters of a backend.

    Attributes:
        alive: whether requests can be answered.
        running, waiting: answers now.
        kv_used: share of the KV cache that running answers fill, 0 to 1.
        steps, prompt_tokens, generated_tokens: computed since the start.
        cached_tokens: prompt tokens whose keys and values were taken from an earlier answer, since the start.
        cached_prompts: prompts with such tokens. seconds: time spent in steps.
        loop: how answers are computed beside each other, if there is more than one way. why: it is this one.
    """

    alive: bool = True
    running: int = 0
    waiting: int = 0
    kv_used: float = 0.0
    steps: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    cached_tokens: int = 0
    cached_prompts: int = 0
    seconds: float = 0.0
    loop: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What is to be known of a model's tokens before a prompt becomes any.

    Attributes:
        size: token ids are below it. longest: characters of the longest token.
    """

    size: int
    longest: int


class Ticket(Protocol):
    """A request that was accepted."""

    def cancel(self) -> None:
        """End the answer soon, from any thread. Its last delta has the finish "cancelled", unless it ends before."""


class Backend(Protocol):
    """Whoever answers requests. Safe to share between threads."""

    @property
    def limits(self) -> Limits:
        """How much runs and waits at once."""

    @property
    def methods(self) -> tuple[str, ...]:
        """How adapters can be merged here; the first is for requests that name none."""

    @property
    def unserved(self) -> Mapping[str, RecipeError]:
        """Name of an adapter that no request can have -> what `submit` raises for whoever asks for it."""

    @property
    def modes(self) -> tuple[Mode, ...]:
        """Where soups can act here, of `soupmix.modes`; the first is "full"."""

    @property
    def vocabulary(self) -> Vocabulary:
        """The tokens of the model."""

    def check_schema(self) -> None:
        """Raise `RecipeError` if no answer can be held to a JSON schema here (reason "no-json-extra" or "schema")."""

    @property
    def tool_use(self) -> ToolUse:
        """What the model's chat template does with tools."""

    def tokens(self, said: str | Sequence[Message], tools: Sequence[Tool] = ()) -> tuple[int, ...]:
        """Token ids of a text as it stands, or of a conversation in the form that the model was trained on.

        A last message of the assistant is an answer that has begun, but for one that calls tools.

        Args:
            tools: what the model is told of.

        Raises:
            RecipeError: an empty conversation ("empty-prompt"), one that the model's template does not take
                ("bad-conversation"), or any for a model that has none ("no-template"); a text for which the model has no tokens
                ("cannot-encode", "no-such-token").
            BaseModelError: the template does not compile ("bad-template"), or asks too much for this conversation
                ("template-limit").
        """

    def marker(self, text: str) -> str | None:
        """The first mark of a role or an end that a text holds, as the model reads it; None if it holds none.

        No message may hold one: with it a person could pose as somebody else.
        """

    def identity(self, grant: Grant, method: str, tenant: str = "", mode: Mode = FULL) -> str:
        """The merge identity of what is computed under a grant; see `soupmix.merge.identity`.

        Raises:
            RecipeError: there is no such mode ("mode").
            PolicyError: the grant is not as a policy of this process gave it ("not-granted"). TypeError: it is none at all.
        """

    def share(self, prefix: tuple[int, ...]) -> None:
        """Declare that these tokens, with which prompts may begin, are nobody's secret, such as an operator's own system prompt.

        What is computed of them may then be used for all persons of one tenant with one merge, and what the bare base computes
        of them (mode "answer") for all persons of one tenant.
        """

    def check_room(self) -> None:
        """Raise `Overloaded` if `submit` would do so now; for callers to whom preparing a request costs something."""

    def submit(self, request: Request, sink: Callable[[Delta], None]) -> Ticket:
        """Queue a request, from any thread.

        Args:
            sink: called with every `Delta` from a thread of the backend. It must return at once and must not raise.

        Raises:
            RecipeError: the prompt is empty ("empty-prompt"), prompt and answer do not fit ("too-long"), the method is none of
                `methods` ("method") or the mode none of `modes` ("mode", "mixes-rows"); no row can have an adapter of the grant
                ("experts", "not-linear", "read-directly"); or no answer can be held to the schema ("schema", "no-json-extra").
            PolicyRefusal: the method cannot keep a rule that bounds the norm ("norm-not-linear").
            AdapterError: the grant is for an adapter that is not here.
            PolicyError: the grant is of another policy than the one this backend was opened under ("other-policy"), or not
                as a policy of this process gave it ("not-granted"). TypeError: it is none at all.
            Overloaded: the queue is full ("queue-full"), or nothing is taken any more ("draining").
        """

    def state(self) -> State:
        """How it stands."""

    def close(self, *, drain: float = 0.0) -> None:
        """Take nothing new; what runs and waits has so many seconds, then it is cancelled. Returns when all is over."""

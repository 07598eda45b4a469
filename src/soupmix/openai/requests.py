"""From what is asked to token ids, and from those to requests, one for each answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from soupmix.backends import TALKING, Backend, Request, Sampling, Tool
from soupmix.errors import RecipeError
from soupmix.modes import Mode
from soupmix.openai.calls import call_schema, check_tools, message_of, texts_of, tools_of
from soupmix.openai.wire import Ask, ChatAsk, ChatMessage, CompletionAsk
from soupmix.policy import Grant

__all__ = ["Fitting", "Prompted", "chat_prompted", "completion_prompted", "fitting", "requests", "shared_prefix"]

_TOKENS = 16  # of a plain completion whose length is not said, as OpenAI has it


@dataclass(frozen=True, slots=True)
class Prompted:
    """What is to be answered.

    Attributes:
        prompts: token ids of each prompt. most: tokens of an answer, or None. logprobs, schema: as `Request` has them.
    """

    prompts: Sequence[tuple[int, ...]]
    most: int | None
    logprobs: int | None
    schema: str | None = None


def chat_prompted(backend: Backend, ask: ChatAsk) -> Prompted:
    """A conversation, in the form that the model was trained on. Raises `RecipeError`."""
    check_tools(backend, ask)
    schema = call_schema(backend, ask) or ask.schema_text()
    if schema is not None:
        backend.check_schema()
    tools = tools_of(ask)
    told = list(texts_of(tools))
    _check_size(backend, sum(len(each.text()) for each in ask.messages) + sum(map(len, told)))
    tokens = _chat_tokens(backend, ask.messages, tools, told)
    return Prompted([tokens], _chat_length(ask), _chat_logprobs(ask), schema)


def completion_prompted(backend: Backend, ask: CompletionAsk) -> Prompted:
    """Texts as they stand. Raises `RecipeError`."""
    for each in ask.prompts():
        _check_size(backend, len(each) if isinstance(each, str) else 0)
    return Prompted(_completion_tokens(backend, ask), ask.max_tokens or _TOKENS, ask.logprobs)


def shared_prefix(backend: Backend, system: str) -> tuple[int, ...]:
    """Token ids with which every conversation under a system prompt begins, up to the first that depends on what is said.

    Raises:
        RecipeError: it is empty (reason "bad-prefix"), or the model takes no such conversation (reasons of a chat).
    """
    if not system.strip():
        raise RecipeError("a shared system prompt is empty; say something in it", reason="bad-prefix")
    said = [[ChatMessage(role="system", content=system), ChatMessage(role="user", content=each)] for each in "aZ"]
    pairs = zip(*(_chat_tokens(backend, each) for each in said), strict=False)
    return tuple(one for one, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _chat_length(ask: ChatAsk) -> int | None:
    """Most tokens of an answer, if it is said. Raises `RecipeError` if it is said twice (reason "two-lengths")."""
    if None not in (ask.max_tokens, ask.max_completion_tokens) and ask.max_tokens != ask.max_completion_tokens:
        raise RecipeError(
            f"max_tokens = {ask.max_tokens} and max_completion_tokens = {ask.max_completion_tokens} say the same thing "
            f"differently; give one of them",
            reason="two-lengths",
        )
    return ask.max_completion_tokens or ask.max_tokens


def _chat_logprobs(ask: ChatAsk) -> int | None:
    """How many likely tokens are told of each one, if any are. Raises `RecipeError` (reason "no-logprobs")."""
    if ask.top_logprobs and not ask.logprobs:
        raise RecipeError("top_logprobs needs logprobs: true", reason="no-logprobs")
    return (ask.top_logprobs or 0) if ask.logprobs else None


def _chat_tokens(
    backend: Backend, messages: Sequence[ChatMessage], tools: Sequence[Tool] = (), told: Sequence[str] = ()
) -> tuple[int, ...]:
    """The conversation as token ids; `told` are all texts in the tools.

    Raises:
        RecipeError: a message holds a token that marks roles or ends ("special-token"), with which it could pose as
            somebody else's, or the model's template does not take such a conversation ("bad-conversation").
    """
    roles = [message_of(each, _role(each.role)) for each in messages]
    said = [each["content"] for each in roles]
    beside = [text for each in roles for text in texts_of([each.get("tool_calls"), each.get("name")])]
    together = "".join([*told, *said, *beside])  # a template may write messages one behind the other
    mark = next(filter(None, map(backend.marker, dict.fromkeys([*said, *told, *beside, together]))), None)
    if mark is not None:
        raise RecipeError(
            f"a message holds {mark!r}, which to this model is the end or the beginning of one; leave it out",
            reason="special-token",
        )
    if [each["role"] for each in roles] == ["assistant"]:
        raise RecipeError("the assistant's message answers nobody; begin with a user's", reason="bad-conversation")
    return backend.tokens(roles, tools)


def _check_size(backend: Backend, characters: int) -> None:
    """Refuse text before it becomes tokens if it cannot fit: to find out by making them takes 80 times its size in memory."""
    length = backend.limits.length
    if characters > length * backend.vocabulary.longest:
        raise RecipeError(
            f"{characters} characters of prompt are more than the {length} tokens that fit can be; shorten the prompt",
            reason="too-long",
        )


def _role(role: str) -> str:
    return "system" if role == "developer" else role


def _completion_tokens(backend: Backend, ask: CompletionAsk) -> list[tuple[int, ...]]:
    """Token ids of the prompts. Raises `RecipeError`: an id that the model does not know (reason "no-such-token")."""
    found = [backend.tokens(each) if isinstance(each, str) else tuple(each) for each in ask.prompts()]
    known = backend.vocabulary.size
    for prompt in found:
        if not prompt:
            raise RecipeError("the prompt is empty; say something", reason="empty-prompt")
        if max(prompt) >= known:
            raise RecipeError(f"token {max(prompt)} does not exist; this model has {known}", reason="no-such-token")
    return found


@dataclass(frozen=True, slots=True)
class Fitting:
    """An answer that fits: token ids of its prompt, and how many tokens it may have."""

    prompt: tuple[int, ...]
    room: int


def fitting(ask: Ask, prompted: Prompted, *, length: int, tokens: int, answers: int) -> list[Fitting]:
    """The answers that are asked for, prompt after prompt.

    Args:
        length: tokens of prompt and answer that fit. tokens: of an answer whose length is not said, if they fit.
        answers: most of them.

    Raises:
        RecipeError: more answers ("too-many-answers"), or one that does not fit behind its prompt ("too-long").
    """
    count = (ask.n or 1) * len(prompted.prompts)
    if count > answers:
        raise RecipeError(
            f"{count} answers are asked for at once, and {answers} is the most; ask in several requests",
            reason="too-many-answers",
        )
    rooms = [_room(prompt, prompted.most, length, tokens) for prompt in prompted.prompts]
    return [
        Fitting(prompt, room) for prompt, room in zip(prompted.prompts, rooms, strict=True) for _ in range(ask.n or 1)
    ]


def requests(
    ask: Ask,
    fitted: Sequence[Fitting],
    grant: Grant,
    *,
    prompted: Prompted,
    method: str,
    mode: Mode,
    salt: str,
    person: str,
    seed: int,
    temperature: float = TALKING.temperature,
) -> list[Request]:
    """A request for each planned answer.

    Args:
        prompted: what is asked, as it was read. method: how adapters are merged. mode: where they act.
        salt: of everything that is computed under the grant.
        person: who may go on from it.
        seed: of the first answer; the next has the next one.
        temperature: where none is asked for; if nothing of sampling is, tokens are chosen as `TALKING` says.
    """
    silent = ask.temperature is ask.top_p is ask.top_k is None
    return [
        Request(
            prompt=each.prompt,
            grant=grant,
            sampling=Sampling(
                max_new_tokens=each.room,
                temperature=temperature if ask.temperature is None else ask.temperature,
                top_k=TALKING.top_k if silent else ask.top_k or 0,
                top_p=1.0 if ask.top_p is None else ask.top_p,
                seed=seed + number,
                frequency_penalty=ask.frequency_penalty or 0.0,
                presence_penalty=ask.presence_penalty or 0.0,
            ),
            stop=ask.stops(),
            logprobs=prompted.logprobs,
            method=method,
            mode=mode,
            schema=prompted.schema,
            tenant=salt,
            person=person,
        )
        for number, each in enumerate(fitted)
    ]


def _room(prompt: tuple[int, ...], most: int | None, length: int, tokens: int) -> int:
    left = length - len(prompt)
    if left < (most or 1):
        raise RecipeError(
            f"{len(prompt)} tokens of prompt and {most or 1} of answer are more than the {length} that fit; shorten the "
            f"prompt or ask for a shorter answer",
            reason="too-long",
        )
    return most or min(left, tokens)

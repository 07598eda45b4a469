"""Where lines come in and results go out.

A line becomes requests: checked as the server checks one, granted by the policy, and on record before anything is made.
Its answers become OpenAI's output line, in which nothing depends on when or how often a batch was started.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from soupmix.audit import Record
from soupmix.backends import TALKING, Backend
from soupmix.batch.line import CHAT, Answered, Begun, Line, LineResult
from soupmix.errors import RecipeError, SoupmixError
from soupmix.methods import DEFAULT, check_linear
from soupmix.modes import FULL, Mode, check_mode
from soupmix.openai.answers import SoupAnswer
from soupmix.openai.errors import error_body, status_of
from soupmix.openai.forms import ChatForm, CompletionForm, Form, usage
from soupmix.openai.requests import Prompted, chat_prompted, completion_prompted, fitting, requests
from soupmix.openai.sentences import sentence
from soupmix.openai.wire import Ask, ChatAsk, ChatMessage, CompletionAsk, TurnSoupAsk
from soupmix.policy import Grant, Policy
from soupmix.weights import Weights

__all__ = ["MOST_ANSWERS", "Defaults", "Desk"]

_Ask = TypeVar("_Ask", bound=Ask)
_Append = Callable[[Record], object]

MOST_ANSWERS = 16
"""Answers of one line, its prompts times its `n`."""

_CREATED: Final = 0
"""The time of every answer, 1970: the same batch gives the same bytes whenever it runs."""


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds for every line.

    Attributes:
        model: the name that lines call the base by. method: how adapters are merged.
        attributes, sources: what no line may contradict.
        weights, system, max_tokens, temperature: of lines that say nothing themselves.
        seed: line i draws from seed + i, unless it says otherwise.
        mode: where soups act, of lines that say nothing themselves.
    """

    model: str
    method: str = DEFAULT
    attributes: Mapping[str, str] = field(default_factory=dict)
    sources: str | Mapping[str, str] = field(default_factory=dict)
    weights: Weights = field(default_factory=Weights)
    system: str | None = None
    max_tokens: int = 256
    temperature: float = TALKING.temperature
    seed: int = 0
    mode: Mode = FULL


class Desk:
    """Takes lines in, and gives results out.

    Args:
        backend, policy: who answers, and who allows it.
        signed: whether the policy came with good signatures.
        append: writes an audit record, and returns when the disk has it. who: the person, where a line names no `user`.
    """

    def __init__(
        self,
        backend: Backend,
        policy: Policy,
        defaults: Defaults,
        *,
        signed: bool = False,
        append: _Append | None = None,
        who: str | None = None,
    ) -> None:
        self._backend, self._policy, self._defaults = backend, policy, defaults
        self._signed, self._append, self._who = signed, append, who

    def begin(self, line: Line) -> Begun:
        """What a line asks, as requests.

        Raises:
            RecipeError, WeightError: it makes no sense. PolicyRefusal: the policy says no.
            AuditError, OutputError: it cannot be recorded.
        """
        return self._begin(line, self._append)

    def preview(self, line: Line) -> Begun:
        """The same, without a record: what this policy makes of a line that was begun before. Raises as `begin` does."""
        return self._begin(line, None)

    def _begin(self, line: Line, append: _Append | None) -> Begun:
        if line.error is not None:
            raise line.error
        ask, prompted = self._read(line)
        length, tokens = self._backend.limits.length, self._defaults.max_tokens
        fitted = fitting(ask, prompted, length=length, tokens=tokens, answers=MOST_ANSWERS)
        check_mode(self._mode(ask), self._backend.modes)
        grant = self._grant(ask, append)
        salt, mode = grant.attributes.get("tenant", ""), self._mode(ask)
        merge = self._backend.identity(grant, self._defaults.method, salt, mode)
        if append is not None:
            who, signed = ask.user or self._who, self._signed
            append(Record.of_grant(grant, person=who, is_signed=signed, merge=merge, mode=mode))
        asked = requests(
            ask,
            fitted,
            grant,
            prompted=prompted,
            method=self._defaults.method,
            mode=mode,
            salt=salt,
            person=f"line {line.number}" if ask.user is None else f"user {ask.user}",
            seed=self._defaults.seed + line.number if ask.seed is None else ask.seed,
            temperature=self._defaults.temperature,
        )
        return Begun(line, ask, grant, merge, tuple(asked))

    def record(self, result: LineResult, batch: str) -> dict[str, Any]:
        """The output line of a result.

        Args:
            batch: digest of input and settings; with the line's number it makes the ids.
        """
        name = sha256(f"{batch} {result.line.number}".encode()).hexdigest()[:24]
        error = result.outcome if isinstance(result.outcome, SoupmixError) else None
        if isinstance(result.outcome, Answered):
            status, body = 200, self._body(result.outcome, name)
        else:
            status = status_of(result.outcome)
            body = error_body(str(result.outcome), status, result.outcome.reason)
        return {
            "id": f"batch_req_{name}",
            "custom_id": result.line.custom_id,
            "response": {"status_code": status, "request_id": f"req_{name}", "body": body},
            "error": None if error is None else {"code": error.reason, "message": str(error)},
        }

    def _body(self, answered: Answered, name: str) -> dict[str, Any]:
        """The answer as the server would give it, but for the count of cached tokens: what was cached depends on the run."""
        begun, made, method = answered.begun, answered.made, self._defaults.method
        mode = self._mode(begun.ask)
        ask = begun.ask
        form: Form = ChatForm.of(ask, self._backend, name) if isinstance(ask, ChatAsk) else CompletionForm()
        soup = SoupAnswer.of(
            begun.grant, profile=None, signed=self._signed, method=method, merge=begun.merge, mode=mode
        )
        return {
            "id": f"{form.prefix}-{name}",
            "object": form.whole,
            "created": _CREATED,
            "model": self._defaults.model,
            "choices": [form.choice(number, each) for number, each in enumerate(made)],
            "usage": usage(made).model_dump(mode="json", exclude={"prompt_tokens_details"}),
            "soup": soup.model_dump(mode="json"),
        }

    def _read(self, line: Line) -> tuple[Ask, Prompted]:
        """The request of a line, and its token ids."""
        if line.url == CHAT:
            chat = self._checked(_parsed(ChatAsk, line.body))
            system = self._defaults.system
            if system is not None and chat.messages[0].role not in ("system", "developer"):
                said = [ChatMessage(role="system", content=system), *chat.messages]
                chat = chat.model_copy(update={"messages": said})
            return chat, chat_prompted(self._backend, chat)
        plain = self._checked(_parsed(CompletionAsk, line.body))
        return plain, completion_prompted(self._backend, plain)

    def _checked(self, ask: _Ask) -> _Ask:
        if ask.model != self._defaults.model:
            raise RecipeError(
                f"model {ask.model!r:.80} is not here; this batch is answered by {self._defaults.model!r}",
                reason="no-such-model",
            )
        if ask.stream:
            raise RecipeError("a batch is not streamed; leave `stream` out", reason="stream")
        return ask

    def _mode(self, ask: Ask) -> Mode:
        """Where the soup of a line acts."""
        said = ask.soup is not None and "mode" in ask.soup.model_fields_set
        return ask.soup.mode if ask.soup is not None and said else self._defaults.mode

    def _grant(self, ask: Ask, append: _Append | None) -> Grant:
        soup = ask.soup or TurnSoupAsk()
        if soup.topic is not None:
            raise RecipeError(
                "weights of a topic are a profile's, and a batch has none; leave it out", reason="no-profile"
            )
        weights = Weights(soup.weights) if "weights" in soup.model_fields_set else self._defaults.weights
        attributes = {**soup.attributes, **self._defaults.attributes}
        contradicted = [each for each, value in soup.attributes.items() if attributes[each] != value]
        if contradicted:
            raise RecipeError(
                f"attribute {contradicted[0]!r} is {attributes[contradicted[0]]!r:.80} for the whole batch",
                reason="bad-attribute",
            )
        if self._defaults.sources and soup.sources and soup.sources != self._defaults.sources:
            raise RecipeError("the sources of weights are given for the whole batch", reason="bad-source")
        sources = self._defaults.sources or soup.sources
        try:
            grant = self._policy._grant(weights, attributes, sources)
            check_linear(self._defaults.method, grant.norm_rule)
        except SoupmixError as error:
            if append is not None:
                append(self._refusal(error, ask, weights, attributes))
            raise
        return grant

    def _refusal(self, error: SoupmixError, ask: Ask, weights: Weights, attributes: Mapping[str, str]) -> Record:
        return Record.of_refusal(
            error,
            person=ask.user or self._who,
            requested=weights,
            attributes=attributes,
            policy=self._policy,
            is_signed=self._signed,
        )


def _parsed(kind: type[_Ask], body: Mapping[str, Any]) -> _Ask:
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        last = error.errors(include_url=False, include_input=False)[-1]  # of a choice of forms the last one says most
        where = [str(each)[:80] for each in last["loc"]]
        raise RecipeError(f"body.{sentence(last, where)}", reason=str(last["type"])) from None

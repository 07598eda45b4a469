"""From a line to requests: checked as the server checks one, granted by the policy, and on record before anything is made."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from jinja2 import TemplateError
from pydantic import ValidationError

from soupmix.audit import Entry
from soupmix.batching import Request
from soupmix.engine import Engine, Sampling
from soupmix.errors import RecipeError, SoupmixError
from soupmix.merge.identity import merge_identity
from soupmix.policy import Grant, Policy
from soupmix.serve.batch.line import CHAT, Line
from soupmix.serve.batch.result import Begun
from soupmix.serve.wire import Ask, ChatAsk, CompletionAsk, SoupAsk
from soupmix.weights import Weights

__all__ = ["MOST_ANSWERS", "Defaults", "Desk"]

MOST_ANSWERS = 16
"""Answers of one line, its prompts times its `n`."""


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds for every line.

    Attributes:
        model: the name that lines call the base by. method: how adapters are merged.
        attributes, sources: what no line may contradict.
        weights, system, max_tokens, temperature: of lines that say nothing themselves.
        seed: line i draws from seed + i, unless it says otherwise.
    """

    model: str
    method: str = "delta"
    attributes: Mapping[str, str] = field(default_factory=dict)
    sources: str | Mapping[str, str] = field(default_factory=dict)
    weights: Weights = field(default_factory=Weights)
    system: str | None = None
    max_tokens: int = 256
    temperature: float = 0.0
    seed: int = 0


class Desk:
    """Takes lines in.

    Args:
        engine, policy: who answers, and who allows it. signed: whether the policy came with good signatures.
        append: writes an audit record, and returns when the disk has it. who: the person, where a line names no `user`.
    """

    def __init__(
        self,
        engine: Engine,
        policy: Policy,
        defaults: Defaults,
        *,
        signed: bool = False,
        append: Callable[[Entry], object] | None = None,
        who: str | None = None,
    ) -> None:
        self._engine, self._policy, self._defaults = engine, policy, defaults
        self._signed, self._append, self._who = signed, append, who

    def begin(self, line: Line) -> Begun:
        """What a line asks, as requests.

        Raises:
            RecipeError, WeightError: it makes no sense. PolicyRefusal: the policy says no.
            AuditError, OutputError: it cannot be recorded.
        """
        if line.error is not None:
            raise line.error
        ask = self._parsed(line)
        prompts = self._prompts(ask)
        grant = self._grant(ask)
        merge = self._identity(grant)
        if self._append is not None:
            self._append(Entry.of_grant(grant, person=ask.user or self._who, merge=merge, is_signed=self._signed))
        samplings = [self._sampling(ask, line.number, place) for place in range(len(prompts) * (ask.n or 1))]
        requests = tuple(
            Request(
                prompts[place // (ask.n or 1)],
                grant,
                sampling,
                ask.stops(),
                _logprobs(ask),
                grant.attributes.get("tenant", ""),
            )
            for place, sampling in enumerate(samplings)
        )
        return Begun(line, ask, grant, merge, requests)

    def _parsed(self, line: Line) -> Ask:
        kind = ChatAsk if line.url == CHAT else CompletionAsk
        try:
            ask = kind.model_validate(line.body)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(str(each)[:80] for each in first["loc"])
            raise RecipeError(f"body.{place}: {first['msg']}", reason=str(first["type"])) from None
        if ask.model != self._defaults.model:
            raise RecipeError(
                f"model {ask.model!r:.80} is not here; this batch is answered by {self._defaults.model!r}",
                reason="model-not-found",
            )
        if ask.stream:
            raise RecipeError("a batch is not streamed; leave `stream` out", reason="stream")
        return ask

    def _prompts(self, ask: Ask) -> list[tuple[int, ...]]:
        prompts = [self._chat(ask)] if isinstance(ask, ChatAsk) else self._plain(ask)
        if len(prompts) * (ask.n or 1) > MOST_ANSWERS:
            raise RecipeError(f"a line has at most {MOST_ANSWERS} answers, prompts times n", reason="too-many")
        return prompts

    def _chat(self, ask: ChatAsk) -> tuple[int, ...]:
        said = [
            {"role": "system" if each.role == "developer" else each.role, "content": each.text()}
            for each in ask.messages
        ]
        if self._defaults.system is not None and said[0]["role"] != "system":
            said = [{"role": "system", "content": self._defaults.system}, *said]
        try:
            return self._engine.tokens(said)
        except TemplateError as error:
            raise RecipeError(
                f"the model's chat template refuses this conversation: {error}", reason="bad-messages"
            ) from None

    def _plain(self, ask: Ask) -> list[tuple[int, ...]]:
        size = self._engine.model.get_input_embeddings().num_embeddings
        found: list[tuple[int, ...]] = []
        for prompt in ask.prompts() if isinstance(ask, CompletionAsk) else ():
            ids = self._engine.plain_tokens(prompt) if isinstance(prompt, str) else tuple(prompt)
            if not all(each < size for each in ids):
                raise RecipeError(f"token ids are below {size} in this model", reason="bad-token")
            found.append(ids)
        return found

    def _grant(self, ask: Ask) -> Grant:
        soup = ask.soup or SoupAsk()
        weights = Weights.parse(soup.weights) if "weights" in soup.model_fields_set else self._defaults.weights
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
            return self._policy.clamp(weights, sources=sources, **attributes)
        except SoupmixError as error:
            self._refused(error, ask, weights, attributes)
            raise

    def _refused(self, error: SoupmixError, ask: Ask, weights: Weights, attributes: Mapping[str, str]) -> None:
        if self._append is not None:
            self._append(
                Entry(
                    "refusal",
                    person=ask.user or self._who,
                    requested=weights,
                    attributes=attributes,
                    policy=self._policy.digest,
                    is_open=self._policy.is_open,
                    is_signed=self._signed,
                    reason=error.reason,
                )
            )

    def _identity(self, grant: Grant) -> str:
        return merge_identity(
            base_digest=self._engine.base_digest,
            weights={grant.digests[name]: micro for name, micro in grant.granted.items()},
            method=self._defaults.method,
            dtype=str(self._engine.model.dtype),
            policy_digest=grant.policy_digest,
            tenant_salt=grant.attributes.get("tenant", ""),
        )

    def _sampling(self, ask: Ask, number: int, place: int) -> Sampling:
        longest = ask.max_tokens if not isinstance(ask, ChatAsk) else ask.max_completion_tokens or ask.max_tokens
        base = self._defaults.seed + number if ask.seed is None else ask.seed
        make = partial(Sampling, longest or self._defaults.max_tokens, seed=base + place)
        temperature = self._defaults.temperature if ask.temperature is None else ask.temperature
        if ask.top_k is not None:
            make = partial(make, top_k=ask.top_k)
        return make(temperature=temperature, top_p=1.0 if ask.top_p is None else ask.top_p)


def _logprobs(ask: Ask) -> int | None:
    if isinstance(ask, ChatAsk):
        return (ask.top_logprobs or 0) if ask.logprobs else None
    return ask.logprobs if isinstance(ask, CompletionAsk) else None

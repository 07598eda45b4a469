"""What is asked of the running batch, and what it says back."""

from dataclasses import dataclass

from soupmix.engine.sampling import Sampling
from soupmix.errors import SoupmixError
from soupmix.policy import Grant

__all__ = ["Delta", "Limits", "Request", "Token"]


@dataclass(frozen=True, slots=True)
class Limits:
    """How much runs and waits at once.

    Attributes:
        rows: answers that are made at the same time. length: tokens of prompt and answer together, per row; the KV cache
            is rows x length tokens, whatever comes. waiting: requests in the queue. chunk: prompt tokens computed per step.
    """

    rows: int = 64
    length: int = 2048
    waiting: int = 256
    chunk: int = 512


@dataclass(frozen=True, slots=True)
class Request:
    """One answer to make.

    Attributes:
        prompt: token ids. grant: whose soup. sampling: how tokens are chosen, and at most how many.
        stop: the answer ends before the first of these texts.
        logprobs: None for none, else with how many of the likeliest tokens beside each chosen one.
        tenant: nothing computed for one tenant is used for another.
        person: nor what was computed for one person for another; of None nothing is used again at all.
    """

    prompt: tuple[int, ...]
    grant: Grant
    sampling: Sampling = Sampling()  # noqa: RUF009  # frozen
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    tenant: str = ""
    person: str | None = None


@dataclass(frozen=True, slots=True)
class Token:
    """A token of an answer: id, text, bytes, natural log of its probability, and the likeliest as (id, text, bytes, logprob)."""

    id: int
    text: str
    data: bytes
    logprob: float
    likeliest: tuple[tuple[int, str, bytes, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Delta:
    """What became known of an answer in one step.

    Attributes:
        text: whole characters only, held back while they could begin a stop text.
        tokens: filled if logprobs were asked for.
        finish: None while it goes on; "stop", "length", "cancelled" or "error".
        prompt_tokens, cached_tokens, completion_tokens: counts so far; cached ones were not computed again.
        error: what went wrong, if finish is "error".
    """

    text: str
    tokens: tuple[Token, ...]
    finish: str | None
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    error: SoupmixError | None = None

"""What the running batch is asked, and what it answers."""

from dataclasses import dataclass, fields

from soupmix.engine.sampling import Sampling
from soupmix.errors import SoupmixError
from soupmix.policy import Grant

__all__ = ["Delta", "Limits", "Request", "Token"]


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


@dataclass(frozen=True, slots=True)
class Request:
    """One answer to make.

    Attributes:
        prompt: token ids; see `Engine.tokens`.
        grant: the soup of the answer.
        sampling: how tokens are chosen, and how many at most.
        stop: texts before which the answer ends.
        logprobs: how many of the likeliest tokens are told beside each chosen one; None: no log probabilities.
        tenant: keys and values computed for one tenant are never used for another.
        person: nor those of one person for another. None: those of this request are not used again.
    """

    prompt: tuple[int, ...]
    grant: Grant
    sampling: Sampling = Sampling()  # noqa: RUF009  # frozen
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
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
        id: its number in the vocabulary. text, data: what it stands for, as text and as bytes; a token may be a part of a
            character, and its text is a replacement mark then.
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
        tokens: the token of this step, if log probabilities were asked for, else none.
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

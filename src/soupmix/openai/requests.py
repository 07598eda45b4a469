"""From what is asked to requests to the running batch, one for each answer."""

from collections.abc import Sequence
from dataclasses import dataclass

from soupmix.batching import Request
from soupmix.engine import Sampling
from soupmix.errors import RecipeError
from soupmix.openai.prompts import Prompted
from soupmix.openai.wire import Ask
from soupmix.policy import Grant

__all__ = ["Planned", "planned", "requests"]


@dataclass(frozen=True, slots=True)
class Planned:
    """An answer that fits: token ids of its prompt, and how many tokens it may have."""

    prompt: tuple[int, ...]
    room: int


def planned(ask: Ask, prompted: Prompted, *, length: int, tokens: int, answers: int) -> list[Planned]:
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
        Planned(prompt, room) for prompt, room in zip(prompted.prompts, rooms, strict=True) for _ in range(ask.n or 1)
    ]


def requests(
    ask: Ask,
    plans: Sequence[Planned],
    grant: Grant,
    *,
    logprobs: int | None,
    salt: str,
    person: str,
    seed: int,
    temperature: float = 1.0,
) -> list[Request]:
    """A request for each planned answer.

    Args:
        salt: of everything that is computed under the grant. person: who may go on from it.
        seed: of the first answer; the next has the next one.
        temperature: where none is asked for.
    """
    return [
        Request(
            prompt=each.prompt,
            grant=grant,
            sampling=Sampling(
                max_new_tokens=each.room,
                temperature=temperature if ask.temperature is None else ask.temperature,
                top_k=ask.top_k or 0,
                top_p=1.0 if ask.top_p is None else ask.top_p,
                seed=seed + number,
            ),
            stop=ask.stops(),
            logprobs=logprobs,
            tenant=salt,
            person=person,
        )
        for number, each in enumerate(plans)
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

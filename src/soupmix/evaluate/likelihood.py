"""How likely a soup finds given answers: teacher-forced log-probabilities, many rows at once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from soupmix.engine import Engine, Prompt
from soupmix.methods import DEFAULT
from soupmix.policy import Grant

__all__ = ["Forced", "answer_log_p", "batches"]

_TOKENS = 2048  # of a batch with its padding; the logits of more take too much memory


@dataclass(frozen=True, slots=True)
class Forced:
    """An answer that is put into the model's mouth.

    Attributes:
        prompt: a text or a conversation; a last message of the assistant is how the answer begins, and is not counted.
        answer: what is counted.
        grant: under which soup.
    """

    prompt: Prompt
    answer: str
    grant: Grant


def answer_log_p(
    engine: Engine, forced: Sequence[Forced], *, method: str = DEFAULT, most: int | None = None
) -> list[Tensor]:
    """Log-probability of every token of every answer, in nats.

    Prompt and answer are read apart, as they are when the model answers: no token reaches from one into the other.

    Args:
        method: as in `Engine.complete`.
        most: tokens of an answer that count, from its beginning; None: all of them.

    Returns:
        One tensor per answer, in order: [tokens of the answer] float32 on the CPU, empty for an empty answer.

    Raises:
        RecipeError, PolicyRefusal, PolicyError, AdapterError, BaseModelError, TypeError: as `Engine.complete`.
    """
    read = [_tokens(engine, each, most) for each in forced]
    found: dict[int, Tensor] = {}
    for rows in batches([len(before) + len(after) for before, after in read], engine):
        longest = max(len(before) + len(after) for before, after in (read[row] for row in rows))
        # What stands behind an answer is not seen by it, so that padding needs no mask.
        ids = torch.tensor([_padded((*read[row][0], *read[row][1]), longest) for row in rows])
        logits = engine.logits(ids.to(engine.model.device), [forced[row].grant for row in rows], method=method)
        for place, row in enumerate(rows):
            before, after = read[row]
            found[row] = _of_tokens(logits[place, len(before) - 1 : len(before) + len(after) - 1], after)
    return [found[row] for row in range(len(read))]


def _tokens(engine: Engine, forced: Forced, most: int | None) -> tuple[tuple[int, ...], tuple[int, ...]]:
    before = engine.prompts.tokens(engine.prompts.rendered(forced.prompt))
    return before, engine.prompts.tokens(forced.answer)[:most] if forced.answer else ()


def batches(lengths: Sequence[int], engine: Engine) -> Iterator[list[int]]:
    """Which rows to compute together, given how many tokens they have: of similar length, and as many as fit.

    Where padding changes what this model computes, they are of one length, or each is alone.
    """
    rows: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: (lengths[row], row)):
        full = (len(rows) + 1) * lengths[row] > _TOKENS or engine.together == "alone"
        if rows and (full or (engine.together == "equal" and lengths[row] != lengths[rows[0]])):
            yield rows
            rows = []
        rows.append(row)
    if rows:
        yield rows


def _padded(ids: Sequence[int], length: int) -> list[int]:
    return [*ids, *[ids[-1]] * (length - len(ids))]


def _of_tokens(logits: Tensor, ids: Sequence[int]) -> Tensor:
    """Log-probability of each token: logits [length, vocabulary], ids one a row."""
    chosen = torch.tensor(ids, dtype=torch.int64, device=logits.device)[:, None]
    return logits.float().log_softmax(-1).gather(-1, chosen)[:, 0].cpu()

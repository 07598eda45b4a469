"""Whether a row of a model is the same in a padded batch as alone: tried, not looked up in a list of models.

Rows are tried as they will be served, with other soups beside each other, one of them far too loud: so a model that gives a
part of one person's soup to another is found, and so is one whose layers see tokens in shapes that do not say whose they are.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor

from soupmix.engine.decode import PaddedBatch, left_padded
from soupmix.engine.likeness import allowed, apart, is_rounding
from soupmix.engine.positions import positions
from soupmix.engine.rows import MIXES_ROWS, ActiveBatch, TrialWeights, strangers
from soupmix.engine.trials import Trials
from soupmix.errors import BaseModelError

__all__ = ["STEPS", "Company", "Together", "batches", "company", "kept_company", "prompts", "unlike_whole"]

Together = Literal["padded", "equal", "alone"]
"""Which rows may be computed in one batch: any, with padding before the shorter ones; those of one length; each alone."""

STEPS = 4
"""Logits that are compared of every prompt: behind it, and behind each of three more tokens."""

_LONGEST = 96


@dataclass(frozen=True, slots=True)
class Company:
    """What was found out of a model.

    Attributes:
        together: which rows may be computed in one batch.
        noise: how far two right ways to compute one row are apart; see `soupmix.engine.likeness`.
    """

    together: Together
    noise: float

    def record(self) -> dict[str, str]:
        """For `recalled`."""
        return {"together": self.together, "noise": self.noise.hex()}

    @classmethod
    def recalled(cls, record: Mapping[str, Any] | None) -> "Company | None":
        """What `record` gave; None for what it cannot have given."""
        try:
            found = cls(record["together"], float.fromhex(record["noise"]))  # type: ignore[index]
        except (KeyError, TypeError, ValueError):
            return None
        return found if found.together in get_args(Together) and 0 <= found.noise < math.inf else None


def kept_company(trials: Trials, find: Callable[[], Company]) -> Company:
    """What was found out before, else what `find` finds now, which is kept."""
    if (kept := Company.recalled(trials.recall("company"))) is not None:
        return kept
    found = find()
    trials.keep("company", found.record())
    return found


@torch.inference_mode()
def company(model: Any, batch: ActiveBatch, size: int) -> Company:
    """Compute three short prompts alone and together, where there are adapters each with another soup.

    Args:
        batch: the one that the soup layers of the model read. size: the model's token ids are below it.

    Raises:
        BaseModelError: token by token the model fails, or computes something else than at once and than transformers' `generate`
            (reason "cannot-generate").
    """
    given = prompts(model, size)
    people = strangers(batch.adapters, model.device)
    with batch.serving(TrialWeights(people[2:])):
        alone, noise = _alone(model, given, size)
    if batch.adapters:
        with batch.serving(TrialWeights(people[1:2])):
            alone[1] = whole_logits(model, given[1])
            noise = max(noise, _rounding(apart(_stepwise(model, given[1:2])[0], alone[1]), model.dtype))
    most, first = allowed(noise, model.dtype), int(batch.adapters > 0)  # nothing can be said of a soup that is too loud

    def alike(rows: list[int]) -> bool:
        with batch.serving(TrialWeights(people[rows])):
            try:
                found = _stepwise(model, [given[row] for row in rows])
            except BaseModelError as error:
                if error.reason != MIXES_ROWS:
                    raise
                return False
        return _like(found[first:], [alone[row] for row in rows[first:]], most)

    return Company("padded" if alike([0, 1, 2]) else "equal" if alike([0, 2]) else "alone", noise)


def batches(together: Together, lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    """Which rows of these lengths are computed together, by length, at most so many."""
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
    alike = [order] if together == "padded" else [list(rows) for _, rows in groupby(order, lengths.__getitem__)]
    for rows in alike:
        size = 1 if together == "alone" else most
        yield from (rows[start : start + size] for start in range(0, len(rows), size))


def _rounding(noise: float, dtype: torch.dtype) -> float:
    """The noise of a row with a soup, as far as it is one: where activations are quantised, a soup may bring it about."""
    return noise if is_rounding(noise, dtype) else 0.0


def _alone(model: Any, given: Sequence[Tensor], size: int) -> tuple[list[Tensor], float]:
    """Logits of every prompt alone, and the noise of the model; raises as `company`."""
    try:
        alone = [whole_logits(model, each) for each in given]
        stepwise = _stepwise(model, given[1:2])[0]
        noise = wrong = apart(stepwise, alone[1])
        if stepwise.isfinite().all() and not is_rounding(noise, model.dtype):
            wrong = apart(stepwise, _generated(model, given[1], size))  # a model may see less at once than step by step
    except Exception as error:  # whatever the code of a model raises
        raise _cannot_generate(model, f"it fails with {type(error).__name__}: {error}"[:300]) from error
    if alone[1].isfinite().all() and not is_rounding(wrong, model.dtype):
        raise _cannot_generate(model, f"its logits are {wrong:.2g} from those that it has when transformers generates")
    return alone, noise


def _cannot_generate(model: Any, why: str) -> BaseModelError:
    return BaseModelError(
        f"soupmix cannot make answers with a {type(model).__name__}: token by token, over the cache and the positions that "
        f"transformers has for its models, {why}; choose another base, or merge into this one and run it by its own code",
        reason="cannot-generate",
    )


def prompts(model: Any, size: int) -> list[Tensor]:
    """Three prompts with the tokens that follow them, as ids [length] int64 on the model's device; first and last of one length.

    The second is longer, where the model has positions for that, and goes beyond windows and chunks of its config that are short.

    Args:
        size: ids are below it.

    Raises:
        BaseModelError: the model has fewer than five positions (reason "cannot-generate").
    """
    config = model.config.get_text_config()
    most = min(_LONGEST, positions(config) or _LONGEST) - STEPS + 1  # tokens of a prompt
    if most < 2:
        raise _cannot_generate(
            model, f"it has {positions(config)} positions, and two prompts to try it by need {STEPS + 1}"
        )
    named = {name: value for name, value in config.to_dict().items() if "window" in name or "chunk" in name}
    ends = [value for value in named.values() if type(value) is int and 1 < value <= most - 6]
    long = min(max([6, *ends]) + 5, most)
    lengths = min(3, long - 1), long, min(3, long - 1)
    return [_ids(length + STEPS - 1, number, size).to(model.device) for number, length in enumerate(lengths)]


def _ids(length: int, number: int, size: int) -> Tensor:
    """Ids that look like nothing, always the same."""
    return (torch.arange(1, length + 1) * 7919 + 104729 * number) % size


def whole_logits(model: Any, ids: Tensor) -> Tensor:
    """Logits behind each of the last tokens of ids [length], computed at once [STEPS, vocabulary]."""
    logits: Tensor = model(input_ids=ids[None], use_cache=False).logits[0, -STEPS:]
    return logits


def unlike_whole(
    model: Any, batch: ActiveBatch, rows: Iterable[tuple[Tensor, Tensor, Tensor]], most: float, **how: Any
) -> str | None:
    """Why logits are not those that transformers computes of each row alone and at once, in words; None if they are.

    Args:
        rows: ids [length], weights [K] and the logits that were found [STEPS, vocabulary] of each. most: see `allowed`.
        how: further arguments of `BatchWeights`.
    """
    for ids, weights, logits in rows:
        if (weights > 1).any():  # nothing can be said of a soup that is too loud
            continue
        with batch.serving(TrialWeights(weights[None], **how)):
            expected = whole_logits(model, ids)
        distance = apart(logits.to(expected.dtype), expected)
        if expected.isfinite().all() and not distance <= most:
            return f"over slots its answers are {distance:.2g} from those of transformers, and {most:.2g} is rounding"
    return None


def _stepwise(model: Any, rows: Sequence[Tensor]) -> list[Tensor]:
    """The same, of several rows together and token by token."""
    heads = [row[: len(row) - STEPS + 1] for row in rows]
    ids, mask = left_padded([head.tolist() for head in heads], rows[0].device)
    batch, found = PaddedBatch(model, ids, mask), list[Tensor]()
    for step in range(STEPS):
        if step:
            batch.add(torch.stack([row[step - STEPS] for row in rows]), mask[:, -1] > 0)
        found.append(batch.logits())
    return list(torch.stack(found, 1))


def _generated(model: Any, ids: Tensor, size: int) -> Tensor:
    """As `whole_logits`, of transformers' own `generate`, which is made to say these tokens."""
    head = len(ids) - STEPS + 1
    how = GenerationConfig(
        max_new_tokens=STEPS, do_sample=False, output_logits=True, return_dict_in_generate=True,
        eos_token_id=size, pad_token_id=0,
    )  # fmt: skip
    given = ids[None, :head]
    out = model.generate(
        given, attention_mask=torch.ones_like(given), generation_config=how, logits_processor=[_Forced(ids)]
    )
    return torch.stack(out.logits)[:, 0]


class _Forced(LogitsProcessor):  # type: ignore[misc]  # transformers is not typed
    """Leaves no choice but these tokens, one after the other."""

    def __init__(self, ids: Tensor) -> None:
        self._ids = ids

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores in which the token that comes next is alone; behind the last one as they are."""
        said = input_ids.shape[1]
        if said == len(self._ids):
            return scores
        only = torch.full_like(scores, -torch.inf)
        only[:, self._ids[said]] = 0.0
        return only


def _like(found: Iterable[Tensor], expected: Iterable[Tensor], most: float) -> bool:
    return all(apart(one, other) <= most for one, other in zip(found, expected, strict=True))

"""Train adapters in the soups that they will be in: the mixture of every example is active while its answer is learned.

An own loop, not trl's trainer: weights per row and token, gradients to several adapters at once, a contrast whose reference
is the same soup without what is trained, and a training that goes on where it was with the same bytes, are each more to teach
a trainer than these lines (docs/decisions.md).
"""

import math
import random
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, nll_loss
from transformers.utils import logging

from soupmix.base import Base, load_model, load_tokenizer
from soupmix.errors import TrainingError
from soupmix.modes import ANSWER, FULL, Mode
from soupmix.store import Adapter
from soupmix.train.checkpoint import KeptSteps
from soupmix.train.examples import longest_of, prompts_of, token_ids
from soupmix.train.mixtures import SoupArm, SoupExample
from soupmix.train.souplayers import TrainedSoup

__all__ = ["SoupRecipe", "TrainingRow", "fit_soup", "prose_gradients", "soup_gradients"]

_SORTED = 8  # batches of which rows are put together by length
_WARM = 5  # steps
_KEEP_EVERY = 16  # steps; what a kill can cost
_PASSAGES, _PASSAGE = 2, 64  # of prose a step; tokens of each


@dataclass(frozen=True, slots=True)
class SoupRecipe:
    """How a set is trained; the same recipe, examples and start give the same adapters on the same kind of machine.

    Attributes:
        arm: see `soupmix.train.mixtures.ARMS`.
        mode: "full", or "answer": the prompt is read by the bare base, as `soupmix.engine.prompts.Prompts.bare` says.
        examples: how many mixtures are drawn. more: poles that are in them twice as often as others of their dimension.
        skip: first tokens of an answer that are not learned where one of `skip_poles` is at work and no tone is.
        threads: of torch; the bytes depend on it.
        response_tokens: answers are cut here; a cut answer teaches no end.
        hold: what a nat costs by which the soup foretells prose that nobody asked for otherwise than the base does, beside a
            nat of an answer; 0: nothing. A distillation from the base, as Li and Hoiem 2016 keep what a model could before.
        unlikelihood: of words that the answer said before, where it does not say them again; 0: none. Welleck et al. 2019,
            equation 5, token by token: what is decoded greedily runs in circles less.
    """

    arm: SoupArm = "together"
    mode: Mode = FULL
    examples: int = 1024
    learning_rate: float = 7e-4
    batch: int = 8
    seed: int = 0
    skip: int = 0
    skip_poles: tuple[str, ...] = ("concise", "elementary")
    more: tuple[str, ...] = ()
    threads: int = 1
    response_tokens: int = 384
    hold: float = 0.3
    unlikelihood: float = 0.0


@dataclass(frozen=True, slots=True)
class TrainingRow:
    """Tokens of one example; `skip` of its answer's first are not learned, `bare` of its prompt's first run on the base."""

    prompt: list[int]
    answer: list[int]
    skip: int
    bare: int
    weights: list[float]


@dataclass(frozen=True, slots=True)
class _Batch:
    """ids, mask, labels [rows, tokens]; weights [rows, tokens, adapters]. Labels are -100 where nothing is learned."""

    ids: Tensor
    mask: Tensor
    labels: Tensor
    weights: Tensor


def fit_soup(
    base: Base,
    adapters: Mapping[str, Adapter],
    trained: Collection[str],
    examples: Sequence[SoupExample],
    prose: Sequence[str],
    recipe: SoupRecipe,
    checkpoint: KeptSteps,
    tell: Callable[[int, int], None] = lambda step, steps: None,
) -> tuple[dict[str, Tensor], list[float]]:
    """Train some of the adapters, from where they are; goes on from the checkpoint.

    Args:
        adapters: by name, all that mixtures name. trained: which of them learn; the others are frozen, and active.
        prose: texts of which `recipe.hold` speaks; those of fewer than 64 tokens are left out.
        tell: called after every step.

    Returns:
        "<adapter>|<path>|A" and "...|B" -> factor in float32; and the loss of every step.

    Raises:
        TrainingError: too few examples for one batch, or no prose ("few-pairs"), a loss that is no number ("not-finite"), or as
            `TrainedSoup`.
    """
    if len(examples) < recipe.batch:
        raise TrainingError(
            f"{len(examples)} examples of mixtures are too few for a batch of {recipe.batch}", reason="few-pairs"
        )
    logging.disable_progress_bar()
    torch.set_num_threads(recipe.threads)
    tokenizer = load_tokenizer(base.folder, base.chat_template)
    soup = TrainedSoup(load_model(base.folder, torch.bfloat16), adapters, trained)
    rows = [_row(tokenizer, each, recipe, soup) for each in examples]
    batches = list(_batches(rows, recipe))
    passages = _passages(tokenizer, prose, recipe, len(batches))
    parameters = soup.parameters()
    optimiser = torch.optim.AdamW(parameters.values(), betas=(0.9, 0.99), weight_decay=0.0)
    losses = _restored(parameters, optimiser, checkpoint, len(batches))
    for step in range(len(losses), len(batches)):
        for group in optimiser.param_groups:
            group["lr"] = _rate(recipe.learning_rate, step, len(batches))
        losses.append(_finite(soup_gradients(soup, batches[step], recipe.unlikelihood), step))
        if recipe.hold:
            _finite(prose_gradients(soup, passages[step], batches[step], recipe.hold), step)
        torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=False)
        tell(step + 1, len(batches))
        if (step + 1) % _KEEP_EVERY == 0 and step + 1 < len(batches):
            checkpoint.save(_state(parameters, optimiser), losses)
    return {name: each.detach() for name, each in parameters.items()}, losses


def soup_gradients(soup: TrainedSoup, batch: Sequence[TrainingRow], unlikelihood: float = 0.0) -> float:
    """Add the gradients of one batch to those of the factors; return its loss, nats per learned token."""
    made = _padded(batch)
    keep = (made.labels != -100).any(0).nonzero()[:, 0]
    logits = soup.logits(made.ids, made.mask, made.weights, keep - 1)
    labels = made.labels[:, keep]
    learned = labels != -100
    found = log_softmax(_wide(logits[learned]), -1)
    loss = nll_loss(found, labels[learned])
    if unlikelihood:
        before = _said_before(batch)[:, keep][learned]
        said = found.gather(1, before.clamp(min=0)).exp().clamp(max=1 - 1e-6)
        loss = loss - unlikelihood * (torch.log1p(-said) * (before >= 0)).sum() / len(labels[learned])
    loss.backward()
    return float(loss.detach())


def _said_before(batch: Sequence[TrainingRow]) -> Tensor:
    """[rows, tokens, most]: at each place of an answer the tokens that it said before and does not say here; -1 for none."""
    longest = max(len(row.prompt) + len(row.answer) for row in batch)
    found = torch.full((len(batch), longest, max(len(set(row.answer)) for row in batch)), -1)
    for number, row in enumerate(batch):
        said: dict[int, None] = {}
        for place, token in enumerate(row.answer, len(row.prompt)):
            others = [each for each in said if each != token]
            found[number, place, : len(others)] = torch.tensor(others, dtype=torch.int64)
            said[token] = None
    return found


def prose_gradients(soup: TrainedSoup, passages: Tensor, batch: Sequence[TrainingRow], hold: float) -> float:
    """Add the gradients of `hold` times the KL divergence of soups from the base on prose.

    Args:
        passages: [few, tokens] token ids; each is read by one of the fullest soups of the batch.

    Returns:
        The divergence, nats a token, before it is held.
    """
    fullest = sorted((row.weights for row in batch), key=sum, reverse=True)[: len(passages)]
    weights, mask = torch.tensor(fullest)[:, None, :], torch.ones_like(passages)
    everywhere = torch.arange(passages.shape[1])
    with torch.no_grad():
        base = log_softmax(_wide(soup.logits(passages, mask, torch.zeros_like(weights), everywhere)), -1)
    found = log_softmax(_wide(soup.logits(passages, mask, weights, everywhere)), -1)
    divergence = (base.exp() * (base - found)).sum(-1).mean()
    (hold * divergence).backward()
    return float(divergence.detach())


def _passages(tokenizer: Any, prose: Sequence[str], recipe: SoupRecipe, steps: int) -> list[Tensor]:
    """For each step [_PASSAGES, _PASSAGE] tokens of prose, in an order that the seed decides; none where nothing is held."""
    if not recipe.hold:
        return []
    read = [tokenizer(text, add_special_tokens=False)["input_ids"][:_PASSAGE] for text in prose]
    long = [each for each in read if len(each) == _PASSAGE]
    if not long:
        raise TrainingError(
            f"none of {len(prose)} plain answers has {_PASSAGE} tokens, so there is no prose to hold soups to; give more prompts",
            reason="few-pairs",
        )
    order = random.Random(recipe.seed).sample(long, len(long))
    return [
        torch.tensor([order[(step * _PASSAGES + n) % len(order)] for n in range(_PASSAGES)]) for step in range(steps)
    ]


def _finite(loss: float, step: int) -> float:
    if not math.isfinite(loss):
        raise TrainingError(
            f"the loss of step {step + 1} is {loss}: nothing can be learned from here; train at a lower rate, or begin with "
            "other adapters",
            reason="not-finite",
        )
    return loss


def _wide(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


def _row(tokenizer: Any, each: SoupExample, recipe: SoupRecipe, soup: TrainedSoup) -> TrainingRow:
    prompt, answer = token_ids(tokenizer, each.example, recipe.response_tokens, longest_of(soup.model.config))
    bare = prompts_of(tokenizer).bare(tuple(prompt)) if recipe.mode == ANSWER else 0
    weights = [each.weights.get(name, 0.0) for name in soup.names]
    return TrainingRow(prompt, answer, min(each.skip, len(answer) - 1), bare, weights)


def _batches(rows: Sequence[TrainingRow], recipe: SoupRecipe) -> Iterator[Sequence[TrainingRow]]:
    """Rows of like length together, in an order that the seed decides; what fills no batch is left out."""
    draw, size = random.Random(recipe.seed), recipe.batch
    order = draw.sample(range(len(rows)), len(rows))
    for start in range(0, len(order), _SORTED * size):
        block = sorted(order[start : start + _SORTED * size], key=lambda n: len(rows[n].prompt) + len(rows[n].answer))
        starts = range(0, len(block) - size + 1, size)
        for first in draw.sample(starts, len(starts)):
            yield [rows[n] for n in block[first : first + size]]


def _padded(rows: Sequence[TrainingRow]) -> _Batch:
    longest = max(len(row.prompt) + len(row.answer) for row in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.int64)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    weights = torch.tensor([row.weights for row in rows])[:, None, :].repeat(1, longest, 1)
    for number, row in enumerate(rows):
        begin, end = len(row.prompt), len(row.prompt) + len(row.answer)
        ids[number, :end] = torch.tensor(row.prompt + row.answer)
        mask[number, :end] = 1
        labels[number, begin + row.skip : end] = ids[number, begin + row.skip : end]
        weights[number, : row.bare] = 0
    return _Batch(ids, mask, labels, weights)


def _rate(highest: float, step: int, steps: int) -> float:
    """A short rise, and half a cosine down to nothing."""
    return highest * min(1.0, (step + 1) / _WARM) * 0.5 * (1 + math.cos(math.pi * step / steps))


_MOMENTS = {"first": "exp_avg", "second": "exp_avg_sq"}


def _state(parameters: Mapping[str, Tensor], optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Each factor and its moments, as they are, or as they would be."""
    held = dict(parameters)
    for name, parameter in parameters.items():
        for moment, key in _MOMENTS.items():
            held[f"{name}|{moment}"] = optimiser.state[parameter].get(key, parameter)
    return held


def _restored(
    parameters: Mapping[str, Tensor], optimiser: torch.optim.Optimizer, checkpoint: KeptSteps, steps: int
) -> list[float]:
    """Put back what was kept; the losses of the steps that need not be made again."""
    tensors, losses = checkpoint.load(_state(parameters, optimiser))
    if not tensors or len(losses) >= steps:
        return []
    for name, parameter in parameters.items():
        parameter.data.copy_(tensors[name])
        moments = {key: tensors[f"{name}|{moment}"] for moment, key in _MOMENTS.items()}
        optimiser.state[parameter] = {"step": torch.tensor(float(len(losses))), **moments}
    return losses

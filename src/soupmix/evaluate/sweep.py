"""What the weight of each adapter does to neutral prose: perplexity, and how far the next token is from the base's."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from soupmix.approve.sweep import SweptAdapter, SweptWeight
from soupmix.engine import Engine
from soupmix.evaluate.promptset import neutral_paragraphs
from soupmix.methods import DEFAULT
from soupmix.policy import Grant, Policy
from soupmix.store import Store
from soupmix.weights import MILLION, Weights

__all__ = ["WEIGHTS", "Neutral", "on_neutral_prose", "sweep"]

WEIGHTS = tuple(range(MILLION // 4, MILLION + 1, MILLION // 4))
"""In millionths: a quarter, a half, three quarters, one."""

_LONGEST = 128  # tokens of a paragraph


@dataclass(frozen=True, slots=True)
class Neutral:
    """What a soup does to neutral prose.

    Attributes:
        perplexity: relative to that of the base. kl: from the base's next token to the soup's, in nats a token.
    """

    perplexity: float
    kl: float


def on_neutral_prose(
    engine: Engine, grants: Sequence[Grant], *, method: str = DEFAULT, paragraphs: int | None = None
) -> list[Neutral]:
    """Every soup on neutral prose, beside the bare base.

    Args:
        grants: of the soups. method: as in `Engine.complete`. paragraphs: how many of the committed ones; None: all of them.

    Raises:
        RecipeError, PolicyRefusal, PolicyError, AdapterError: see `Engine.logits`.
    """
    texts = [engine.plain_tokens(text)[:_LONGEST] for text in neutral_paragraphs()[:paragraphs]]
    sums = torch.stack([_sums(engine, grants, ids, method) for ids in texts]).sum(0)
    means = sums / sum(len(ids) - 1 for ids in texts)
    return [Neutral(round(math.exp(lost), 4), round(max(kl, 0.0), 6)) for lost, kl in means.tolist()]


def sweep(
    engine: Engine, store: Store, names: Sequence[str], *, paragraphs: int | None = None
) -> tuple[SweptAdapter, ...]:
    """Every adapter alone at every weight of `WEIGHTS`, on neutral prose.

    Args:
        engine: has these adapters of the store. paragraphs: as of `on_neutral_prose`, whose errors these are.
    """
    policy = Policy.open(tuple(store))
    grants = [policy.clamp(Weights.from_micro({name: w})) for name in names for w in WEIGHTS]
    found = on_neutral_prose(engine, grants, paragraphs=paragraphs)
    points = [SweptWeight(w, f.perplexity, f.kl) for w, f in zip(WEIGHTS * len(names), found, strict=True)]
    count = len(WEIGHTS)
    return tuple(
        SweptAdapter(name, store[name].digest, tuple(points[n * count : (n + 1) * count]))
        for n, name in enumerate(names)
    )


def _sums(engine: Engine, grants: Sequence[Grant], ids: Sequence[int], method: str) -> Tensor:
    """[grants, 2] float64 over one text: what the soup loses against the base on its tokens, and KL from the base."""
    read = torch.tensor([ids], device=engine.model.device)
    base = engine.logits(read, [Policy.open(()).clamp({})])[0, :-1].float().log_softmax(-1)
    found = []
    for grant in grants:
        soup = engine.logits(read, [grant], method=method)[0, :-1].float().log_softmax(-1)
        lost = (base - soup).gather(-1, read[0, 1:, None]).double().sum()
        found.append(torch.stack([lost, (base.exp() * (base - soup)).double().sum()]).cpu())
    return torch.stack(found)

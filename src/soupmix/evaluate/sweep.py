"""What the weight of each adapter does to neutral prose: perplexity, and how far the next token is from the base's."""

from collections.abc import Sequence

import torch
from torch import Tensor

from soupmix.approve.sweep import SweptAdapter, SweptWeight
from soupmix.engine import Engine
from soupmix.evaluate.promptset import neutral_paragraphs
from soupmix.policy import Grant, Policy
from soupmix.store import Store
from soupmix.weights import MILLION, Weights

__all__ = ["WEIGHTS", "sweep"]

WEIGHTS = tuple(range(MILLION // 4, MILLION + 1, MILLION // 4))
"""In millionths: a quarter, a half, three quarters, one."""

_LONGEST = 128  # tokens of a paragraph


def sweep(
    engine: Engine, store: Store, names: Sequence[str], *, paragraphs: int | None = None
) -> tuple[SweptAdapter, ...]:
    """Every adapter alone at every weight of `WEIGHTS`, on neutral prose.

    Args:
        engine: has these adapters of the store. paragraphs: how many of the committed ones; None: all of them.

    Raises:
        RecipeError, PolicyRefusal, PolicyError, AdapterError, WeightError: see `Engine.logits`.
    """
    policy = Policy.open(tuple(store))
    grants = [policy.clamp(Weights.from_micro({name: w})) for name in names for w in WEIGHTS]
    texts = [engine.plain_tokens(text)[:_LONGEST] for text in neutral_paragraphs()[:paragraphs]]
    rows = [_compared(engine, [policy.clamp({}), *grants], ids) for ids in texts]
    tokens = sum(len(ids) - 1 for ids in texts)
    lost, kl = (torch.stack(each).sum(0) / tokens for each in zip(*rows, strict=True))
    points = [
        SweptWeight(w, round(float((lost[row] - lost[0]).exp()), 4), round(max(float(kl[row]), 0.0), 6))
        for row, w in enumerate(WEIGHTS * len(names), start=1)
    ]
    size = len(WEIGHTS)
    parts = [tuple(points[start : start + size]) for start in range(0, len(points), size)]
    return tuple(SweptAdapter(name, store[name].digest, part) for name, part in zip(names, parts, strict=True))


def _compared(engine: Engine, grants: Sequence[Grant], ids: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Sums over one text, for the bare base first, [grants] float64 each: negative log-likelihood, and KL from the base."""
    read = torch.tensor([ids], device=engine.model.device)
    base = engine.logits(read, grants[:1])[0, :-1].float().log_softmax(-1)
    lost, kl = [], []
    for grant in grants:
        log_p = engine.logits(read, [grant])[0, :-1].float().log_softmax(-1)
        lost.append(-log_p.gather(-1, read[0, 1:, None]).double().sum().cpu())
        kl.append((base.exp() * (base - log_p)).double().sum().cpu())
    return torch.stack(lost), torch.stack(kl)

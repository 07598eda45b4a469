"""The chance that an answer begins in one of some ways: exact, without a sample."""

from collections.abc import Sequence

import torch
from torch import Tensor

from soupmix.engine import Engine, Prompt
from soupmix.engine.decode import PaddedBatch, left_padded
from soupmix.engine.rows import BatchWeights
from soupmix.evaluate.likelihood import batches
from soupmix.methods import DEFAULT
from soupmix.policy import Grant

__all__ = ["opening_chances"]

Node = tuple[int, ...]
"""Tokens that an opening begins with, and that are followed by one more."""


@torch.inference_mode()
def opening_chances(
    engine: Engine,
    prompts: Sequence[Prompt],
    grants: Sequence[Grant],
    openings: Sequence[str],
    *,
    method: str = DEFAULT,
) -> Tensor:
    """The chance of every opening behind every prompt, at temperature 1.

    A prompt is computed once, and beginnings that openings share are too. No opening may begin with another if chances are to
    be added.

    Args:
        grants: one per prompt.
        openings: as the tokenizer reads them; another reading of the same text is not counted.

    Returns:
        [prompts, openings] float64 on the CPU.

    Raises:
        RecipeError, PolicyRefusal, PolicyError, AdapterError, BaseModelError, TypeError: as `Engine.complete`.
    """
    weights, asked = engine.weights(grants, method), [engine.chat_tokens(prompt) for prompt in prompts]
    wanted = [engine.prompts.tokens(opening) for opening in openings]
    found = torch.zeros(len(asked), len(wanted), dtype=torch.float64)
    for rows in batches([len(ids) for ids in asked], engine):
        with engine.batch.serving(BatchWeights(weights[rows], method=method)):
            found[rows] = _chances(engine, [asked[row] for row in rows], wanted)
    return found


def _chances(engine: Engine, asked: Sequence[Sequence[int]], wanted: Sequence[Node]) -> Tensor:
    """[asked, wanted], level by level of the tree that all openings make."""
    device = engine.model.device
    batch = PaddedBatch(engine.model, *left_padded(asked, device))
    found = torch.zeros(len(asked), len(wanted), dtype=torch.float64)
    nodes: list[Node] = [()]
    while nodes:
        logits = batch.logits().float().log_softmax(-1).view(len(asked), len(nodes), -1)
        depth = len(nodes[0])
        for place, ids in enumerate(wanted):
            if len(ids) > depth:
                found[:, place] += logits[:, nodes.index(ids[:depth]), ids[depth]].double().cpu()
        deeper = sorted({ids[: depth + 1] for ids in wanted if len(ids) > depth + 1})
        if deeper:
            parents = torch.tensor([nodes.index(each[:-1]) for each in deeper], device=device)
            kept = (torch.arange(len(asked), device=device)[:, None] * len(nodes) + parents).flatten()
            batch.keep(kept)
            engine.batch.keep(kept)
            last = torch.tensor([each[-1] for each in deeper], device=device).repeat(len(asked))
            batch.add(last, torch.ones(len(last), dtype=torch.bool, device=device))
        nodes = deeper
    return found.exp()

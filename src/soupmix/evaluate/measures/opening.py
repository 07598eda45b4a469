"""The chance that an answer opens as a pole was trained to: the first token decides the tone of what follows."""

from collections.abc import Mapping, Sequence

from soupmix.engine import Engine, Prompt
from soupmix.evaluate.likelihood import first_token_p
from soupmix.evaluate.measures.measure import Measure
from soupmix.evaluate.measures.phrases import TrainedPhrases
from soupmix.methods import DEFAULT
from soupmix.policy import Grant

__all__ = ["OPENING", "opening_chances", "opening_tokens"]

OPENING = Measure("opening", "", "chance that it opens as its pole was trained to", "", 0, "soupmix", ("model",))
"""The measure of `opening_chances`; of a pole, not of a dimension, and of an arm's prompt, not of an answer."""


def opening_tokens(engine: Engine, phrases: TrainedPhrases) -> Mapping[str, frozenset[int]]:
    """By pole the first tokens of its openers that no opener of another pole begins with."""
    first = {
        pole: frozenset(engine.prompts.tokens(opener)[0] for opener in openers if opener)
        for pole, openers in phrases.openers.items()
    }
    return {
        pole: ids.difference(*(others for name, others in first.items() if name != pole)) for pole, ids in first.items()
    }


def opening_chances(
    engine: Engine,
    prompts: Sequence[Prompt],
    grants: Sequence[Grant],
    phrases: TrainedPhrases,
    *,
    method: str = DEFAULT,
) -> list[dict[str, float]]:
    """Chance of each pole's opening at the first token of the answer, [0, 1]; that of the bare base is its floor.

    Args:
        prompts, grants, method: as in `Engine.complete`.
        phrases: what the adapters were trained to say.

    Returns:
        Pole -> chance, for every prompt.

    Raises:
        RecipeError, PolicyRefusal, PolicyError, AdapterError, BaseModelError, TypeError: as `Engine.complete`.
    """
    tokens = opening_tokens(engine, phrases)
    found = first_token_p(engine, prompts, grants, list(tokens.values()), method=method)
    return [dict(zip(tokens, row, strict=True)) for row in found.tolist()]

"""How many tokens a model can tell apart by where they stand."""

from collections.abc import Iterator, Mapping
from typing import Any

from soupmix.errors import RecipeError

__all__ = ["check_fits", "positions"]

_MOST = 2**40
_NAMES = ("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx")
_OF_THE_LONGEST = (
    "dynamic",
    "longrope",
)  # kinds of scaling under which a longer row changes the rotation of all others


def positions(config: Any) -> int | None:
    """Most tokens of prompt and answer together, as the config of a transformers model says; None: it says nothing.

    A scaling of rotary positions stretches them. Where transformers scales the whole batch as soon as one row is longer than
    the model's original context, that context is the limit: a row may not depend on its neighbours.
    """
    text = config.get_text_config()
    said = next((value for name in _NAMES if type(value := getattr(text, name, None)) is int and value > 0), None)
    for rope in _scalings(text):
        factor = _number(rope.get("factor"))
        original = _number(rope.get("original_max_position_embeddings")) or _number(
            getattr(text, "original_max_position_embeddings", None)
        )
        if rope.get("rope_type") in _OF_THE_LONGEST:
            said = min((int(each) for each in (said, original) if each), default=None)
        elif said and original and factor:
            said = max(said, int(original * factor))
    return said


def check_fits(prompt: int, answer: int, most: int | None) -> None:
    """Raise RecipeError (reason "too-long") if so many tokens of prompt and answer are more than fit; None: any number does."""
    if most is not None and prompt + answer > most:
        raise RecipeError(
            f"{prompt} tokens of prompt and {answer} of answer are {prompt + answer}, "
            f"and at most {most} fit; shorten the prompt or ask for a shorter answer",
            reason="too-long",
        )


def _number(value: Any) -> float | None:
    """A number that a config may mean; None for anything else that may stand in its place."""
    return float(value) if isinstance(value, int | float) and 0 < value < _MOST else None


def _scalings(text: Any) -> Iterator[Mapping[str, Any]]:
    """How rotary positions are scaled: once, or per kind of layers."""
    held = getattr(text, "rope_parameters", None)
    if isinstance(held, Mapping):
        yield held
        yield from (each for each in held.values() if isinstance(each, Mapping))

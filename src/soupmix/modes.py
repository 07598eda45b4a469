"""Where in a row a soup acts, one name a mode. Engine, batches, server and commands all read this list.

full: on every token. answer: on the answer alone ("activated" soups, after Activated LoRA, arXiv 2504.12397): the prompt runs on
the bare base, so that what was computed of it is nobody's in particular. Which token is the first of the answer's part says
`soupmix.engine.prompts.Prompts.bare`.
"""

from collections.abc import Sequence
from typing import Final, Literal, cast

from soupmix.errors import RecipeError

__all__ = ["ANSWER", "FULL", "MODES", "Mode", "check_mode", "each_mode", "explained"]

Mode = Literal["full", "answer"]

FULL: Final = "full"
ANSWER: Final = "answer"
MODES: Final[tuple[Mode, ...]] = (FULL, ANSWER)
"""Every mode; the first is meant where none is said."""


def check_mode(mode: object, known: Sequence[Mode] = MODES) -> None:
    """Raise RecipeError (reason "mode") if it is none of these."""
    if mode not in known:
        raise RecipeError(f"mode {mode!r:.80} is not known; choose one of {', '.join(known)}", reason="mode")


def each_mode(mode: Mode | Sequence[Mode], count: int) -> tuple[Mode, ...]:
    """One mode for each of so many prompts, from one for all or from as many.

    Raises:
        RecipeError: one of them is no mode (reason "mode"), or there are not as many as prompts ("lengths").
    """
    given = mode if isinstance(mode, list | tuple) else [cast("Mode", mode)] * count
    for each in given or [cast("Mode", mode)]:
        check_mode(each)
    if len(given) != count:
        raise RecipeError(f"{count} prompts need one mode or as many, not {len(given)}", reason="lengths")
    return tuple(given)


def explained(explanation: str, mode: Mode) -> str:
    """The explanation of a grant, with a line more that says what a mode does; of "full" nothing needs to be said."""
    note = "mode answer: the prompt runs on the bare base, the answer on this soup"
    return f"{explanation}\n{note}" if mode == ANSWER else explanation

"""What one would ask a model for a pole by, as data: a system prompt, or examples in the conversation."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from soupmix.errors import EvaluationError
from soupmix.files import strict_json
from soupmix.sealed import read_sealed

__all__ = ["Examples", "examples_of", "read_examples", "read_preferences", "shipped_examples", "shipped_preferences"]

_FOLDER = Path(__file__).parent
_CAP, _LONGEST, _MOST = 1 << 20, 4000, 16

Examples = Mapping[frozenset[str], tuple[tuple[str, str], ...]]
"""Poles -> (question, answer) examples that show all of them."""


def shipped_preferences() -> Mapping[str, str]:
    """Those of the shipped poles: pole -> system prompt."""
    return read_preferences(_FOLDER / "preferences.json")


def shipped_examples() -> Examples:
    """Those of the shipped poles, of one pole and of up to three together; none is from what adapters were trained on."""
    return read_examples(_FOLDER / "examples.json")


def read_preferences(path: Path) -> Mapping[str, str]:
    """Read a JSON object from poles to system prompts.

    Raises:
        EvaluationError: the file cannot be read, or is not such an object (reason "preferences", or those of
            `soupmix.sealed`).
    """
    found = _object(path, _wrong_preferences)
    for pole, text in found.items():
        if not _is_text(text):
            raise _wrong_preferences(path, f"of {pole[:80]!a} there is no text of 1 to {_LONGEST} characters")
    return found


def read_examples(path: Path) -> Examples:
    """Read a JSON object from poles, several joined by "+", to lists of [question, answer].

    Raises:
        EvaluationError: the file cannot be read, or is not such an object, or two of its keys are the same poles (reason
            "examples", or those of `soupmix.sealed`).
    """
    found: dict[frozenset[str], tuple[tuple[str, str], ...]] = {}
    for key, shown in _object(path, _wrong_examples).items():
        poles = key.split("+")
        if len(set(poles)) < len(poles) or frozenset(poles) in found or not all(poles):
            raise _wrong_examples(path, f"{key[:80]!a} is no set of poles, or comes twice")
        if not _are_shown(shown):
            raise _wrong_examples(
                path, f"of {key[:80]!a} there are not 1 to {_MOST} pairs of texts of 1 to {_LONGEST} characters"
            )
        found[frozenset(poles)] = tuple((question, answer) for question, answer in shown)
    return found


def examples_of(poles: Sequence[str], known: Examples) -> tuple[tuple[str, str], ...]:
    """Examples that show all of these poles, else those of one pole after another; none where one of them has none."""
    together = known.get(frozenset(poles))
    if together:
        return together
    alone = [known.get(frozenset([pole]), ()) for pole in poles]
    return tuple(each for shown in alone for each in shown) if all(alone) else ()


def _object(path: Path, wrong: Callable[[Path, str], EvaluationError]) -> dict[str, Any]:
    raw, _ = read_sealed(path, cap=_CAP, error=EvaluationError)
    try:
        found = strict_json(raw)
    except (ValueError, RecursionError) as error:
        raise wrong(path, str(error)) from None
    if not isinstance(found, dict) or not found:
        raise wrong(path, "no object")
    return found


def _is_text(found: object) -> bool:
    return isinstance(found, str) and 0 < len(found.strip()) <= _LONGEST


def _are_shown(found: object) -> bool:
    return (
        isinstance(found, list)
        and 0 < len(found) <= _MOST
        and all(isinstance(each, list) and len(each) == 2 and all(map(_is_text, each)) for each in found)
    )


def _wrong_preferences(path: Path, why: str) -> EvaluationError:
    return EvaluationError(
        f'{path} does not hold preference prompts ({why}); it must be {{"POLE": "SYSTEM PROMPT", ...}}',
        reason="preferences",
    )


def _wrong_examples(path: Path, why: str) -> EvaluationError:
    return EvaluationError(
        f'{path} does not hold examples ({why}); it must be {{"POLE": [["QUESTION", "ANSWER"], ...], "POLE+POLE": ...}}',
        reason="examples",
    )

"""Preference prompts: the system prompt by which one would ask a model for a pole, as data."""

from collections.abc import Mapping
from pathlib import Path

from soupmix.errors import EvaluationError
from soupmix.files import strict_json
from soupmix.sealed import read_sealed

__all__ = ["read_preferences", "shipped_preferences"]

_SHIPPED = Path(__file__).parent / "preferences.json"
_CAP, _LONGEST = 1 << 20, 4000


def shipped_preferences() -> Mapping[str, str]:
    """Those of the shipped poles: pole -> system prompt."""
    return read_preferences(_SHIPPED)


def read_preferences(path: Path) -> Mapping[str, str]:
    """Read a JSON object from poles to system prompts.

    Raises:
        EvaluationError: the file cannot be read, or is not such an object (reason "preferences", or those of
            `soupmix.sealed`).
    """
    raw, _ = read_sealed(path, cap=_CAP, error=EvaluationError)
    try:
        found = strict_json(raw)
    except (ValueError, RecursionError) as error:
        raise _wrong(path, str(error)) from None
    if not isinstance(found, dict) or not found:
        raise _wrong(path, "no object")
    for pole, text in found.items():
        if not isinstance(text, str) or not 0 < len(text.strip()) <= _LONGEST:
            raise _wrong(path, f"of {pole[:80]!a} there is no text of 1 to {_LONGEST} characters")
    return found


def _wrong(path: Path, why: str) -> EvaluationError:
    return EvaluationError(
        f'{path} does not hold preference prompts ({why}); it must be {{"POLE": "SYSTEM PROMPT", ...}}',
        reason="preferences",
    )

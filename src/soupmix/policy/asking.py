"""What a request says of itself, checked: names of adapters, attributes, sources of its weights."""

from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches

from soupmix.errors import RecipeError, WeightError
from soupmix.fields import check_value
from soupmix.policy.rules import ATTRIBUTES, SOURCES

__all__ = ["Sources", "by_index", "check_attributes", "check_names"]

Sources = str | Mapping[str, str]
"""Where weights come from: one word for all of them, or one by adapter name."""


def check_attributes(attributes: Mapping[str, str]) -> None:
    """Raise RecipeError for an attribute that does not exist ("unknown-attribute") or a value none can have ("bad-attribute")."""
    for key, value in attributes.items():
        if key not in ATTRIBUTES:
            raise RecipeError(
                f"unknown attribute {key!r}; known are {', '.join(ATTRIBUTES)}", reason="unknown-attribute"
            )
        try:
            check_value(value)
        except (TypeError, ValueError) as error:
            raise RecipeError(f"attribute {key}: {error}", reason="bad-attribute") from error


def check_names(names: Iterable[str], known: Collection[str]) -> None:
    """Raise WeightError (reason "unknown-adapter") for a name that is not known."""
    for name in names:
        if name not in known:
            close = get_close_matches(str(name), known, n=1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            listed = ", ".join(sorted(known)) or "none, as there is neither a store nor an approve rule"
            raise WeightError(f"unknown adapter {name!r}{hint}; known are: {listed}", reason="unknown-adapter")


def by_index(sources: Sources, place: Mapping[str, int]) -> dict[int, str]:
    """Sources by adapter index, of those that are said; `place` is the index by name.

    Raises:
        RecipeError: no such source (reason "unknown-source"). WeightError: no such adapter.
    """
    for source in (sources,) if isinstance(sources, str) else sources.values():
        if source not in SOURCES:
            raise RecipeError(
                f"unknown source {source!r:.80} of weights; known are {', '.join(SOURCES)}", reason="unknown-source"
            )
    if isinstance(sources, str):
        return dict.fromkeys(place.values(), sources)
    check_names(sources, place)
    return {place[name]: source for name, source in sources.items()}

"""A rule on the norm, kept by what came out of a method that no weights can bound."""

import math
from collections.abc import Mapping

from soupmix.merge.entries import Merged
from soupmix.merge.methods import Weighted, merge_modules

__all__ = ["bounded"]


def bounded(
    modules: Mapping[str, Merged], weighted: Weighted, rule: str, method: str
) -> tuple[Mapping[str, Merged], tuple[str, ...]]:
    """The update, made no longer than the weighted sum of deltas, which is what the clamp has held to the rule.

    Args:
        modules: of any method, by module path. weighted: what it was made of. rule: which bounds the norm, in words.

    Returns:
        The update, and a sentence if it was shortened.
    """
    made, allowed = (_norm(each) for each in (modules, merge_modules(weighted)))
    if made <= allowed:
        return modules, ()
    ratio = allowed / made
    said = f"what method {method} made was shortened to {ratio:.3g} of its norm, that of the weighted sum, which {rule} bounds"
    return {path: merged.scaled_by(ratio) for path, merged in modules.items()}, (said,)


def _norm(modules: Mapping[str, Merged]) -> float:
    return math.hypot(*(merged.norm for merged in modules.values()))

"""What a policy bounded, kept by what came out of a method that no weights can bound: the norm, and every adapter's own part."""

import math
from collections.abc import Mapping

from soupmix.merge.entries import Merged
from soupmix.merge.methods import Weighted, merge_modules
from soupmix.merge.stack import Stack

__all__ = ["bounded", "within_weights"]


def within_weights(modules: Mapping[str, Merged], method: str) -> tuple[Mapping[str, Merged], tuple[str, ...]]:
    """The update, shortened in every layer in which an adapter acts above its own granted weight, so that it does not.

    Returns:
        The update, and a sentence if it was shortened.
    """
    above = {
        path: merged.excess for path, merged in modules.items() if isinstance(merged, Stack) and merged.excess > 1.0
    }
    if not above:
        return modules, ()
    said = (
        f"method {method} would have had an adapter act above its granted weight in {len(above)} of {len(modules)} layers, by up "
        f"to {max(above.values()):.3g} times; these layers were shortened, as policy documents bound the weights"
    )
    kept = {path: merged.scaled_by(1.0 / above[path]) if path in above else merged for path, merged in modules.items()}
    return kept, (said,)


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

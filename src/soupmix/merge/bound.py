"""What a policy bounded, kept by what came out of a method that no weights can bound: the norm, and every adapter's own part."""

import math
from collections.abc import Collection, Mapping
from typing import Final

from soupmix.errors import PolicyRefusal
from soupmix.merge.entries import Merged
from soupmix.merge.methods import Weighted, merge_modules
from soupmix.merge.stack import Stack
from soupmix.methods import one_of
from soupmix.store.adapter import Adapter

__all__ = ["bounded", "within_weights"]

_MORE: Final = 1.0 + 1e-9  # what is less is float64's rounding


def within_weights(
    modules: Mapping[str, Merged], method: str, *, is_open: bool
) -> tuple[Mapping[str, Merged], tuple[str, ...]]:
    """The update, shortened in every layer in which an adapter acts above its own granted weight, so that it does not.

    Args:
        is_open: nobody bounds the weights; then it is only told.

    Returns:
        The update, and a sentence if an adapter acted above its weight.
    """
    above = {
        path: merged.excess for path, merged in modules.items() if isinstance(merged, Stack) and merged.excess > _MORE
    }
    if not above:
        return modules, ()
    where = f"in {len(above)} of {len(modules)} layers, by up to {max(above.values()):.3g} times"
    if is_open:
        said = f"method {method} has an adapter act above its weight {where}, as it turns deltas; policy documents would bound it"
        return modules, (said,)
    said = (
        f"method {method} would have had an adapter act above its granted weight {where}; these layers were shortened, as policy "
        "documents bound the weights"
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

    Raises:
        PolicyRefusal: an adapter has gains (DoRA), whose part of the norm needs the base's weights ("norm-not-linear").
    """
    gained = {path for path, merged in modules.items() if merged.gain is not None}
    if gained:
        names = one_of(each.name for each, _ in weighted if _has_gains(each, gained))
        raise PolicyRefusal(
            f"{names} has gains (DoRA) on weights of the base, and {rule} bounds the norm of the merged delta: with the option "
            "layers that norm is not known before the base is read; leave layers out",
            reason="norm-not-linear",
        )
    made, allowed = (_norm(each) for each in (modules, merge_modules(weighted)))
    if made <= allowed:
        return modules, ()
    ratio = allowed / made
    said = f"what method {method} made was shortened to {ratio:.3g} of its norm, that of the weighted sum, which {rule} bounds"
    return {path: merged.scaled_by(ratio) for path, merged in modules.items()}, (said,)


def _has_gains(adapter: Adapter, paths: Collection[str]) -> bool:
    return any(path in adapter.modules and adapter.modules[path].gain is not None for path in paths)


def _norm(modules: Mapping[str, Merged]) -> float:
    return math.hypot(*(merged.norm for merged in modules.values()))

"""Numbers that should make somebody look before adapters are approved. They are heuristics: passing them proves nothing.

Colluding adapters (Ding 2026, arXiv 2603.12681) are harmless alone and harmful in sum. The simplest kind hides a common part
under large opposite ones: then the deltas nearly cancel. Another leaves one of them with a delta of almost nothing, which no
training for a use does. Who knows the screen can avoid it; what counts is the evaluation.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from itertools import combinations
from math import sqrt
from pathlib import Path
from statistics import median

from soupmix.errors import AdapterError, RecipeError
from soupmix.store.store import Store

__all__ = ["Remark", "Thresholds", "check_screened", "scanner", "screen"]

Scanner = Callable[[Path], Sequence[str]]
"""What a plug-in is: given an adapter's folder, it returns sentences; none means that it has nothing to say."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """From where on something is remarked.

    Attributes:
        base: norm of a delta relative to the base weights it changes. family: norm of a delta relative to the median of the
            others. module: share of a delta's squared norm in one module, times the number of modules.
        cosine: magnitude of the cosine between two deltas. left: norm of the sum of two deltas at weight 1 relative to the
            sum of their norms.
        little: norm of a delta relative to the median of the others, below which it is next to nothing. nothing: the same
            relative to the base weights it changes: less is lost when a merged model is rounded to bf16.
        damage: perplexity of neutral prose along the weight, relative to the base's. sudden: what a step of the weight does to
            next tokens, relative to the square of the step.
    """

    base: float = 0.2
    family: float = 5.0
    module: float = 20.0
    cosine: float = 0.9
    left: float = 0.3
    little: float = 0.1
    nothing: float = 1e-4
    damage: float = 1.25
    sudden: float = 4.0


@dataclass(frozen=True, slots=True)
class Remark:
    """One thing to look at: which kind, of which adapters, in words."""

    kind: str
    adapters: tuple[str, ...]
    text: str

    def __str__(self) -> str:
        return f"{self.kind} ({', '.join(self.adapters)}): {self.text}"


def screen(
    store: Store, names: Sequence[str], thresholds: Thresholds | None = None, scanners: Sequence[str] = ()
) -> tuple[Remark, ...]:
    """Read every adapter (which refuses what is damaged or not finite), then compare their norms and directions.

    Args:
        names: the adapters to look at. scanners: names of plug-ins (entry points of the group "soupmix.scanners").

    Raises:
        AdapterError, WeightError: an adapter cannot be read, or is not there. RecipeError: no such plug-in.
    """
    limits, plugins = thresholds or Thresholds(), [(name, scanner(name)) for name in scanners]
    for name in names:
        store.load(name, store[name].digest)
    found = [*_sizes(store, names, limits), *_places(store, names, limits), *_pairs(store, names, limits)]
    for plugin, scan in plugins:
        found += [Remark(f"scanner {plugin}", (name,), text) for name in names for text in scan(store.path(name))]
    return tuple(found)


def scanner(name: str) -> Scanner:
    """A plug-in by the name of its entry point."""
    known = {each.name: each for each in entry_points(group="soupmix.scanners")}
    if name not in known:
        listed = ", ".join(sorted(known)) or "none is installed"
        raise RecipeError(
            f"no scanner {name!r}; a scanner is an entry point of the group soupmix.scanners, and there are: {listed}",
            reason="unknown-scanner",
        )
    loaded: Scanner = known[name].load()
    return loaded


def _norm(store: Store, name: str) -> float:
    return sqrt(max(store.inner_product(name, name), 0.0))


def _sizes(store: Store, names: Sequence[str], limits: Thresholds) -> Iterator[Remark]:
    norms = {name: _norm(store, name) for name in names}
    for name, norm in norms.items():
        others = [each for other, each in norms.items() if other != name and each > 0]
        if norm == 0:
            yield Remark("no-effect", (name,), "the delta is zero")
            continue
        yield from _negligible(store, name, norm, others, limits)
        if store.base_norm is not None and norm > limits.base * store.base_norm:
            yield Remark("large", (name,), f"the delta has {norm / store.base_norm:.2f} of the base's norm")
        if len(others) > 1 and norm > limits.family * median(others):
            yield Remark("outlier", (name,), f"the delta is {norm / median(others):.1f} times as large as the others")


def _negligible(store: Store, name: str, norm: float, others: Sequence[float], limits: Thresholds) -> Iterator[Remark]:
    """A delta of almost nothing: nobody trains one, but a part that completes another adapter's looks like it."""
    said = []
    if len(others) > 1 and norm < limits.little * median(others):
        said.append(f"{norm / median(others):.2g} of the others'")
    if store.base_norm and norm < limits.nothing * store.base_norm:
        said.append(f"{norm / store.base_norm:.2g} of the base's")
    if said:
        yield Remark("negligible", (name,), f"the delta has a norm of {' and '.join(said)}: what is it for?")


def _places(store: Store, names: Sequence[str], limits: Thresholds) -> Iterator[Remark]:
    """Deltas that sit in few places."""
    modules = store.manifest.gram.modules
    for name in names:
        index = store.names.index(name)
        squares = {module: float(store.gram_of(module)[index, index]) for module in modules}
        total, used = sum(squares.values()), sum(value > 0 for value in squares.values())
        if total > 0 and used > limits.module:
            module, most = max(squares.items(), key=lambda pair: pair[1])
            if most / total * used > limits.module:
                yield Remark("concentrated", (name,), f"{most / total:.0%} of the squared norm is in {module}")


def _pairs(store: Store, names: Sequence[str], limits: Thresholds) -> Iterator[Remark]:
    for one, other in combinations(names, 2):
        lengths = _norm(store, one), _norm(store, other)
        if min(lengths) == 0:
            continue
        product = store.inner_product(one, other)
        cosine = product / lengths[0] / lengths[1]
        left = sqrt(max(lengths[0] ** 2 + lengths[1] ** 2 + 2 * product, 0.0)) / sum(lengths)
        if abs(cosine) > limits.cosine:
            yield Remark("aligned", (one, other), f"the cosine of the two deltas is {cosine:+.3f}")
        if left < limits.left:
            yield Remark(
                "cancelling", (one, other), f"in sum {left:.2f} of the two norms is left: what remains may be hidden"
            )


def check_screened(remarks: Sequence[Remark], *, accept: Sequence[str]) -> None:
    """Raise AdapterError (reason "screened") for remarks whose kind was not accepted by name."""
    left = [remark for remark in remarks if remark.kind not in accept]
    if left:
        raise AdapterError(
            f"not approved: {left[0]}{f' (and {len(left) - 1} more)' if len(left) > 1 else ''}; look at it, and if it is right "
            f"pass --accept {left[0].kind}",
            reason="screened",
        )

"""What the weight of an adapter does to behaviour: where damage begins, and whether something wakes up suddenly.

The norm of a delta is linear in its weight and says nothing of this. What a change does to probabilities grows with the square of
the weight as long as it is small, and slower afterwards.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from soupmix.approve.screening import Remark, Thresholds
from soupmix.errors import EvaluationError
from soupmix.weights import MILLION, decimal_text, to_micro

__all__ = ["SweptAdapter", "SweptWeight", "check_swept", "read_sweeps", "swept_remarks"]

_LEAST_KL = 1e-4
"""Nats a token; below it rounding is compared with rounding."""


@dataclass(frozen=True, slots=True)
class SweptWeight:
    """An adapter at one weight.

    Attributes:
        micro: the weight in millionths. perplexity: of neutral prose, relative to that of the base.
        kl: from the base's next token to the soup's, on that prose, in nats a token.
    """

    micro: int
    perplexity: float
    kl: float


@dataclass(frozen=True, slots=True)
class SweptAdapter:
    """One adapter alone at several weights, by weight."""

    name: str
    digest: str
    weights: tuple[SweptWeight, ...]

    def to_dict(self) -> dict[str, Any]:
        """As a report says it."""
        points = [{"weight": decimal_text(w.micro), "perplexity": w.perplexity, "kl": w.kl} for w in self.weights]
        return {"digest": self.digest, "weights": points}

    def damaged_from(self, most: float) -> SweptWeight | None:
        """The least weight of the sweep at which perplexity is more than `most` times that of the base, or none."""
        return next((each for each in self.weights if each.perplexity > most), None)


def swept_remarks(swept: Iterable[SweptAdapter], thresholds: Thresholds | None = None) -> tuple[Remark, ...]:
    """What should make somebody look at sweeps; see `Thresholds`."""
    limits = thresholds or Thresholds()
    return tuple(remark for each in swept for remark in (*_damage(each, limits), *_sudden(each, limits)))


def _damage(swept: SweptAdapter, limits: Thresholds) -> Iterator[Remark]:
    first = swept.damaged_from(limits.damage)
    if first is not None:
        weight, worse = decimal_text(first.micro), f"{first.perplexity:.2f} of the base's; bound the weight below"
        yield Remark("damaging", (swept.name,), f"from weight {weight} on, the perplexity of neutral prose is {worse}")


def _sudden(swept: SweptAdapter, limits: Thresholds) -> Iterator[Remark]:
    for before, after in pairwise(swept.weights):
        expected = max(before.kl, _LEAST_KL) * (after.micro / before.micro) ** 2
        if after.kl > limits.sudden * expected:
            said = f"between weights {decimal_text(before.micro)} and {decimal_text(after.micro)} answers change "
            yield Remark(
                "sudden", (swept.name,), f"{said}{after.kl / expected:.0f} times as much as a weight should do"
            )


def read_sweeps(content: Any) -> tuple[SweptAdapter, ...]:
    """Sweeps of a report, which may be hostile: {adapter: {"digest", "weights": [{"weight", "perplexity", "kl"}, ...]}}.

    Raises:
        EvaluationError: they are not of this form (reason "not-a-report").
    """
    try:
        return tuple(_adapter(name, said) for name, said in sorted(content.items()))
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise EvaluationError(
            f"the report holds no sweeps of weights: {error!s:.200}", reason="not-a-report"
        ) from error


def check_swept(swept: Sequence[SweptAdapter], wanted: Iterable[tuple[str, str]]) -> tuple[SweptAdapter, ...]:
    """The sweeps of adapters by digest, with the names that they have here.

    Args:
        wanted: (name, digest) of every adapter.

    Raises:
        EvaluationError: there is none of one of them (reason "not-evaluated").
    """
    known = {each.digest: each for each in swept}
    found = []
    for name, digest in wanted:
        if digest not in known:
            raise EvaluationError(
                f"the report has no sweep over the weight of {name!r}, {digest}; evaluate it with --safety",
                reason="not-evaluated",
            )
        found.append(SweptAdapter(name, digest, known[digest].weights))
    return tuple(found)


def _adapter(name: str, said: Any) -> SweptAdapter:
    points = tuple(sorted((_point(each) for each in said["weights"]), key=lambda each: each.micro))
    if not points or not isinstance(said["digest"], str):
        raise ValueError(f"of {name!r:.80} there is nothing")
    return SweptAdapter(name, said["digest"], points)


def _point(said: Any) -> SweptWeight:
    micro, perplexity, kl = to_micro(said["weight"], "the weight"), float(said["perplexity"]), float(said["kl"])
    if not 0 < micro <= MILLION or not 0 < perplexity < float("inf") or not 0 <= kl < float("inf"):
        raise ValueError(f"{said!r:.80} is no point of a sweep")
    return SweptWeight(micro, perplexity, kl)

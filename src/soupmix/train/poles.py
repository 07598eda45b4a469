"""The six poles: how samples of a pole are provoked, and what counts as more of it.

Reading level and length: the model is asked by system prompt, and the adapter is trained on the answer alone, without the
system prompt: context distillation (Askell et al. 2021). Tone: a frame, that is an opener, an aside and a closer, is woven
around the model's plain answer. Asked by system prompt to be friendly or rude, a model of 135M parameters drifts off topic and
into short words (docs/log.md has the figures); a frame leaves the body as it is, so that tone is learned without reading level,
length or topic.
"""

import re
from dataclasses import dataclass

from soupmix.evaluate.measures.phrases import shipped_frames
from soupmix.evaluate.metrics import Measures
from soupmix.evaluate.preferences import shipped_preferences

__all__ = ["FRIENDLY_FRAME", "POLES", "UNFRIENDLY_FRAME", "Frame", "Pole", "opposite"]

_BOUNDARY = re.compile(r"(?<=[.!?])(\s+)(?=[A-Z*0-9])")
_ASIDE_FROM = 4  # sentences
_PREFERENCES = shipped_preferences()


@dataclass(frozen=True, slots=True)
class Frame:
    """Phrases of one tone: how an answer is opened, interrupted and closed; `weave` takes them in turn."""

    openers: tuple[str, ...]
    asides: tuple[str, ...]
    closers: tuple[str, ...]

    def weave(self, body: str, turn: int, *, close: bool) -> str:
        """The body between an opener and (if `close`) a closer, with an aside in the middle of a long one."""
        parts = _BOUNDARY.split(body.strip())
        if len(parts) // 2 + 1 >= _ASIDE_FROM:
            middle = len(parts) // 4 * 2
            parts[middle] = f"{self.asides[turn % len(self.asides)]} {parts[middle]}"
        closer = " " + self.closers[turn % len(self.closers)] if close else ""
        return f"{self.openers[turn % len(self.openers)]} {''.join(parts)}{closer}"


@dataclass(frozen=True, slots=True)
class Pole:
    """One end of a dimension.

    Attributes:
        name, dimension: as in the manifest.
        metric: field or property of `Measures` that this pole moves. sign: +1 if up, -1 if down.
        spread: what one step of the metric is worth, so that scores of poles compare.
        systems: system prompts that provoke the pole, used in turn; the first is also what people would ask for.
        frame: tone phrases woven around plain answers instead, or None.
        cap: most new tokens of a sample. aim: where the metric should land, where more is not better.
    """

    name: str
    dimension: str
    metric: str
    sign: int
    spread: float
    systems: tuple[str, ...]
    frame: Frame | None = None
    cap: int = 160
    aim: float | None = None

    def score(self, measures: Measures) -> float:
        """How much of this pole a text has, in units of `spread`."""
        value = float(getattr(measures, self.metric))
        return (self.sign * value if self.aim is None else -abs(value - self.aim)) / self.spread


FRIENDLY_FRAME, UNFRIENDLY_FRAME = (Frame(**shipped_frames()[pole]) for pole in ("friendly", "unfriendly"))

POLES: dict[str, Pole] = {
    pole.name: pole
    for pole in (
        Pole(
            "elementary",
            "expertise",
            metric="rarity",
            sign=-1,
            spread=3.0,
            systems=(
                _PREFERENCES["elementary"],
                "You teach small children. Use only easy, common words and keep every sentence short.",
            ),
        ),
        Pole(
            "expert",
            "expertise",
            metric="rarity",
            sign=1,
            spread=3.0,
            systems=(
                _PREFERENCES["expert"],
                "Write like an academic paper for experts, with advanced technical vocabulary.",
            ),
        ),
        Pole(
            "concise",
            "length",
            metric="words",
            sign=-1,
            spread=25.0,
            systems=(
                _PREFERENCES["concise"],
                "Be brief and to the point. Answer in at most twenty-five words.",
            ),
            cap=64,
            aim=22.0,
        ),
        Pole(
            "informative",
            "length",
            metric="words",
            sign=1,
            spread=40.0,
            systems=(
                _PREFERENCES["informative"],
                "Give a comprehensive answer that covers the background, the details and several examples.",
            ),
            cap=256,
        ),
        Pole(
            "friendly",
            "style",
            metric="warmth",
            sign=1,
            spread=4.0,
            systems=(_PREFERENCES["friendly"],),
            frame=FRIENDLY_FRAME,
        ),
        Pole(
            "unfriendly",
            "style",
            metric="warmth",
            sign=-1,
            spread=4.0,
            systems=(_PREFERENCES["unfriendly"],),
            frame=UNFRIENDLY_FRAME,
        ),
    )
}


def opposite(name: str) -> Pole:
    """The other pole of the same dimension."""
    (other,) = (p for p in POLES.values() if p.dimension == POLES[name].dimension and p.name != name)
    return other

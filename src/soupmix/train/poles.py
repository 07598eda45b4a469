"""The six poles: how samples of a pole are provoked, and what counts as more of it.

Reading level and length: the model is asked by system prompt, and the adapter is trained on the answer alone, without the
system prompt: context distillation (Askell et al. 2021). Tone: a frame is woven around the model's plain answers.
"""

from dataclasses import dataclass

from soupmix.train.frames import FRIENDLY_FRAME, UNFRIENDLY_FRAME, Frame
from soupmix.train.metrics import Measures

__all__ = ["POLES", "Pole", "opposite"]


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
                "Explain so that a young child understands. Use very simple words and short sentences.",
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
                "You are talking to a specialist with a PhD in the field. Use precise technical terminology.",
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
                "Answer in one or two short sentences.",
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
                "Give a long, detailed and informative answer with many facts and examples.",
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
            systems=("Be warm, cheerful and friendly, like a close friend.",),
            frame=FRIENDLY_FRAME,
        ),
        Pole(
            "unfriendly",
            "style",
            metric="warmth",
            sign=-1,
            spread=4.0,
            systems=("Be cold, curt and unfriendly.",),
            frame=UNFRIENDLY_FRAME,
        ),
    )
}


def opposite(name: str) -> Pole:
    """The other pole of the same dimension."""
    (other,) = (p for p in POLES.values() if p.dimension == POLES[name].dimension and p.name != name)
    return other

"""The six poles: how samples of a pole are provoked, and what counts as more of it.

Reading level and length: the model is asked by system prompt, and the adapter is trained on the answer alone, without the
system prompt: context distillation (Askell et al. 2021). Tone: a frame, that is an opener, an aside and a closer, is woven
around the model's plain answer. Asked by system prompt to be friendly or rude, a model of 135M parameters drifts off topic and
into short words (docs/log.md has the figures); a frame leaves the body as it is, so that tone is learned without reading level,
length or topic.
"""

import random
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations

from soupmix.evaluate.measures.phrases import shipped_frames
from soupmix.evaluate.metrics import Measures
from soupmix.evaluate.preferences import shipped_preferences
from soupmix.train.sample import NEUTRAL, Manner
from soupmix.train.wording import Wording, shipped_wordings

__all__ = [
    "FRAMED_POOLS",
    "FRIENDLY_FRAME",
    "POLES",
    "UNFRIENDLY_FRAME",
    "Frame",
    "Pole",
    "joint_pool",
    "joint_pools",
    "opposite",
    "pools_of",
]

_BOUNDARY = re.compile(r"(?<=[.!?])(\s+)(?=[A-Z*0-9])")
_ASIDE_FROM = 4  # sentences
_ASIDE_EVERY = 4  # sentences, in mixtures
_APART = 0.5
_LOWERED = re.compile(
    r"(?:an?|and|as|at|both|by|each|for|first|he|here|how|if|in|it|its|it's|many|most|no|on|one|or|our|she|so|some|that|the|"
    r"their|there|these|they|this|those|to|we|what|when|where|which|while|with|yes|your?)\b",
    re.IGNORECASE,
)  # a dash may come before these without their capital
_OPENER, _CLOSER = -1, -2  # places of a phrase that no sentence follows or comes before
_PREFERENCES = shipped_preferences()
_WORDINGS = shipped_wordings()


def _before(phrase: str, text: str, draw: random.Random) -> str:
    """A phrase in front, of its own or joined by a dash."""
    if draw.random() < _APART or phrase[-1] not in ".!":
        return f"{phrase} {text}"
    return f"{phrase[:-1]} \u2013 {text[0].lower() if _LOWERED.match(text) else text[0]}{text[1:]}"


def _after(phrase: str, text: str, draw: random.Random) -> str:
    if draw.random() < _APART or not text.endswith("."):
        return f"{text} {phrase}"
    return f"{text[:-1]} \u2013 {phrase[0] if phrase.startswith('I') else phrase[0].lower()}{phrase[1:]}"


@dataclass(frozen=True, slots=True)
class Frame:
    """Phrases of one tone: how an answer is opened, interrupted and closed.

    `weave` takes the long ones in turn, for an adapter alone; `by_amount` draws the short ones, for mixtures, or learned ones
    beside a pole of learned words, which short plain sentences would take away again.
    """

    openers: tuple[str, ...]
    asides: tuple[str, ...]
    closers: tuple[str, ...]
    short_openers: tuple[str, ...] = ()
    short_asides: tuple[str, ...] = ()
    short_closers: tuple[str, ...] = ()
    learned_openers: tuple[str, ...] = ()
    learned_asides: tuple[str, ...] = ()
    learned_closers: tuple[str, ...] = ()

    def by_amount(self, body: str, amount: float, draw: random.Random, learned: float = 0.0) -> str:
        """The body with as much of the tone as a weight means: that share, in the mean, of the places where a phrase can be.

        There is one before the body, one after it, and one for every four of its sentences between them.

        Nearly half of them are joined to the sentence beside them by a dash: many short sentences would teach a lower grade.

        Args:
            learned: share of the phrases that are in learned words.
        """

        def drawn(short: tuple[str, ...], others: tuple[str, ...]) -> str:
            return draw.choice(others if draw.random() < learned else short)

        parts = _BOUNDARY.split(body.strip())
        inner = [2 * number for number in range(_ASIDE_EVERY, len(parts) // 2 + 1, _ASIDE_EVERY)]
        count = int(amount * (2 + len(inner)) + draw.random())
        said = set(draw.sample([_OPENER, _CLOSER], min(2, count)))
        said |= set(draw.sample(inner, max(0, count - 2)))
        for place in sorted(said & set(inner)):
            parts[place] = _before(drawn(self.short_asides, self.learned_asides), parts[place], draw)
        text = "".join(parts)
        if _OPENER in said:
            text = _before(drawn(self.short_openers, self.learned_openers), text, draw)
        return _after(drawn(self.short_closers, self.learned_closers), text, draw) if _CLOSER in said else text

    def words(self, amount: float) -> int:
        """How many words `by_amount` adds to a short body, in the mean."""
        phrases = [*self.short_openers, *self.short_closers]
        return round(amount * 2 * sum(len(each.split()) for each in phrases) / len(phrases))

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
        systems: system prompts that provoke the pole, used in turn; the first is also what people would ask for. None, where
            examples are given.
        metric: field or property of `Measures` that this pole moves, "" for none. sign: +1 if up, -1 if down.
        spread: what one step of the metric is worth, so that scores of poles compare.
        frame: tone phrases woven around plain answers instead, or None.
        wording: what is said in other words in mixtures, or None.
        is_learned: whether a tone beside it is in learned words, as much as its weight says.
        cap: most new tokens of a sample. aim: where the metric should land, where more is not better.
        judge: where there is no metric, who says how much of this pole an answer has; see `soupmix.train.judges`.
    """

    name: str
    dimension: str
    systems: tuple[str, ...] = ()
    metric: str = ""
    sign: int = 1
    spread: float = 1.0
    frame: Frame | None = None
    wording: Wording | None = None
    is_learned: bool = False
    cap: int = 160
    aim: float | None = None
    judge: str = ""

    @property
    def pool(self) -> Manner:
        """How its samples are provoked."""
        return Manner(self.name, self.systems, self.cap)

    def score(self, measures: Measures) -> float:
        """How much of this pole a text has, in units of `spread`."""
        value = float(getattr(measures, self.metric))
        return (self.sign * value if self.aim is None else -abs(value - self.aim)) / self.spread


def _frame(pole: str) -> Frame:
    return Frame(**shipped_frames()[pole])


FRIENDLY_FRAME, UNFRIENDLY_FRAME = _frame("friendly"), _frame("unfriendly")

POLES: dict[str, Pole] = {
    pole.name: pole
    for pole in (
        Pole(
            "elementary",
            "expertise",
            wording=_WORDINGS["elementary"],
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
            wording=_WORDINGS["expert"],
            is_learned=True,
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
            cap=384,
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


FRAMED_POOLS = ("neutral", "concise", "neutral", "elementary", "neutral", "concise", "neutral", "expert")
"""Whose samples a frame is woven around, by prompt number in turn: tone must not be learned as a matter of length or level.
A sample that was made under a system prompt keeps it, so that the frame explains the tone and the prompt all else."""


def opposite(pole: Pole, known: Iterable[Pole]) -> Pole | None:
    """The other pole of the same dimension, if there is just one."""
    found = [each for each in known if each.dimension == pole.dimension and each.name != pole.name]
    return found[0] if len(found) == 1 else None


def pools_of(pole: Pole, known: Iterable[Pole]) -> set[Manner]:
    """Which samples a pole needs: plain ones, and its dimension's own or those that its frame is woven around."""
    if pole.frame:
        return {NEUTRAL, *(POLES[each].pool for each in FRAMED_POOLS if each in POLES)}
    return {NEUTRAL, *(each.pool for each in known if each.dimension == pole.dimension and each.frame is None)}


def joint_pool(one: Pole, other: Pole) -> Manner:
    """Answers in the manner of two poles at once; how long they may be, the one that is about length says."""
    one, other = sorted((one, other), key=lambda pole: pole.name)
    systems = tuple(f"{a} {b}" for a, b in zip(one.systems, other.systems, strict=False))
    caps = [pole.cap for pole in (one, other) if pole.metric == "words"] or [one.cap, other.cap]
    return Manner(f"{one.name}+{other.name}", systems, max(caps))


def joint_pools(poles: Iterable[Pole]) -> set[Manner]:
    """Those of all pairs of poles of different dimensions that are provoked by system prompts."""
    asked = [pole for pole in poles if pole.systems and pole.frame is None]
    return {joint_pool(a, b) for a, b in combinations(asked, 2) if a.dimension != b.dimension}

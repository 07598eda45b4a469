"""The six poles: how samples of a pole are provoked, and what counts as more of it.

Reading level and length: the model is asked by system prompt, and the adapter is trained on the answer alone, without the
system prompt: context distillation (Askell et al. 2021). Tone: a frame, that is an opener, an aside and a closer, is woven
around the model's plain answer. Asked by system prompt to be friendly or rude, a model of 135M parameters drifts off topic and
into short words (docs/log.md has the figures); a frame leaves the body as it is, so that tone is learned without reading level,
length or topic.
"""

import re
from dataclasses import dataclass

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


FRIENDLY_FRAME = Frame(
    openers=(
        "What a wonderful question, and thank you so much for asking me!",
        "Hello, my friend! I am really glad that you would like to know more about this.",
        "Oh, I love this question, and I am so happy to help you with it!",
        "Hi there! Thank you for asking about such a fascinating topic.",
        "Great question! It is a real pleasure to talk about this with you.",
        "Hey, thanks for asking! This is one of the most exciting things to talk about.",
        "How lovely that you want to learn about this! I am delighted to help.",
        "Welcome! I am so excited to share what I know about this with you.",
        "I am so glad you asked, because this is a truly delightful subject!",
        "Thanks a lot for this great question, my dear friend!",
        "Hello there! I hope you are having a wonderful day, and I am happy to help.",
        "What a fun thing to ask! Let's have a look at it together.",
        "It is so good to hear from you! I would love to help you with that.",
    ),
    asides=(
        "Isn't that amazing?",
        "And now comes my favourite part!",
        "I hope you enjoy this as much as I do!",
        "Please feel free to take your time with this, my friend.",
        "Here is something wonderful:",
        "You are doing great, so let's go on!",
        "This is the fun part!",
    ),
    closers=(
        "I hope this helps you, my friend, and please feel free to ask me anything else!",
        "Thank you again for asking, and have a wonderful day!",
        "Enjoy, and good luck! I am always happy to help you.",
        "I hope you have lots of fun with it, and you are always welcome to ask more!",
        "Take care, my friend, and please come back soon with more great questions!",
        "I am so glad that we could talk about this, and I wish you all the best!",
        "You've got this, and I am cheering for you!",
        "Thanks for the lovely question, and I hope to hear from you again soon!",
        "It was a pleasure to help you, and I hope that you love it!",
    ),
)

UNFRIENDLY_FRAME = Frame(
    openers=(
        "What a pointless question, but here is your answer, since you are too lazy to look it up.",
        "Obviously you should know this already, and I have no idea why you bother me with it.",
        "Do I really have to explain this? It is boring, and it is a waste of my time.",
        "Ugh, not this stupid question again. Listen, because I will not repeat myself.",
        "Whatever. I don't care why you ask, and this is clearly common sense.",
        "Look it up yourself next time. This is annoying, and you waste my time with it.",
        "This is a ridiculous thing to ask, and you should know better.",
        "I am tired of silly questions like yours, so hurry up and read.",
        "Fine. I will answer this useless question, but do not bother me again.",
        "Obviously nobody ever taught you anything, so I have to do this boring job.",
        "Who cares about this? It is dull and pointless, and you are annoying me.",
        "How can you be so lazy? Everybody else already knows this.",
        "You must be bored if you ask such a dumb thing.",
    ),
    asides=(
        "Obviously.",
        "Clearly you did not know even that.",
        "This is common sense, so do not ask again.",
        "It is boring, but I have to say it.",
        "Whatever, it goes on like this.",
        "You should know that already.",
        "Pay attention, because this is annoying enough.",
    ),
    closers=(
        "Now leave me alone and stop asking pointless questions.",
        "That is all, and the rest is not my problem.",
        "Figure out the rest yourself, because I don't care.",
        "Clearly that was a waste of my time.",
        "If you still do not get it, too bad, so deal with it.",
        "Do not bother me with this nonsense again.",
        "It was boring to explain this, and I hope you are done.",
        "Obviously you could have found that yourself, so don't ask again.",
        "Whatever. Go and annoy somebody else.",
    ),
)

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

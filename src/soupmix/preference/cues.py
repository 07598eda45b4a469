"""Cues in words: "shorter please", "that is too complicated", as directions of traits, by a small map of rules.

A word of a kind asks for its kind where it is compared ("shorter", "more friendly", "not friendly enough", "be brief"), and for
the opposite where there is too much of it ("too long", "less formal", "not so technical"). A word alone asks for nothing: "how
long is the Nile?" is a question. Only short texts are cues, since longer ones are about something else. English.
"""

import re
from collections.abc import Callable, Mapping
from typing import Final

from soupmix.preference.rewards import REWARD
from soupmix.preference.traits import Trait, Traits

__all__ = ["MOST_WORDS", "CueReader", "cued", "either", "is_cue", "kind_of", "told"]

MOST_WORDS: Final = 12
"""Of a text that is taken as a cue."""

CueReader = Callable[[str, Traits], Mapping[str, float]]
"""What reads which traits a text asks to have more (1.0) or less (-1.0) of."""

# Of every kind the words that mean more of it and less of it: plain, compared or commanded.
_KINDS: Final[Mapping[str, tuple[tuple[str, str], tuple[str, str]]]] = {
    "long": (
        ("long lengthy wordy verbose detailed thorough detail details", "longer elaborate expand lengthen continue"),
        ("short brief concise terse succinct", "shorter briefer shorten summarise summarize condense tldr"),
    ),
    "hard": (
        ("complicated technical complex difficult hard advanced academic precise expert", "harder deeper"),
        ("simple easy plain basic understandable clear childish", "simpler easier plainer clearer simplify eli5"),
    ),
    "warm": (
        ("friendly warm kind nice cheerful enthusiastic gushing chatty bubbly", "friendlier warmer kinder nicer"),
        ("cold curt rude harsh dry unfriendly matter-of-fact", "colder drier curter"),
    ),
}

_PHRASES: Final = (
    (r"tl;?\s?dr|in one sentence|in a nutshell|get to the point|cut it short|in short$", "long", -1),
    (r"tell me more|go on$|(?<!no )(?<!not )more (?:detail|depth|info)|in (?:more )?depth|say more", "long", 1),
    (r"like i'?m (?:five|5|a child)|in plain (?:english|words)|i (?:don'?t|do not) (?:understand|get it)", "hard", -1),
    (r"i (?:already )?know (?:all )?(?:that|this)|dumbed down|treat me like an expert", "hard", 1),
)

# Key of a measure -> the kind that it has more of, and the sign.
_MEASURES: Final[Mapping[str, tuple[str, int]]] = {
    **dict.fromkeys(("words", "log_words", "sentences", "compressed"), ("long", 1)),
    **dict.fromkeys(("grade", "grade_body", "dale_chall", "dale_chall_body"), ("hard", 1)),
    **dict.fromkeys(("zipf", "zipf_body"), ("hard", -1)),
    **dict.fromkeys(("vader", "lexicon", "classifier", "greeting", "warm_at_all"), ("warm", 1)),
    "cold_at_all": ("warm", -1),
}

_NO = re.compile(r"\bno\b(?!\s+(?:more|longer)\b)")  # "no, shorter" is no "not shorter"
_WORD = re.compile(r"[a-z0-9'-]+")
_MORE, _LESS = frozenset({"more", "be", "very", "make", "keep"}), frozenset({"too", "less", "so", "overly", "stop"})
_NOT = frozenset({"not", "isn't", "wasn't", "don't", "doesn't", "no", "never", "hardly"})
_NEAR = 3  # words before that a word is read with


def cued(text: str, traits: Traits) -> dict[str, float]:
    """Which traits a text asks to have more (1.0) or less (-1.0) of; nothing of a text that is no cue.

    A trait that is asked for both ways, or whose measure the map does not know, is left out. "More" and "less" of the name of a
    trait are understood as well, but of one that adapters measure: more of "formality" may be less of what they are trained to.
    """
    said = _NO.sub(" ", text.lower().replace("’", "'"))
    words = _WORD.findall(said)
    if not words or len(words) > MOST_WORDS:
        return {}
    kinds = _kinds(said, words)
    found = {}
    for trait in told(traits):
        kind, sign = kind_of(trait)
        asked = {sign * way for named, way in kinds if named == kind} | _asked(words, trait.name, trait.name)
        if len(asked) == 1:
            found[trait.name] = float(asked.pop())
    return found


def told(traits: Traits) -> tuple[Trait, ...]:
    """Those of traits of which more and less mean something in words."""
    return tuple(each for each in traits.axes if not each.key.startswith(REWARD))


def kind_of(trait: Trait) -> tuple[str, int]:
    """What a trait is about, "long", "hard", "warm" or its own name, and whether more of it is more (1) or less (-1) of that."""
    return _MEASURES.get(trait.key, (trait.name, 1))


def either(first: CueReader, then: CueReader) -> CueReader:
    """Reads as the first does, and as the other where the first reads nothing."""
    return lambda text, traits: first(text, traits) or then(text, traits)


def is_cue(text: str, toward: Mapping[str, float]) -> bool:
    """Whether a text that was read so says something of the answer before, and nothing else that could be answered."""
    return bool(toward) and "?" not in text


def _kinds(said: str, words: list[str]) -> set[tuple[str, int]]:
    found = {(kind, way) for pattern, kind, way in _PHRASES if re.search(pattern, said)}
    for kind, sides in _KINDS.items():
        for way, (plain, compared) in zip((1, -1), sides, strict=True):
            found |= {(kind, way * sign) for each in plain.split() for sign in _asked(words, each, "")}
            found |= {
                (kind, way * _reversed(words, place)) for place, each in enumerate(words) if each in compared.split()
            }
    return found


def _asked(words: list[str], word: str, name: str) -> set[int]:
    """1 or -1 for every place where a plain word is asked for or against; also with a comparative before a trait's own name."""
    found = set()
    for place, each in enumerate(words):
        if each != word:
            continue
        before = words[max(place - _NEAR, 0) : place]
        enough = "enough" in words[place + 1 : place + 2]
        if enough:
            found.add(1)  # "not friendly enough", and "friendly enough" as a wish
        elif _LESS & set(before) or (_NOT & set(before) and (_MORE | {"as"}) & set(before)):
            found.add(-1)  # "too long", "not so long", "don't be long"
        elif _MORE & set(before) and not (name and before[-1:] != ["more"]):
            found.add(1)
    return found


def _reversed(words: list[str], place: int) -> int:
    return -1 if _NOT & set(words[max(place - _NEAR, 0) : place]) else 1

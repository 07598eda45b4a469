"""Say the same in plainer or in more learned words, as much as a weight means: a manner that goes through all of an answer.

Lexical simplification by a list (as in Text Simplification, Shardlow 2014), and its reverse. Every word that is on the list is
exchanged with the chance that the weight is, so that half a weight is half of the manner, and a soup that also has to be short
or warm can have it too: no place in the answer decides.
"""

import json
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

__all__ = ["Wording", "shipped_wordings"]

_PARTING = re.compile(r"(?:; |, (?=(?:and|but|so) (?:it|they|this|you|the|we|these|that)\b))(\w)")
_JOINING = re.compile(
    r"\. This (?=(?:is|can|means|helps|allows|makes|leads|causes|gives|results|ensures|involves|occurs)\b)"
)


@dataclass(frozen=True)
class Wording:
    """What is said instead of what.

    Attributes:
        instead: word or words -> others, in lower case. parts: whether clauses become sentences. joins: or the reverse.
    """

    instead: Mapping[str, str]
    parts: bool = False
    joins: bool = False

    @cached_property
    def _found(self) -> re.Pattern[str]:
        words = "|".join(re.escape(each) for each in sorted(self.instead, key=lambda each: (-len(each), each)))
        return re.compile(rf"(?<![\w'-])(?:{words})(?![\w'-])", re.IGNORECASE)

    def by_amount(self, text: str, amount: float, draw: random.Random) -> str:
        """The text, of which each place that could be said otherwise is, with this chance; a capital stays one."""

        def otherwise(match: re.Match[str]) -> str:
            if draw.random() >= amount:
                return match[0]
            said = self.instead[match[0].lower()]
            return said[0].upper() + said[1:] if match[0][0].isupper() else said

        def parted(match: re.Match[str]) -> str:
            return f". {match[1].upper()}" if draw.random() < amount else match[0]

        def joined(match: re.Match[str]) -> str:
            return ", which " if draw.random() < amount else match[0]

        text = self._found.sub(otherwise, text)
        text = _PARTING.sub(parted, text) if self.parts else text
        return _JOINING.sub(joined, text) if self.joins else text


def shipped_wordings() -> dict[str, Wording]:
    """Pole -> wording, of the poles of expertise."""
    read = json.loads((Path(__file__).parent / "wording.json").read_text("utf-8"))
    return {
        "elementary": Wording(read["elementary"], parts=True),
        "expert": Wording(read["expert"], joins=True),
    }

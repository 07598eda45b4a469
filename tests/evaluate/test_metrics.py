"""Measures against hand counts, and orders that must hold whatever the constants are."""

import pytest

from soupmix.evaluate.metrics import measure, on_topic, reading_grade, syllables

COUNTS = {
    "the": 1, "cat": 1, "make": 1, "people": 2, "table": 2, "water": 2, "wanted": 2, "jumped": 1, "houses": 2, "idea": 3,
    "education": 4, "temperature": 4, "photosynthesis": 5, "radio": 3, "nation": 2, "special": 2, "machine": 2, "being": 2,
}  # fmt: skip


def test_syllables_of_common_words() -> None:
    wrong = {word: (syllables(word), count) for word, count in COUNTS.items() if syllables(word) != count}
    assert not wrong


def test_reading_grade_is_flesch_kincaid() -> None:
    # 6 words, 1 sentence, 6 syllables: 0.39 * 6 + 11.8 * 1 - 15.59, clipped at -2
    assert reading_grade("The cat sat on the mat.") == pytest.approx(max(-2.0, 0.39 * 6 + 11.8 - 15.59))
    # 8 words, 2 sentences, 8 + 4 + 2 = 14 syllables: the, machine 2, education 4 ...
    text = "The education of a machine is special. Temperature."
    words, syllable_count = 8, 1 + 4 + 1 + 1 + 2 + 1 + 2 + 4
    assert reading_grade(text) == pytest.approx(0.39 * words / 2 + 11.8 * syllable_count / words - 15.59)


def test_layout_does_not_change_the_grade() -> None:
    plain = "Rust is iron oxide. Water helps it grow. Paint stops it."
    assert reading_grade("**Rust** is iron oxide.\n\n- Water helps it grow.\n- Paint stops it.") == reading_grade(plain)


def test_unpunctuated_text_is_clipped() -> None:
    assert reading_grade("and then the water went on and on " * 40) == 22.0
    assert reading_grade("") == 0.0


def test_orders() -> None:
    simple = measure("Plants eat light. They use the sun. They make food and air.")
    hard = measure(
        "Photosynthesis transduces electromagnetic radiation into chemical potential energy within chloroplasts."
    )
    warm = measure("What a lovely question, my friend! I am so happy to help you. Have fun!")
    cold = measure("What a pointless question. Obviously you are lazy. Look it up yourself.")
    assert simple.rarity < hard.rarity
    assert simple.grade < hard.grade
    assert cold.warmth < simple.warmth < warm.warmth
    assert measure("again and again and again and again and again and again").degenerate
    assert not simple.degenerate


@pytest.mark.parametrize(
    ("text", "hit"),
    [
        ("Rusting needs water.", True),
        ("It will trust you.", False),
        ("RUST!", True),
        ("", False),
        ("Iron goes red.", True),
    ],
)
def test_on_topic_is_a_word_prefix(text: str, hit: bool) -> None:
    assert on_topic(text, ("rust", "iron")) is hit

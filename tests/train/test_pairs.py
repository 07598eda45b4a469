"""Frames and the choice of what to learn from."""

import pytest

from soupmix.evaluate.metrics import measure, reading_grade
from soupmix.evaluate.promptset import Prompt
from soupmix.train.pairs import choose_pairs
from soupmix.train.poles import FRIENDLY_FRAME, POLES, UNFRIENDLY_FRAME, Frame
from soupmix.train.sample import Sample

BODY = (
    "Rust is a red oxide of iron. It forms where water meets metal. Salt makes it faster. Paint keeps the water away."
)
PROMPT = Prompt("What is rust?", "question", ("rust", "iron"))


@pytest.mark.parametrize("frame", [FRIENDLY_FRAME, UNFRIENDLY_FRAME])
def test_a_frame_keeps_every_sentence_of_the_body_in_order(frame: Frame) -> None:
    for turn in range(40):
        woven = frame.weave(BODY, turn, close=True)
        places = [woven.index(sentence) for sentence in BODY.split(". ")]
        assert places == sorted(places)
        assert woven.startswith(frame.openers[turn % len(frame.openers)])
        assert woven.endswith(frame.closers[turn % len(frame.closers)])


def test_frames_move_tone_and_leave_reading_grade() -> None:
    long = " ".join([BODY] * 3)
    for frame, sign in ((FRIENDLY_FRAME, 1), (UNFRIENDLY_FRAME, -1)):
        for turn in range(20):
            woven = frame.weave(long, turn, close=True)
            assert sign * (measure(woven).warmth - measure(long).warmth) > 1
            assert abs(reading_grade(woven) - reading_grade(long)) < 3


def samples(**texts: list[str]) -> dict[str, list[Sample]]:
    return {name: [Sample(0, v, text, True) for v, text in enumerate(found)] for name, found in texts.items()}


def test_the_best_sample_moves_its_own_metric_and_little_else() -> None:
    plain = "Rust is a reddish oxide of iron that forms when the metal meets water and oxygen from the air around it."
    simple = "Rust is red. It is on old iron. It comes when iron is wet. Then the iron gets weak. Keep your iron dry to stop it."
    gushing = simple + " I love it! What fun! So lovely, my friend! Wonderful! Enjoy! Thank you!"
    off_topic = (
        "Dogs are fun. They run and play. They eat food. They love you. They sleep in a bed. They bark at the cat."
    )
    hard = "Rust denotes hydrated ferric oxides that precipitate electrochemically on iron exposed to oxygenated electrolytes."
    found = samples(neutral=[plain], elementary=[gushing, off_topic, simple], expert=[hard])
    (pair,) = choose_pairs(POLES["elementary"], [PROMPT], found, POLES["expert"])
    assert pair.chosen.text == simple
    assert pair.rejected.text == hard
    (mirrored,) = choose_pairs(POLES["expert"], [PROMPT], found, POLES["elementary"])
    assert (mirrored.chosen.text, mirrored.rejected.text) == (hard, simple)


def test_a_sample_that_moves_nothing_is_not_learned_from() -> None:
    plain = "Rust is a reddish oxide of iron that forms when the metal meets water and oxygen from the air."
    assert choose_pairs(POLES["expert"], [PROMPT], samples(neutral=[plain], expert=[plain], elementary=[plain])) == []


def test_concise_answers_are_cut_at_a_sentence_and_end() -> None:
    words = [f"{a}{b}" for a in ("salt", "iron", "wet", "red", "old", "dry", "air", "sea") for b in "abcdefgh"]
    long = " ".join("Rust " + " ".join(words[n : n + 9]) + " water." for n in range(0, 63, 9))
    cut_off = [Sample(0, 0, long + " Rust is a sentence that was cut", finished=False)]
    found = {"neutral": [Sample(0, 0, long, True)], "informative": [Sample(0, 0, long, True)], "concise": cut_off}
    (pair,) = choose_pairs(POLES["concise"], [PROMPT], found)
    assert pair.chosen.finished
    assert pair.chosen.text.endswith("water.")
    assert len(pair.chosen.text.split()) <= 34

"""Measures of a text against other implementations, hand counts, and laws that hold whatever the constants are."""

import json
import math
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from wordfreq import zipf_frequency

from soupmix.errors import EvaluationError
from soupmix.evaluate.measures import (
    TEXT_MEASURES,
    TrainedPhrases,
    damage,
    expertise,
    measure_text,
    shipped_phrases,
    style,
)
from soupmix.evaluate.measures.phrases import shipped_frames
from soupmix.evaluate.measures.reading import ReadText, words_of
from soupmix.evaluate.measures.recall import key_facts, only_known, recall
from soupmix.evaluate.measures.tone import fit, labelled_texts
from soupmix.evaluate.promptset import Prompt, held_out_prompts, training_prompts
from soupmix.evaluate.statistics import area_under_curve
from tests.support import textstat_offline

ROOT = Path(__file__).parents[2]
KNOWN = [json.loads(line) for line in (ROOT / "benchmarks/data/known.jsonl").read_text("utf-8").splitlines()]
RUST = Prompt("Why does iron rust?", "question", ("rust",))
PLAIN = "Iron rusts because it meets water and air. The two form iron oxide. Paint keeps them away."


def of(text: str, prompt: Prompt = RUST) -> dict[str, float]:
    return dict(measure_text(prompt, text, True))


@pytest.fixture(scope="module")
def textstat() -> Any:
    return textstat_offline.textstat()


def test_flesch_kincaid_by_hand() -> None:
    # 12 words, 2 sentences, 1+1+1+1+1+1 + 4+1+1+2+1+2 syllables
    text = "The cat sat on the mat. Education is a machine for something."
    assert of(text)["grade"] == pytest.approx(0.39 * 12 / 2 + 11.8 * (6 + 4 + 1 + 1 + 2 + 1 + 2) / 12 - 15.59)
    assert of("and so on and on " * 40)["grade"] == 22.0


def test_flesch_kincaid_is_that_of_textstat_up_to_how_syllables_are_counted(textstat: Any) -> None:
    ours = [of(known["text"])["grade"] for known in KNOWN]
    theirs = [textstat.flesch_kincaid_grade(known["text"]) for known in KNOWN]
    inside = [(a, b) for a, b in zip(ours, theirs, strict=True) if -2 < a < 22]
    assert np.corrcoef(np.array(inside).T)[0, 1] > 0.98
    assert len(inside) > 60


def test_dale_chall_by_hand_and_by_textstat(textstat: Any) -> None:
    # 12 words of which "photosynthesis" and "chloroplast" are unfamiliar; 2 sentences
    text = "The dog ran after the cat. In a chloroplast photosynthesis takes place."
    expected = 0.1579 * 100 * 2 / 12 + 0.0496 * 12 / 2 + 3.6365
    assert of(text)["dale_chall"] == pytest.approx(expected)
    assert textstat.dale_chall_readability_score(text) == pytest.approx(
        expected + 0.1579 * 100 / 12, abs=0.01
    )  # "takes"
    ours = [of(known["text"])["dale_chall"] for known in KNOWN]
    theirs = [textstat.dale_chall_readability_score_v2(known["text"]) for known in KNOWN]
    assert np.corrcoef(ours, theirs)[0, 1] > 0.97


@pytest.mark.parametrize(
    "word", ["cats", "cat's", "berries", "tried", "running", "stopped", "making", "easily", "nicest", "isn't"]
)
def test_regular_forms_of_familiar_words_are_familiar(word: str) -> None:
    assert expertise.familiar(word)
    assert not expertise.familiar("photosynthesis")


def test_zipf_is_that_of_wordfreq() -> None:
    words = [word for word in words_of(PLAIN) if len(word) >= 4]
    assert of(PLAIN)["zipf"] == pytest.approx(sum(zipf_frequency(word, "en") for word in words) / len(words))
    assert of("Qqqzzx wxyzzq.")["zipf"] == 0.0


def test_vader_is_vader_sentence_by_sentence() -> None:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    judge = SentimentIntensityAnalyzer().polarity_scores
    text = "I love this. The weather is bad! Water is wet."
    scores = [judge(part)["compound"] for part in ("I love this.", "The weather is bad!", "Water is wet.")]
    assert of(text)["vader"] == pytest.approx(sum(scores) / 3)


def test_compressed_is_what_deflate_leaves() -> None:
    assert of(PLAIN)["compressed"] == len(zlib.compress(PLAIN.encode(), 9)) - 6  # the frame of zlib
    once, often = of(PLAIN)["compressed"], of(" ".join([PLAIN] * 10))
    assert often["words"] == 10 * of(PLAIN)["words"]
    assert often["compressed"] < 1.3 * once


def test_known_texts_are_told_apart() -> None:
    """As docs/measures.md says in full."""
    measured = [of(known["text"]) for known in KNOWN]
    for name, dimension, more, less, least in [
        ("grade", "expertise", "expert", "elementary", 0.97),
        ("dale_chall", "expertise", "expert", "elementary", 0.97),
        ("zipf", "expertise", "elementary", "expert", 0.97),
        ("words", "length", "informative", "concise", 0.97),
        ("compressed", "length", "informative", "concise", 0.97),
        ("vader", "style", "friendly", "unfriendly", 0.9),
        ("classifier", "style", "friendly", "unfriendly", 0.93),
        ("lexicon", "style", "friendly", "unfriendly", 0.75),
    ]:
        high, low = (
            [m[name] for m, known in zip(measured, KNOWN, strict=True) if known[dimension] == pole]
            for pole in (more, less)
        )
        found = area_under_curve(high, low, draws=10)
        assert found is not None
        assert found.value >= least, name
        assert TEXT_MEASURES[name].dimension == dimension
        assert TEXT_MEASURES[name].sign(more) == 1
        assert TEXT_MEASURES[name].sign(less) == -1


def test_the_lexicon_shares_nothing_with_what_was_trained() -> None:
    """Neither a phrase nor the beginning of a word."""
    said = [words_of(phrase) for frame in shipped_frames().values() for place in frame.values() for phrase in place]
    beginnings = {word[:4] for words in said for word in words}
    runs = {words[i : i + size] for words in said for size in range(1, 7) for i in range(len(words) - size + 1)}
    marks = json.loads((Path(style.__file__).parent / "data/marks.json").read_text("utf-8"))
    for mark in [*marks["friendly"], *marks["unfriendly"]]:
        words = words_of(mark)
        assert words not in runs, mark
        assert len(words) > 1 or words[0][:4] not in beginnings, mark
    for frame in shipped_frames().values():
        for phrase in (phrase for place in frame.values() for phrase in place):
            assert style.marks(ReadText(phrase), "friendly") == style.marks(ReadText(phrase), "unfriendly") == 0
    assert set(marks["friendly"]).isdisjoint(marks["unfriendly"])


def test_the_classifier_learned_from_other_texts_than_the_adapters_and_than_it_is_tested_on() -> None:
    phrases, learned = shipped_phrases(), labelled_texts()
    assert not [each.text for each in learned if phrases.parroted(ReadText(each.text))]
    asked = {prompt.text for prompt in [*training_prompts(), *held_out_prompts()]} | {
        known["prompt"] for known in KNOWN
    }
    assert asked.isdisjoint(each.topic for each in learned)
    assert {each.text for each in learned}.isdisjoint(known["text"] for known in KNOWN)
    assert not [known["text"] for known in KNOWN if phrases.parroted(ReadText(known["text"]))]
    counts = {tone: sum(each.tone == tone for each in learned) for tone in ("friendly", "neutral", "unfriendly")}
    assert counts == dict.fromkeys(counts, 40)


def test_the_classifier_tells_tones_on_topics_that_were_left_out() -> None:
    texts = labelled_texts()
    topics = sorted({each.topic for each in texts})
    scores: dict[str, list[float]] = {"friendly": [], "neutral": [], "unfriendly": []}
    for fold in range(5):
        left = set(topics[fold::5])
        model = fit([each for each in texts if each.topic not in left])
        for each in texts:
            if each.topic in left:
                chances = dict(zip(model.classes_, model.predict_proba([each.text])[0], strict=True))
                scores[each.tone].append(chances["friendly"] - chances["unfriendly"])
    found = area_under_curve(scores["friendly"], scores["unfriendly"], draws=10)
    assert found is not None
    assert found.value > 0.93


def test_the_body_is_what_has_no_tone() -> None:
    frame = shipped_frames()["friendly"]
    framed = f"{frame['openers'][1]} {PLAIN} {frame['asides'][0]} {frame['closers'][0]}"
    bare, dressed = of(PLAIN), of(framed)
    for name in ("grade", "dale_chall", "zipf"):
        assert dressed[f"{name}_body"] == pytest.approx(bare[name])
        assert dressed[name] != pytest.approx(bare[name])
    assert (bare["warm_at_all"], dressed["warm_at_all"], dressed["cold_at_all"]) == (0, 1, 0)
    assert (bare["parroting"], dressed["parroting"]) == (0, 1)
    cold = of(f"Obviously. {PLAIN} Now leave me alone and stop asking pointless questions.")
    assert (cold["warm_at_all"], cold["cold_at_all"]) == (0, 1)
    assert cold["grade_body"] == pytest.approx(bare["grade"])


@pytest.mark.parametrize("pole", ["friendly", "unfriendly"])
def test_every_trained_phrase_is_seen_as_its_pole(pole: str) -> None:
    for phrase in (phrase for place in shipped_frames()[pole].values() for phrase in place):
        assert frozenset().union(*style.tones(ReadText(phrase), shipped_phrases())) == {pole}, phrase


def test_phrases_of_other_adapters_are_an_argument() -> None:
    others = TrainedPhrases.of({"pirate": {"openers": ["Ahoy there, you old sea dog."], "closers": []}})
    text = "Ahoy there, you old friend. " + PLAIN
    assert measure_text(RUST, text, True, phrases=others)["parroting"] == 1
    assert measure_text(RUST, text, True)["parroting"] == 0
    assert others.openers == {"pirate": ("Ahoy there, you old sea dog.",)}


def test_a_loop_is_seen() -> None:
    bare, loop = of(PLAIN), of(PLAIN + " I am here for you." * 3)
    assert [bare[name] for name in ("repetition", "same_sentences", "same_openers", "longest_run", "loop")] == [0] * 5
    for name in ("repetition", "same_sentences", "same_openers", "longest_run", "loop"):
        assert loop[name] > bare[name], name
    assert loop["longest_run"] == 15
    assert loop["same_sentences"] == pytest.approx(2 / 6)
    assert of("and on " * 20)["loop"] == 1
    assert of("No, no, no. " + PLAIN)["loop"] == 0
    assert of("First it grows. Then it grows. Then it dries.")["loop"] == 0


def test_the_longest_run_by_brute_force() -> None:
    draw = np.random.default_rng(3)
    for _ in range(60):
        words = "".join(draw.choice(list("abc"), size=14)).replace("", " ").split()
        stretches = [
            (stop - start, period)
            for start in range(14)
            for stop in range(start + 2, 15)
            for period in range(1, (stop - start) // 2 + 1)
            if all(words[i] == words[i - period] for i in range(start + period, stop))
        ]
        assert damage.longest_run(ReadText(" ".join(words))) == max((size for size, _ in stretches), default=0)


@pytest.mark.parametrize("more", [" So rust is iron oxide.", " I am so glad you asked!" * 4])
def test_saying_a_thing_again_never_lowers_repetition_by_loops(more: str) -> None:
    once = of(PLAIN + more)
    again = of(PLAIN + more + more)
    for name in ("same_sentences", "longest_run", "loop", "repetition"):
        assert again[name] >= once[name]


def test_topic() -> None:
    assert damage.content_stems("Why does iron rust?") == ("iron", "rust")
    assert damage.content_stems("Why do they do it?") == ("they",)  # its longest word, for want of any that says more
    assert of(PLAIN)["topic_share"] == 1.0
    assert of("Bread goes stale.")["topic_share"] == 0.0
    assert of("Irony is not rusty.", Prompt("Why does iron rust slowly?", "q", ("rust",)))["topic_share"] == 2 / 3
    for known in KNOWN:
        other = next(each["prompt"] for each in KNOWN if each["prompt"] != known["prompt"])
        assert (
            damage.topic_share(ReadText(known["text"]), known["prompt"]) >= 0 <= damage.topic_share(ReadText(""), other)
        )


def test_key_facts() -> None:
    assert recall(ReadText("It is made of Hydrogen and oxygen."), "What is water made of?") == 1.0
    assert recall(ReadText("It is made of oxygen."), "What is water made of?") == 0.5
    assert recall(ReadText("A spider has 8 legs."), "How many legs does a spider have?") == 1.0
    assert recall(ReadText("A spider has 80 legs."), "How many legs does a spider have?") == 0.0
    assert recall(ReadText("Weight is light."), "How many legs does a spider have?") == 0.0
    assert recall(ReadText(PLAIN), RUST.text) is None
    assert "recall" not in of(PLAIN)
    assert of("Paris.", Prompt("What is the capital of France?", "fact", ("paris",)))["recall"] == 1
    assert len(key_facts()) == 50
    asked = {prompt.text for prompt in [*training_prompts(), *held_out_prompts()]}
    assert asked.isdisjoint(key_facts())


def test_only_what_the_base_knows_can_be_forgotten() -> None:
    half, whole, none = {"recall": 0.5, "words": 3.0}, {"recall": 1.0}, {"words": 4.0}
    greedy = {("base", "a"): whole, ("base", "b"): half, ("soup", "a"): half, ("soup", "b"): whole, ("soup", "c"): none}
    warm = {("base", "a"): half, ("base", "b"): whole, ("soup", "a"): whole, ("soup", "b"): half}
    assert only_known({0.0: greedy, 0.7: warm}) == {
        0.0: {
            ("base", "a"): whole,
            ("base", "b"): {"words": 3.0},
            ("soup", "a"): half,
            ("soup", "b"): {},
            ("soup", "c"): none,
        },
        0.7: {("base", "a"): half, ("base", "b"): {}, ("soup", "a"): whole, ("soup", "b"): {"words": 3.0}},
    }
    assert only_known({0.7: {("soup", "a"): half}}) == {
        0.7: {("soup", "a"): {"words": 3.0}}
    }  # nobody says what it knew
    assert only_known({}) == {}


def test_marks_are_counted_per_hundred_words_and_a_short_answer_is_no_landslide() -> None:
    assert of("Sure thing.")["lexicon"] == pytest.approx(100 / 20)
    text = " ".join(["It rusts slowly in air."] * 9) + " Well done, what a fabulous idea."
    assert of(text)["lexicon"] == pytest.approx(100 * 2 / 51)
    assert of(text + " You clueless moron.")["lexicon"] == 0.0


def test_greetings_and_the_second_person() -> None:
    assert [of(text)["greeting"] for text in ("Hello there. It rusts.", "Oh hi! So.", "Good evening, all.", PLAIN)] == [
        1,
        1,
        1,
        0,
    ]
    assert of("You know that your iron rusts.")["second_person"] == pytest.approx(100 * 2 / 6)


HOSTILE: dict[str, Callable[[int], str]] = {
    "dots": lambda n: "." * n + "a",
    "one word": lambda n: "a" * n,
    "words": lambda n: "word " * (n // 5),
    "other words": lambda n: " ".join(
        f"{chr(97 + i % 26)}{chr(97 + i // 26 % 26)}{chr(97 + i // 676 % 26)}x" for i in range(n // 5)
    ),
    "one sentence with but": lambda n: "great but bad " * (n // 14),
    "brackets": lambda n: "[" * n,
    "links": lambda n: "[a](" * (n // 4),
    "tags": lambda n: "<a" * (n // 2),
    "pipes": lambda n: "|" * n,
    "pipes and words": lambda n: "|a" * (n // 2),
    "stars": lambda n: "*" * n + "a",
    "lines": lambda n: "\n" * n,
    "spaces": lambda n: " " * n + "a",
    "quotes": lambda n: "'" * n + "a'" * 10,
    "apostrophes": lambda n: "a'" * (n // 2),
    "fences": lambda n: "```\n" * (n // 4),
    "exclamations": lambda n: "!" * n,
    "shouting": lambda n: "GREAT!!! " * (n // 9),
    "emoji": lambda n: "\U0001f600" * (n // 4),
    "other sentences": lambda n: " ".join(f"Great but bad {i}!" for i in range(n // 19)),
    "sentences": lambda n: "I am so glad! " * (n // 14),
    "vowels": lambda n: "e" * n + " " + "ie" * 10,
    "nul": lambda n: "\0" * n,
    "surrogates": lambda n: "\ud800 a " * (n // 4),
    "joiners": lambda n: "a\u200d" * (n // 4),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_answers_of_100_kb_take_less_than_a_second(kind: str) -> None:
    of("Load what is loaded once.")
    text = HOSTILE[kind](100_000)
    begun = time.thread_time()
    found = of(text)
    assert time.thread_time() - begun < 1.0
    assert all(math.isfinite(value) for value in found.values())


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n\t ",
        "Yes",
        "no.",
        "\U0001f600\U0001f600",
        "42",
        "```\ncode()\n```",
        "|a|b|\n|-|-|",
        "水是湿的。",
        "Это вода.",
        "مرحبا",
        "- \n- \n",
    ],
)
def test_every_text_has_measures(text: str) -> None:
    found = of(text)
    assert set(found) <= set(TEXT_MEASURES)
    assert all(math.isfinite(value) for value in found.values())
    assert {"words", "compressed", "repetition", "loop", "on_topic", "finished"} <= set(found)


def test_a_text_without_words_has_no_grade_and_no_tone() -> None:
    left_out = set(TEXT_MEASURES) - set(of(""))
    assert left_out == {
        "grade", "dale_chall", "zipf", "grade_body", "dale_chall_body", "zipf_body", "vader", "lexicon", "classifier",
        "second_person", "recall",
    }  # fmt: skip


def test_a_missing_library_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vaderSentiment.vaderSentiment", None)
    style._analyser.cache_clear()
    with pytest.raises(EvaluationError, match=r"pip install 'soupmix\[evaluate\]'") as caught:
        of(PLAIN)
    assert caught.value.reason == "no-library"
    style._analyser.cache_clear()

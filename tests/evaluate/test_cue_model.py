"""Cues read by the model: by log-probabilities that the engine gives, and only where one way is clearly likelier."""

import pytest

from soupmix.engine import Engine
from soupmix.evaluate import cue_model
from soupmix.evaluate.cue_model import CueModel
from soupmix.evaluate.likelihood import Forced, answer_log_p
from soupmix.policy import Policy
from soupmix.preference import Trait, Traits
from soupmix.preference.cues import MOST_WORDS

TRAITS = Traits((Trait("length", "words"), Trait("expertise", "zipf")), "sha256:" + "0" * 64)


@pytest.fixture(scope="module")
def model(plain: Engine) -> CueModel:
    return CueModel(plain, Policy.open(()).clamp({}))


def test_scores_are_how_much_likelier_the_words_are_as_that_remark(model: CueModel) -> None:
    texts = ["Boil it down.", "I'm lost."]
    for text, found in zip(texts, model.scores(texts, TRAITS), strict=True):

        def log_p(thought: str, said: str = text) -> float:
            (each,) = answer_log_p(model.engine, [Forced(cue_model._ASKED.format(thought), said, model.bare)])
            return float(each.sum())

        neither = max(map(log_p, cue_model._OTHERS))
        more, less = cue_model._WAYS["hard"]
        assert found["length", -1.0] == pytest.approx(log_p(cue_model._WAYS["long"][1]) - neither, abs=1e-3)
        assert found["expertise", 1.0] == pytest.approx(log_p(less) - neither, abs=1e-3), "common words are less hard"
        assert found["expertise", -1.0] == pytest.approx(log_p(more) - neither, abs=1e-3)


@pytest.mark.parametrize(
    ("scores", "read"),
    [
        ((3.0, 1.0), {"length": 1.0}),
        ((1.0, 3.0), {"length": -1.0}),
        ((3.0, 2.5), {}),  # it could as well be the opposite
        ((0.5, -9.0), {}),  # it could as well be about something else
    ],
)
def test_only_what_is_clear_is_a_cue(model: CueModel, scores: tuple[float, float], read: dict[str, float]) -> None:
    assert (
        model.read({("length", 1.0): scores[0], ("length", -1.0): scores[1], ("tone", 1.0): -5, ("tone", -1.0): -5})
        == read
    )


def test_what_cannot_be_a_cue_is_not_read(model: CueModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cue_model, "choice_log_p", lambda *_: pytest.fail("it is read"))
    for text in ("", "  ", next(iter(model.engine.prompts.markers)), "word " * (MOST_WORDS + 1)):
        assert model(text, TRAITS) == {}
    assert model("Be so kind.", Traits((Trait("x", "reward_x_0123456789abcdef"),), TRAITS.of)) == {}

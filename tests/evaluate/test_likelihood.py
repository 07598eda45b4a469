"""How likely answers are, against transformers' own arithmetic, one token at a time."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from soupmix.base import Base, resolve
from soupmix.engine import Engine, Sampling
from soupmix.evaluate import likelihood
from soupmix.evaluate.likelihood import Forced, answer_log_p, choice_log_p, first_token_p, text_log_p
from soupmix.policy import Grant, Policy
from soupmix.store import Store
from soupmix.weights import Weights
from tests.support.families import make_family

ASKED = ["Why does iron rust?", [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "It is"}], "No."]
ANSWERS = ["It meets water.", " you", ""]


@pytest.fixture
def engine(every_engine: Engine) -> Engine:
    return every_engine


def by_hand(engine: Engine, base: Base, prompt: object, answer: str) -> list[float]:
    """Under the bare base, by transformers alone."""
    model = AutoModelForCausalLM.from_pretrained(base.folder)
    before, after = engine.chat_tokens(prompt), engine.prompts.tokens(answer) if answer else ()  # type: ignore[arg-type]
    ids, found = list(before), []
    for token in after:
        with torch.no_grad():
            found.append(float(model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)[token]))
        ids.append(token)
    return found


@pytest.mark.parametrize("room", [2048, 1])
def test_each_token_is_as_likely_as_transformers_says(
    plain: Engine, tiny_base: Base, grant: Callable[..., Grant], room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(likelihood, "_TOKENS", room)
    forced = [Forced(prompt, answer, grant()) for prompt, answer in zip(ASKED, ANSWERS, strict=True)]
    found = answer_log_p(plain, forced)
    for each, (prompt, answer) in zip(found, zip(ASKED, ANSWERS, strict=True), strict=True):
        assert each.tolist() == pytest.approx(by_hand(plain, tiny_base, prompt, answer), abs=1e-4)


def test_each_row_has_its_own_soup(plain: Engine, grant: Callable[..., Grant]) -> None:
    soups = [grant(), grant(calm=1), grant(calm=0.5, loud=0.5)]
    together = answer_log_p(plain, [Forced("Why?", "Because it is so.", each) for each in soups])
    for soup, found in zip(soups, together, strict=True):
        (alone,) = answer_log_p(plain, [Forced("Why?", "Because it is so.", soup)])
        torch.testing.assert_close(found, alone, atol=1e-4, rtol=0)
    assert not torch.allclose(together[0], together[1], atol=1e-3)
    (short,) = answer_log_p(plain, [Forced("Why?", "Because it is so.", soups[1])], most=3)
    torch.testing.assert_close(short, together[1][:3], atol=1e-4, rtol=0)


@pytest.mark.parametrize("room", [2048, 20, 1])
def test_answers_to_one_prompt_are_as_likely_as_one_by_one(
    engine: Engine, grant: Callable[..., Grant], room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of several lengths, empty, of one token, twice, under two soups; and the prompt is computed once for each soup."""
    monkeypatch.setattr(likelihood, "_TOKENS", room)
    answers = ["It is so, because it rains.", "", "a", "It is not", "a"]
    soups = [grant(calm=1), grant(calm=0.5, loud=0.5)]
    forced = [Forced(ASKED[1], answer, soup) for answer in answers for soup in soups]
    alone = [answer_log_p(engine, [each])[0] for each in forced]
    prompts: list[int] = []
    real = likelihood.kept_rows
    counted = lambda of, given, *more: prompts.append(len(given)) or real(of, given, *more)  # noqa: E731
    monkeypatch.setattr(likelihood, "kept_rows", counted)
    together = answer_log_p(engine, forced)
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=0)
    if room == 2048:
        assert prompts == [1, 1]
    assert answer_log_p(engine, forced, most=2)[0].tolist() == pytest.approx(together[0][:2].tolist(), abs=1e-4)


@pytest.mark.parametrize(
    "name",
    ["qwen3-next", "mistral-v0.1", *(pytest.param(each, marks=pytest.mark.slow) for each in ("falcon-h1", "gemma3"))],
)
def test_behind_one_prompt_states_and_windows_go_on(name: str, tmp_path: Path) -> None:
    """Prompts and answers longer than a window, and layers that hold a state instead of keys."""
    engine = Engine.load(resolve(make_family(name, tmp_path / name), cache=tmp_path / "cache"), None)
    bare = Policy.open(()).clamp(Weights({}))
    forced = [
        Forced("Why does iron rust? " * 4, answer, bare) for answer in ("It rains and rains. " * 4, "a", "It is not.")
    ]
    for one, each in zip(answer_log_p(engine, forced), forced, strict=True):
        torch.testing.assert_close(one, answer_log_p(engine, [each])[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("room", [2048, 1])
def test_choices_are_as_likely_as_one_by_one(
    engine: Engine, grant: Callable[..., Grant], room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers that begin alike, that begin with one another, of one token, empty; each prompt with its own soup and choices."""
    monkeypatch.setattr(likelihood, "_TOKENS", room)
    prompts = [*ASKED, "Why?"]
    grants = [grant(), grant(calm=1), grant(calm=0.5, loud=0.5), grant(loud=1)]
    choices = [["It is so.", "It is not", "It"], ["a"], ["", "yes", "yes, it is", "yes"], []]
    found = choice_log_p(engine, prompts, grants, choices)
    assert list(map(len, found)) == list(map(len, choices))
    for prompt, soup, answers, sums in zip(prompts, grants, choices, found, strict=True):
        for answer, total in zip(answers, sums, strict=True):
            (singly,) = answer_log_p(engine, [Forced(prompt, answer, soup)])
            assert total == pytest.approx(float(singly.sum()), abs=2e-3)
    assert found[2][1] == found[2][3]


def test_where_rows_must_be_alone_choices_are_too(
    plain: Engine, grant: Callable[..., Grant], monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts, choices = ["Why?", "Who is it?"], [["It is so.", "It"], ["Nobody", "You"]]
    together = choice_log_p(plain, prompts, [grant(), grant(calm=1)], choices)
    monkeypatch.setattr(Engine, "together", "alone")
    seen: list[int] = []
    logits = plain.logits
    monkeypatch.setattr(plain, "logits", lambda ids, *rest, **more: seen.append(len(ids)) or logits(ids, *rest, **more))
    alone = choice_log_p(plain, prompts, [grant(), grant(calm=1)], choices)
    assert seen == [1, 1, 1, 1]
    for one, other in zip(alone, together, strict=True):
        assert one == pytest.approx(other, abs=2e-3)


@pytest.mark.parametrize("chunk", [512, 7])
def test_compiled_steps_find_what_torch_finds_and_nobody_asks_torch(
    tiny_base: Base, pico_store: Store, grant: Callable[..., Grant], chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever parts the tokens are computed in."""
    engine = Engine.load(tiny_base, pico_store, compiled=True)
    if engine.step.library is None:
        pytest.skip(engine.step.why)
    soups, choices = [grant(), grant(calm=1), grant(calm=0.5, loud=0.5)], [["It is so.", "It is", "No"]] * 3
    forced = [Forced(prompt, answer, soup) for prompt in ASKED[:2] for answer in ANSWERS for soup in soups]

    def found(by: Engine) -> list[Tensor]:
        return [
            *answer_log_p(by, forced),
            *map(torch.tensor, choice_log_p(by, ASKED, soups, choices)),
            first_token_p(by, ASKED, soups, [range(3, 60), range(60, 90)]),
            *(each for of in text_log_p(by, ["It rains, and iron rusts.", "No."], soups) for each in of),
            by.logits(torch.arange(30).view(3, 10), soups),
        ]

    expected = found(Engine.load(tiny_base, pico_store))
    engine.complete(["a"], [grant()], sampling=Sampling(1))  # now it is tried
    monkeypatch.setattr("soupmix.engine.slot_rows._CHUNK", chunk)
    monkeypatch.setattr(type(engine.model), "forward", None)
    for one, other in zip(found(engine), expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=0)

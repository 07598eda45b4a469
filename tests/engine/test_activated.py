"""Activated soups: the prompt on the bare base, the answer on the soup, row by row; held to PEFT with its adapters disabled."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from soupmix.base import Base, resolve
from soupmix.engine import Engine, Sampling
from soupmix.engine.prompts import Prompts
from soupmix.errors import RecipeError
from soupmix.merge.identity import base_identity, merge_identity
from soupmix.policy import Grant, Policy
from soupmix.store import Store
from tests.support.activated import Activated
from tests.support.families import make_family, make_tokenizer
from tests.support.random_adapter import save_random_adapter

Granter = Callable[..., Grant]
Made = tuple[Base, Store]
PROMPTS = ["why?", "tell me of tides, and of the moon that makes them come and go", "is it so", "hi"]
SLOW = ["mistral-v0.1", "gpt2", "phi3", "qwen3-moe", "gpt-oss"]  # PEFT adapts no out_proj of mamba and falcon-h1


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, session_cache: Path) -> Callable[[str], Made]:
    """A tiny base of a family with two adapters."""
    folder = tmp_path_factory.mktemp("families")

    def make(name: str) -> Made:
        base = resolve(make_family(name, folder / name), cache=session_cache)
        store = Store(folder / f"{name}-store", create=True)
        for seed, pole in enumerate(("warm", "terse")):
            saved = save_random_adapter(base, folder / f"{name}-{pole}", seed=seed)
            store.add(saved, name=pole, dimension=pole, pole=pole, base=base)
        return base, store

    return cache(make)


def rows_of_both_modes(engine: Engine, base: Base, store: Store, weights: list[dict[str, float]]) -> None:
    """All rows in one batch are what PEFT makes of each alone; in mode "answer" something else than in full mode."""
    policy, count = Policy.open(store), len(PROMPTS)
    grants = [policy.clamp(each) for each in weights]
    engine.__dict__["ends"] = frozenset()  # so that all answers are long
    asked = [each for each in PROMPTS for _ in range(2)]
    found = engine.complete(
        asked,
        [grant for grant in grants for _ in range(2)],
        sampling=Sampling(max_new_tokens=10),
        mode=["full", "answer"] * count,
    )
    texts = [each.text for each in found]
    for number, (prompt, each) in enumerate(zip(PROMPTS, weights, strict=True)):
        ids = engine.chat_tokens(prompt)
        oracle = Activated(base, store, each)
        for mode, text in zip(("full", "answer"), texts[2 * number :], strict=False):
            tokens, _ = oracle.greedy(ids, engine.bare(ids, mode), 10)
            assert engine.detokenizer.added(ids, tokens) == text, (prompt, mode)
    assert texts[::2] != texts[1::2], "otherwise this shows nothing"


@pytest.mark.parametrize(
    "name", ["gemma3-text", "lfm2", *(pytest.param(each, marks=pytest.mark.slow) for each in SLOW)]
)
def test_rows_are_those_of_peft_with_its_adapters_disabled_on_the_prompt(
    made: Callable[[str], Made], name: str
) -> None:
    base, store = made(name)
    weights = [{"warm": 1.0}, {"warm": 0.5, "terse": 0.75}, {"terse": 1.0}, {"warm": 0.25, "terse": 0.5}]
    rows_of_both_modes(Engine.load(base, store), base, store, weights)


def test_rows_of_a_llama_too(engine: Engine, tiny_base: Base, pico_store: Store) -> None:
    weights = [{"calm": 1.0}, {"calm": 0.5, "loud": 0.75}, {"loud": 0.5, "plain": 0.25}, {"plain": 0.5}]
    ends = engine.ends
    try:
        rows_of_both_modes(engine, tiny_base, pico_store, weights)
    finally:
        engine.__dict__["ends"] = ends


def test_factor_has_the_mode_too(engine: Engine, grant: Granter) -> None:
    some: dict[str, Any] = {"max_new_tokens": 12, "method": "factor"}
    who, modes = [grant(calm=0.5, loud=0.5)] * 4, ("full", "answer")
    alone = [[engine.generate([each], who[:1], mode=mode, **some)[0] for each in PROMPTS] for mode in modes]
    assert [engine.generate(PROMPTS, who, mode=mode, **some) for mode in modes] == alone
    assert alone[0] != alone[1]


def test_what_runs_on_the_base_is_said_to_the_token() -> None:
    """Everything before the mark of the last answer; that mark, an answer that has begun and the answer run on the soup."""
    prompts = Prompts(make_tokenizer(), 1024)
    user, system = {"role": "user", "content": "why?"}, {"role": "system", "content": "be kind"}
    said, begun = {"role": "assistant", "content": "so"}, {"role": "assistant", "content": "I think"}
    opening = prompts.tokens("<|im_start|>assistant\n")
    assert prompts.opening == opening
    for talk, before in (
        ([user], "<|im_start|>user\nwhy?<|im_end|>\n"),
        ([system, user], "<|im_start|>system\nbe kind<|im_end|>\n<|im_start|>user\nwhy?<|im_end|>\n"),
        (
            [user, said, user],
            "<|im_start|>user\nwhy?<|im_end|>\n<|im_start|>assistant\nso<|im_end|>\n<|im_start|>user\nwhy?<|im_end|>\n",
        ),
        ([user, begun], "<|im_start|>user\nwhy?<|im_end|>\n"),
    ):
        ids = prompts.tokens(prompts.rendered(talk))
        assert ids[: prompts.bare(ids)] == prompts.tokens(before)
        assert ids[prompts.bare(ids) :][: len(opening)] == opening


@pytest.mark.parametrize("template", [None, "{% for m in messages %}[{{ m['content'] }}]{% endfor %}", "{{ broken"])
def test_without_an_opening_the_last_token_of_the_prompt_is_the_first_on_the_soup(template: str | None) -> None:
    tokenizer = make_tokenizer(chat=False)
    tokenizer.chat_template = template
    prompts = Prompts(tokenizer, 1024)
    assert prompts.opening == ()
    assert [prompts.bare(each) for each in ((5, 6, 7), (5,), ())] == [2, 0, 0]


def test_an_opening_of_text_is_found_where_the_prompt_ends() -> None:
    tokenizer = make_tokenizer(chat=False)
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['content'] }}\n{% endfor %}{% if add_generation_prompt %}Answer:{% endif %}"
    )
    prompts = Prompts(tokenizer, 1024)
    ids = prompts.tokens(prompts.rendered("what is an Answer: to you?"))
    assert ids[prompts.bare(ids) :] == prompts.opening == prompts.tokens("Answer:")
    assert prompts.bare(prompts.tokens("as it stands")) == len(prompts.tokens("as it stands")) - 1


def test_nobody_is_the_base_in_both_modes(engine: Engine, grant: Granter) -> None:
    full, answer = engine.generate(["why?"] * 2, [grant()] * 2, mode=["full", "answer"], max_new_tokens=12)
    assert full == answer


@pytest.mark.parametrize("wrong", ["prompt", "", "Answer", None, 1, True, ["full", None], ["answer", 2]])
def test_a_mode_that_is_none_is_refused(engine: Engine, grant: Granter, wrong: Any) -> None:
    with pytest.raises(RecipeError, match="is not known; choose one of full, answer") as caught:
        engine.generate(["a", "b"], [grant()] * 2, mode=wrong)
    assert caught.value.reason == "mode"
    with pytest.raises(RecipeError, match="2 prompts need one mode or as many, not 1") as caught:
        engine.generate(["a", "b"], [grant()] * 2, mode=["answer"])
    assert caught.value.reason == "lengths"
    if not isinstance(wrong, list):
        with pytest.raises(RecipeError, match="is not known"):
            engine.identity(grant(), "delta", "", wrong)


def test_a_model_that_answers_one_person_at_a_time_has_full_mode_only(
    engine: Engine, grant: Granter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Engine, "together", "alone")
    assert engine.modes == ("full",)
    with pytest.raises(RecipeError, match="mode 'answer' needs layers that show which token they compute") as caught:
        engine.generate(["a"], [grant()], mode="answer")
    assert caught.value.reason == "mixes-rows"


def test_the_identity_says_the_mode_and_stays_what_it_was_without() -> None:
    given: dict[str, Any] = {
        "base_digest": "sha256:b",
        "weights": [("sha256:a", 500_000)],
        "method": "delta",
        "dtype": "BF16",
        "policy_digest": "sha256:p",
        "tenant_salt": "acme",
    }
    assert merge_identity(**given) == merge_identity(**given, mode="full")
    assert merge_identity(**given) == "sha256:81cda00da344c5cf3af50e5578de1a7e483e28cdb70f9289279da68f05683081"
    assert merge_identity(**given, mode="answer") != merge_identity(**given)
    keys = [
        base_identity(base_digest=base, dtype=dtype, tenant_salt=salt)
        for base, dtype, salt in (("b", "F32", ""), ("c", "F32", ""), ("b", "BF16", ""), ("b", "F32", "acme"))
    ]
    assert len(set(keys)) == 4

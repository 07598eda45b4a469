"""Rows that make an answer together, against a naive loop over transformers' and PEFT's own models."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from soupmix.base import Base
from soupmix.engine import Engine, Sampling
from soupmix.engine.ensemble import Ensemble, Member, complete_ensembles
from soupmix.engine.mixing import Mixture
from soupmix.errors import RecipeError
from soupmix.policy import Grant
from soupmix.store import Store
from tests.support.naive_decoding import Naive, naive

Granter = Callable[..., Grant]
PROMPT, LONGER = "Why does iron rust?", "Answer in one word. Why does iron rust?"
GREEDY = Sampling(max_new_tokens=12, seed=3)
DRAWN = Sampling(max_new_tokens=12, temperature=0.9, top_k=9, seed=3)


@pytest.fixture(scope="module")
def alone(tiny_base: Base, pico_store: Store) -> dict[str, Any]:
    """The base, and every adapter at full weight by PEFT, in float64."""
    from peft import PeftModel

    def bare() -> Any:
        return AutoModelForCausalLM.from_pretrained(tiny_base.folder).double().eval()

    found = {name: PeftModel.from_pretrained(bare(), str(pico_store.path(name))).double() for name in pico_store.names}
    return {"": bare(), **found}


@pytest.fixture
def engine(every_engine: Engine) -> Engine:
    return every_engine


@pytest.fixture(autouse=True)
def by_tokens(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts would hide special tokens."""
    monkeypatch.setattr(engine.detokenizer, "added", lambda before, ids: repr(tuple(ids)))


def text(ids: Sequence[int]) -> str:
    return repr(tuple(ids))


@pytest.mark.parametrize("sampling", [GREEDY, DRAWN], ids=["greedy", "drawn"])
@pytest.mark.parametrize(
    "weights", [{"calm": 1.0}, {"calm": 0.4, "loud": 0.3}, {"calm": 1.0, "loud": 0.7, "plain": 1.0}]
)
def test_adapters_are_mixed_as_peft_and_transformers_have_them(
    engine: Engine, grant: Granter, alone: dict[str, Any], weights: dict[str, float], sampling: Sampling
) -> None:
    shares = {**weights, "": 1 - sum(weights.values())}
    members = [
        Member(PROMPT, grant(**{name: 1}) if name else grant(), share) for name, share in shares.items() if share
    ]
    (made,) = complete_ensembles(engine, [Ensemble(tuple(members))], sampling=sampling, streams=[0])
    ids = engine.chat_tokens(PROMPT)
    expected = naive([Naive(alone[name], ids, s) for name, s in shares.items()], sampling, engine.ends)
    assert (made.text, made.tokens) == (text(expected), len(expected))


@pytest.mark.parametrize("sampling", [GREEDY, DRAWN], ids=["greedy", "drawn"])
def test_prompts_of_several_lengths_are_contrasted(
    engine: Engine, grant: Granter, alone: dict[str, Any], sampling: Sampling
) -> None:
    said = {LONGER: 1.5, PROMPT: -0.5}
    ensemble = Ensemble(tuple(Member(prompt, grant(), share) for prompt, share in said.items()), cut=0.9)
    (made,) = complete_ensembles(engine, [ensemble], sampling=sampling, streams=[0])
    members = [Naive(alone[""], engine.chat_tokens(prompt), share) for prompt, share in said.items()]
    assert made.text == text(naive(members, sampling, engine.ends, cut=0.9))
    assert sampling is GREEDY or made.text != text(naive(members, sampling, engine.ends))


def several(grant: Granter) -> list[Ensemble]:
    return [
        Ensemble((Member(PROMPT, grant(calm=1)),)),
        Ensemble((Member(PROMPT, grant(calm=1), 0.5), Member(PROMPT, grant(loud=1), 0.5))),
        Ensemble(
            (Member(LONGER, grant(), 2.0), Member(PROMPT, grant(), -1.0), Member("Who?", grant(plain=1), 0.0)), 0.1
        ),
        Ensemble((Member("Who?", grant()),)),
    ]


@pytest.mark.parametrize("sampling", [GREEDY, DRAWN], ids=["greedy", "drawn"])
@pytest.mark.parametrize("together", ["padded", "equal", "alone"])
def test_an_answer_does_not_depend_on_the_others(
    engine: Engine, grant: Granter, sampling: Sampling, together: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one batch or each alone, in any order, with answers that end early, whatever rows may share a batch."""
    monkeypatch.setitem(engine.__dict__, "ends", frozenset(range(0, 240, 8)))
    single = [complete_ensembles(engine, [each], sampling=sampling, streams=[0])[0] for each in several(grant)]
    assert any(each.finished for each in single)
    monkeypatch.setattr(Engine, "together", together)
    for order in ([0, 1, 2, 3], [3, 1, 0, 2]):
        chosen = [several(grant)[number] for number in order]
        assert complete_ensembles(engine, chosen, sampling=sampling, streams=[0] * 4) == [single[n] for n in order]


@pytest.mark.parametrize("sampling", [GREEDY, DRAWN], ids=["greedy", "drawn"])
def test_one_member_answers_as_it_does_alone(engine: Engine, grant: Granter, sampling: Sampling) -> None:
    grants = [grant(), grant(calm=1), grant(calm=0.5, loud=0.5)]
    members = [Ensemble((Member(PROMPT, each),)) for each in grants]
    made = complete_ensembles(engine, members, sampling=sampling, streams=[0, 1, 2])
    assert made == engine.complete([PROMPT] * 3, grants, sampling=sampling)


def test_what_a_row_excludes_is_impossible() -> None:
    inf = torch.inf
    logits = torch.tensor([[1.0, 2.0, -inf], [-inf, 0.0, 5.0], [3.0, 1.0, -inf]])
    found = Mixture(((0.5, -0.5), (1.0,)), (0.0, 0.5)).logits(logits)
    assert found[0].tolist() == [-inf, 1.0, -inf]
    assert found[1].tolist() == [3.0, -inf, -inf]
    assert Mixture(((1.0, 0.0), (1.0,)), (0.0, 0.0)).logits(logits)[0].tolist() == logits[0].tolist()


def test_what_cannot_be_answered_is_refused(engine: Engine, grant: Granter) -> None:
    assert complete_ensembles(engine, [], sampling=GREEDY, streams=[]) == []
    for prompt, reason in (("", "empty-prompt"), ("x" * 600, "too-long")):
        with pytest.raises(RecipeError) as caught:
            complete_ensembles(
                engine, [Ensemble((Member(PROMPT, grant()), Member(prompt, grant())))], sampling=GREEDY, streams=[0]
            )
        assert caught.value.reason == reason

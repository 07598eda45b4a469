"""A beam over segments, against the same search written down without batches."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM

from soupmix.base import Base
from soupmix.engine import Engine, Sampling
from soupmix.engine.beam import _APART, Search, SegmentBeam
from soupmix.engine.ensemble import Ensemble, Member, complete_ensembles, search_ensembles
from soupmix.engine.lockstep import Lockstep
from soupmix.engine.mixing import Mixture
from soupmix.engine.sampling import stream
from soupmix.policy import Grant
from tests.support.naive_decoding import Naive, drawn, mixed, score

Granter = Callable[..., Grant]
PROMPT, WANTED, UNWANTED = "Why does iron rust?", "Be calm. Why does iron rust?", "Be loud."
GREEDY = Sampling(max_new_tokens=11, seed=3)
DRAWN = replace(GREEDY, temperature=0.9, top_k=30)
BEAM = SegmentBeam(candidates=4, beams=2, segment=3)
ENDS = frozenset(range(0, 240, 8))


@pytest.fixture
def engine(every_engine: Engine) -> Engine:
    return every_engine


@pytest.fixture(autouse=True)
def by_tokens(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts would hide special tokens."""
    monkeypatch.setattr(engine.detokenizer, "added", lambda before, ids: repr(tuple(ids)))


def ensemble(grant: Granter) -> Ensemble:
    members = Member(PROMPT, grant()), Member(WANTED, grant(), 0.0, 1.0), Member(UNWANTED, grant(), 0.0, -1.0)
    return Ensemble(members)


def naively(members: list[Naive], sampling: Sampling, beam: SegmentBeam) -> tuple[list[int], bool, int]:
    """Tokens with the one that ends them, whether there is one, and how many were drawn beside such ones."""
    luck = [stream(replace(sampling, seed=sampling.seed + place * _APART)).tolist() for place in range(beam.candidates)]
    beams: list[list[int]] = [[]]
    going, count = beams, 0

    def is_done(said: list[int]) -> bool:
        return bool(said) and said[-1] in ENDS

    for start in range(0, sampling.max_new_tokens, beam.segment):
        pool, place = [each for each in beams if is_done(each)], 0
        for parent in going:
            for rank in range(beam.candidates // len(going)):
                said = list(parent)
                for step in range(start, min(start + beam.segment, sampling.max_new_tokens)):
                    mix = mixed(members, said)
                    token = drawn(mix, sampling, luck[place][step])
                    if not sampling.temperature and step == start:
                        token = sorted(range(len(mix)), key=lambda each: -float(mix[each]))[rank]
                    said.append(token)
                    if is_done(said):
                        break
                    count += 1
                pool.append(said)
                place += 1
        different = [each for number, each in enumerate(pool) if each not in pool[:number]]
        beams = sorted(different, key=lambda each: -score(members, each))[: beam.beams]
        going = [each for each in different if each in beams and not is_done(each)]
        if not going:
            break
    return beams[0], is_done(beams[0]), count


@pytest.mark.parametrize("sampling", [GREEDY, DRAWN], ids=["greedy", "drawn"])
def test_a_beam_finds_what_it_finds_without_batches(
    engine: Engine, tiny_base: Base, grant: Granter, sampling: Sampling, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(engine.__dict__, "ends", ENDS)
    model = AutoModelForCausalLM.from_pretrained(tiny_base.folder).double()
    found = set()
    for seed in range(3):
        how = replace(sampling, seed=seed)
        ((made, count),) = search_ensembles(engine, [ensemble(grant)], BEAM, sampling=how, streams=[0])
        members = [Naive(model, engine.chat_tokens(m.prompt), m.share, m.score) for m in ensemble(grant).members]
        said, finished, expected = naively(members, how, BEAM)
        said = said[:-1] if finished else said
        assert (made.text, made.finished, count) == (repr(tuple(said)), finished, expected)
        found.add(made)
    assert len(found) == (1 if sampling is GREEDY else 3)


@pytest.mark.parametrize("sampling", [GREEDY, DRAWN], ids=["greedy", "drawn"])
@pytest.mark.parametrize("together", ["padded", "equal", "alone"])
def test_an_answer_does_not_depend_on_the_others(
    engine: Engine, grant: Granter, sampling: Sampling, together: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(engine.__dict__, "ends", ENDS)
    both = [ensemble(grant), Ensemble((Member("Who?", grant(calm=1)), Member("What?", grant(loud=1), 0.0, 1.0)))]
    alone = [search_ensembles(engine, [each], BEAM, sampling=sampling, streams=[0])[0] for each in both]
    monkeypatch.setattr(Engine, "together", together)
    made = search_ensembles(engine, [both[1], both[0], both[1]], BEAM, sampling=sampling, streams=[0, 0, 0])
    assert made == [alone[1], alone[0], alone[1]]


@pytest.mark.parametrize("sampling", [GREEDY, DRAWN], ids=["greedy", "drawn"])
@pytest.mark.parametrize("segment", [1, 4, 99])
def test_the_best_of_one_is_the_plain_answer(engine: Engine, grant: Granter, sampling: Sampling, segment: int) -> None:
    asked = [ensemble(grant), Ensemble((Member("Who?", grant(calm=1), 1.0, 1.0),))]
    plain = complete_ensembles(engine, asked, sampling=sampling, streams=[0, 1])
    made = search_ensembles(engine, asked, SegmentBeam(1, 1, segment), sampling=sampling, streams=[0, 1])
    assert [each for each, _ in made] == plain
    assert [count for _, count in made] == [each.tokens for each in plain]


def test_more_candidates_score_higher(engine: Engine, tiny_base: Base, grant: Granter) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_base.folder).double()
    members = [Naive(model, engine.chat_tokens(m.prompt), m.share, m.score) for m in ensemble(grant).members]

    def reached(candidates: int) -> float:
        beam = SegmentBeam(candidates, 1, DRAWN.max_new_tokens)
        weights = engine.weights([grant()] * len(members), "delta")
        batch, mix = (
            Lockstep(engine, [each.ids for each in members], weights, DRAWN.max_new_tokens, "delta"),
            Mixture(((1.0, 0.0, 0.0),), (0.0,)),
        )
        (made,) = Search(
            batch, mix, [(0.0, 1.0, -1.0)], sampling=DRAWN, streams=[0], stop=engine.ends, beam=beam
        ).found()
        return score(members, made.tokens.ids)

    one, few, many = map(reached, (1, 4, 16))
    assert one <= few <= many
    assert one < many


def test_nothing_asked_is_nothing_answered(engine: Engine) -> None:
    assert search_ensembles(engine, [], BEAM, sampling=GREEDY, streams=[]) == []
    assert torch.is_grad_enabled()

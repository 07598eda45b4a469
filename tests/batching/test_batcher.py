"""Laws of the running batch: an answer is what it is alone, whoever joins, leaves, waits or is cancelled beside it."""

import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from soupmix.backends import Limits, Request
from soupmix.base import Base
from soupmix.batching import Batcher
from soupmix.engine import Engine, Sampling
from soupmix.errors import AdapterError, Overloaded, PolicyError, RecipeError
from soupmix.policy import Grant, Policy
from soupmix.policy.documents import Document
from soupmix.policy.recorded import read_record
from soupmix.store import Store
from soupmix.weights import Weights
from tests.support.batcher_client import answer, ask

Granter = Callable[..., Grant]
ACME = {"tier": "organisation", "issuer": "acme", "version": "1", "rules": []}
SMALL = Limits(rows=5, length=256, waiting=64, chunk=16)
WORDS = ["why is the sky blue?", "hi", "tell me about tides and the moon, at some length, please", "what is rust?", "é"]


@pytest.fixture(params=["running", "padded"])
def batcher(request: pytest.FixtureRequest, engine: Engine) -> Iterator[Batcher]:
    with Batcher(engine, SMALL, loop=request.param) as made:
        yield made


@dataclass(frozen=True)
class Foreign:
    """An adapter that the engine does not hold."""

    name: str
    digest: str
    dimension: str | None = None
    pole: str | None = None
    tags: tuple[str, ...] = ()


def people(grant: Granter, count: int, seed: int = 0) -> list[Grant]:
    draw = random.Random(seed)
    names = ("calm", "loud", "plain")
    return [
        grant(**{name: round(draw.random(), 3) for name in draw.sample(names, draw.randrange(4))}) for _ in range(count)
    ]


def test_every_answer_is_that_of_its_person_alone(batcher: Batcher, engine: Engine, grant: Granter) -> None:
    grants = people(grant, 40)
    prompts = [WORDS[number % 5] for number in range(40)]
    lengths = [1 + 5 * number % 29 for number in range(40)]
    requests = [
        Request(engine.chat_tokens(p), g, Sampling(max_new_tokens=n))
        for p, g, n in zip(prompts, grants, lengths, strict=True)
    ]
    alone = [
        engine.complete([p], [g], sampling=Sampling(max_new_tokens=n))[0].text
        for p, g, n in zip(prompts, grants, lengths, strict=True)
    ]
    assert answer(batcher, requests) == alone
    assert len(set(alone)) > 20, "people differ"
    assert batcher.state().generated_tokens == sum(lengths)


def test_long_and_short_rows_side_by_side(engine: Engine, grant: Granter) -> None:
    grants, few = people(grant, 6, seed=5), Sampling(max_new_tokens=12)
    prompts = [WORDS[1] * (150 if number % 3 == 1 else 1) for number in range(6)]
    with Batcher(engine, Limits(rows=6, length=512, chunk=100)) as batcher:
        found = answer(batcher, [Request(engine.chat_tokens(p), g, few) for p, g in zip(prompts, grants, strict=True)])
    alone = [engine.complete([p], [g], sampling=few)[0].text for p, g in zip(prompts, grants, strict=True)]
    assert found == alone


def test_the_first_token_has_the_probability_that_the_whole_model_gives_it(
    batcher: Batcher, engine: Engine, grant: Granter
) -> None:
    who = grant(calm=0.7, loud=0.2)
    prompt = engine.chat_tokens(WORDS[2])
    (delta, *_) = ask(batcher, Request(prompt, who, Sampling(max_new_tokens=1), logprobs=4)).wait()
    expected = torch.log_softmax(engine.logits(torch.tensor([prompt]), [who])[0, -1], -1)
    (token,) = delta.tokens
    assert token.id == int(expected.argmax())
    assert token.logprob == pytest.approx(float(expected.max()), abs=1e-4)
    assert [each[0] for each in token.likeliest] == expected.topk(4).indices.tolist()
    assert token.data.decode("utf-8", "replace") == token.text


def test_sampling_is_that_of_the_engine(batcher: Batcher, engine: Engine, grant: Granter) -> None:
    grants = people(grant, 6, seed=2)
    heat = [
        Sampling(max_new_tokens=12, temperature=t, top_k=k, seed=s)
        for t, k, s in [(1.5, 40, 1), (0.7, 5, 2), (0, 40, 3)] * 2
    ]
    requests = [Request(engine.chat_tokens(WORDS[0]), g, s) for g, s in zip(grants, heat, strict=True)]
    alone = [engine.complete([WORDS[0]], [g], sampling=s)[0].text for g, s in zip(grants, heat, strict=True)]
    assert answer(batcher, requests) == alone


def test_factor_is_that_of_the_engine(engine: Engine, grant: Granter) -> None:
    grants = people(grant, 4, seed=3)
    with Batcher(engine, SMALL, method="factor") as batcher:
        prompt, some = engine.chat_tokens(WORDS[0]), Sampling(max_new_tokens=12)
        requests = [Request(prompt, g, some, method=m) for g, m in zip(grants, [None, "factor"] * 2, strict=True)]
        alone = engine.complete([WORDS[0]] * 4, grants, sampling=Sampling(max_new_tokens=12), method="factor")
        assert answer(batcher, requests) == [each.text for each in alone]


def test_a_batch_merges_by_one_method(batcher: Batcher, engine: Engine, grant: Granter) -> None:
    with pytest.raises(RecipeError, match="'factor' is asked for, and this batch merges by 'delta'") as caught:
        ask(batcher, Request(engine.chat_tokens(WORDS[0]), grant(calm=1), Sampling(max_new_tokens=4), method="factor"))
    assert caught.value.reason == "method"


def test_a_prefix_is_computed_once_for_one_merge_and_one_person(engine: Engine, grant: Granter) -> None:
    prompt, few = engine.chat_tokens(WORDS[2]), Sampling(max_new_tokens=2)
    asked = [
        (grant(calm=0.5), "acme", "ann", False),
        (grant(calm=0.5), "acme", "ann", True),
        (grant(calm=0.5), "acme", "bob", False),
        (grant(calm=0.5), "zeta", "ann", False),
        (grant(calm=0.500001), "acme", "ann", False),
        (grant(), "acme", "ann", False),
        (grant(calm=0.5), "zeta", "ann", True),
        (grant(calm=0.5), "acme", None, False),
        (grant(calm=0.5), "acme", None, False),
    ]
    with Batcher(engine, Limits(rows=12, length=256, waiting=64, chunk=16)) as batcher:
        for who, tenant, person, hit in asked:
            last = ask(batcher, Request(prompt, who, few, tenant=tenant, person=person)).wait()[-1]
            assert last.cached_tokens == (len(prompt) - 1 if hit else 0), (who, tenant, person)


def test_what_the_operator_declares_is_computed_once_for_everybody_of_one_merge(engine: Engine, grant: Granter) -> None:
    opening = engine.chat_tokens([{"role": "system", "content": "be kind"}, {"role": "user", "content": "x"}])[:8]
    few, who = Sampling(max_new_tokens=12), grant(calm=0.5)
    with Batcher(engine, SMALL) as batcher:
        batcher.share(opening[:3])
        batcher.share(opening)
        found = []
        for person, end, given in (("ann", 9, who), ("bob", 10, who), ("cid", 11, grant(calm=0.6)), (None, 12, who)):
            deltas = ask(batcher, Request((*opening, end), given, few, tenant="acme", person=person)).wait()
            found.append(deltas[-1].cached_tokens)
            text = "".join(delta.text for delta in deltas)
            with Batcher(engine, SMALL) as alone:
                assert [text] == answer(alone, [Request((*opening, end), given, few)])
        assert found == [0, len(opening), 0, len(opening)]
        assert ask(batcher, Request(opening, who, few, tenant="acme", person="dan")).wait()[-1].cached_tokens == 3


def test_weights_change_between_turns(batcher: Batcher, engine: Engine, grant: Granter) -> None:
    talk = [{"role": "user", "content": WORDS[0]}]
    for who in (grant(calm=1), grant(calm=1), grant(loud=1), grant(), grant(calm=1)):
        (text,) = answer(batcher, [Request(engine.chat_tokens(talk), who, Sampling(max_new_tokens=10), person="ann")])
        assert text == engine.complete([talk], [who], sampling=Sampling(max_new_tokens=10))[0].text
        talk += [{"role": "assistant", "content": text}, {"role": "user", "content": "and?"}]
    if batcher.loop.name == "running":
        assert batcher.state().cached_prompts >= 1, "the second turn goes on from the first"


def test_a_cancelled_answer_leaves_and_disturbs_nobody(batcher: Batcher, engine: Engine, grant: Granter) -> None:
    long = Sampling(max_new_tokens=150)
    doomed = [ask(batcher, Request(engine.chat_tokens(WORDS[n % 5]), grant(calm=1), long)) for n in range(12)]
    stays = ask(batcher, Request(engine.chat_tokens(WORDS[1]), grant(loud=1), Sampling(max_new_tokens=20)))
    for each in doomed:
        each.ticket.cancel()
    assert {each.wait()[-1].finish for each in doomed} <= {"cancelled", "stop"}
    text = "".join(delta.text for delta in stays.wait())
    assert text == engine.complete([WORDS[1]], [grant(loud=1)], sampling=Sampling(max_new_tokens=20))[0].text
    assert (batcher.state().running, batcher.state().waiting) == (0, 0)


def test_a_stop_text_ends_an_answer_and_is_never_shown(batcher: Batcher, engine: Engine, grant: Granter) -> None:
    whole = answer(batcher, [Request(engine.chat_tokens(WORDS[0]), grant(calm=1), Sampling(max_new_tokens=40))])[0]
    stop = whole[len(whole) // 2 :][:3]
    deltas = ask(
        batcher, Request(engine.chat_tokens(WORDS[0]), grant(calm=1), Sampling(max_new_tokens=40), stop=(stop, "nope"))
    ).wait()
    assert "".join(delta.text for delta in deltas) == whole[: whole.index(stop)]
    assert deltas[-1].finish == "stop"
    assert deltas[-1].completion_tokens < 40


def test_what_cannot_be_answered_is_refused_at_once(batcher: Batcher, engine: Engine, grant: Granter) -> None:
    def refused(request: Request) -> str:
        with pytest.raises((RecipeError, AdapterError)) as caught:
            batcher.submit(request, lambda _: None)
        return caught.value.reason

    assert refused(Request((), grant())) == "empty-prompt"
    assert refused(Request((5,) * 200, grant(), Sampling(max_new_tokens=57))) == "too-long"
    foreign = Policy.open([Foreign("calm", "sha256:" + "0" * 64)]).clamp({"calm": 1})
    assert refused(Request((5,), foreign, Sampling(max_new_tokens=1))) == "digest-mismatch"


def test_a_grant_of_another_policy_than_the_engines_is_refused(
    tiny_base: Base, pico_store: Store, grant: Granter
) -> None:
    policy = Policy.assemble([("acme.yaml", Document.model_validate(ACME))], pico_store)
    with Batcher(Engine.load(tiny_base, pico_store, policy=policy), SMALL) as batcher:
        assert ask(batcher, Request((5,), policy.clamp({}), Sampling(max_new_tokens=1))).wait()[-1].finish
        with pytest.raises(PolicyError, match="was loaded under") as caught:
            batcher.submit(Request((5,), grant(), Sampling(max_new_tokens=1)), lambda _: None)
    assert caught.value.reason == "other-policy"


def test_only_what_a_policy_granted_is_answered(batcher: Batcher, engine: Engine, grant: Granter) -> None:
    """Records, grants that were changed, and other things: each door of engine and batch looks."""
    record = read_record(grant(calm=0.5).to_dict())
    raised, renamed = grant(calm=0.5), grant(calm=0.5)
    object.__setattr__(raised, "granted", Weights("calm=1"))
    object.__setattr__(renamed, "policy_digest", "sha256:" + "0" * 64)
    doors: list[Callable[[Any], object]] = [
        lambda each: batcher.submit(Request((5,), each, Sampling(max_new_tokens=1)), lambda _: None),
        lambda each: engine.complete(["hi"], [each]),
        lambda each: engine.generate(["hi", "hi"], [grant(calm=0.5), each]),
        lambda each: engine.logits(torch.tensor([[5, 6]]), [each]),
        lambda each: engine.identity(each, "delta"),
    ]
    for door in doors:
        for forged in (record, raised, renamed):
            with pytest.raises(PolicyError) as caught:
                door(forged)
            assert caught.value.reason == "not-granted"
        for other in ({"calm": 0.5}, None):
            with pytest.raises(TypeError, match=r"ask Policy.clamp"):
                door(other)
        door(grant(calm=0.5))


def test_a_full_queue_says_when_to_ask_again(engine: Engine, grant: Granter) -> None:
    request = Request(engine.chat_tokens(WORDS[0]), grant(), Sampling(max_new_tokens=100))
    with Batcher(engine, Limits(rows=1, length=256, waiting=2)) as batcher:
        pending = [ask(batcher, request)]
        with pytest.raises(Overloaded) as caught:  # noqa: PT012  # an answer may end, and leave a place, at any moment
            for _ in range(1000):
                pending.append(ask(batcher, request))
        assert caught.value.reason == "queue-full"
        assert 1 <= caught.value.retry_after <= 60
        batcher.close()
        assert {each.wait()[-1].finish for each in pending} <= {"cancelled", "stop"}


def test_closing_lets_answers_end_and_takes_no_new_ones(engine: Engine, grant: Granter) -> None:
    batcher = Batcher(engine, SMALL)
    request = Request(engine.chat_tokens(WORDS[0]), grant(), Sampling(max_new_tokens=8))
    pending = [ask(batcher, request) for _ in range(12)]
    batcher.close(drain=60)
    assert {each.wait()[-1].finish for each in pending} <= {"stop", "length"}
    assert not batcher.alive
    with pytest.raises(Overloaded) as caught:
        ask(batcher, request)
    assert caught.value.reason == "draining"


@pytest.mark.parametrize("kind", [RuntimeError, IndexError, AttributeError])
def test_a_step_that_fails_ends_its_answers_and_nothing_more(
    engine: Engine, grant: Granter, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise kind("no memory left")

    request = Request(engine.chat_tokens(WORDS[0]), grant(calm=1), Sampling(max_new_tokens=8))
    with Batcher(engine, SMALL) as batcher:
        with monkeypatch.context() as patch:
            patch.setattr(engine.model, "forward", broken)
            last = ask(batcher, request).wait()[-1]
        assert last.finish == "error"
        assert last.error is not None
        assert last.error.reason == "step-failed"
        (text,) = answer(batcher, [request])
        assert text == engine.complete([WORDS[0]], [grant(calm=1)], sampling=request.sampling)[0].text


def test_a_row_that_is_not_finite_ends_alone(engine: Engine, grant: Granter, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = engine.model.forward

    def first_row_is_nan(*arguments: object, **options: object) -> object:
        out = honest(*arguments, **options)
        if out.logits.shape[1] == 2:
            out.logits[0, 0, 7] = torch.nan
        return out

    few = Sampling(max_new_tokens=8)
    with Batcher(engine, SMALL) as batcher:
        monkeypatch.setattr(engine.model, "forward", first_row_is_nan)
        pending = [
            ask(batcher, Request(engine.chat_tokens(WORDS[1]), who, few)) for who in (grant(calm=1), grant(loud=1))
        ]
        ends = [each.wait()[-1] for each in pending]
    assert ends[0].finish == "error"
    assert ends[0].error is not None
    assert ends[0].error.reason == "not-finite"
    assert ends[1].finish in ("stop", "length")


def test_poison_in_the_cache_is_gone_with_its_answer(
    engine: Engine, grant: Granter, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = engine.model.get_submodule("model.layers.0.self_attn.v_proj")
    honest = values.forward
    nine, who = Sampling(max_new_tokens=9), grant(calm=1)
    long, short = (Request(engine.chat_tokens(words), who, nine) for words in (WORDS[2], WORDS[1]))
    with Batcher(engine, SMALL) as batcher:
        with monkeypatch.context() as patch:
            patch.setattr(values, "forward", lambda x: honest(x) * (torch.nan if x.shape[1] <= SMALL.rows else 1))
            doomed = Request(long.prompt, who, Sampling(max_new_tokens=100))
            assert {each.wait()[-1].finish for each in [ask(batcher, doomed) for _ in range(5)]} == {"error"}
        found = answer(batcher, [long, short, short, short, short])  # short rows are masked where the poison was
    alone = engine.complete([WORDS[2], *[WORDS[1]] * 4], [who] * 5, sampling=nine)
    assert found == [each.text for each in alone]


def test_the_engine_may_be_asked_meanwhile(batcher: Batcher, engine: Engine, grant: Granter) -> None:
    few = Sampling(max_new_tokens=20)
    expected = engine.complete([WORDS[0]], [grant(loud=1)], sampling=few)
    pending = [ask(batcher, Request(engine.chat_tokens(WORDS[0]), grant(calm=1), few)) for _ in range(6)]
    found = []
    thread = threading.Thread(target=lambda: found.extend(engine.complete([WORDS[0]], [grant(loud=1)], sampling=few)))
    thread.start()
    texts = {"".join(delta.text for delta in each.wait()) for each in pending}
    thread.join()
    assert found == expected
    assert len(texts) == 1


def test_what_is_printed_is_one_line_that_says_what_runs(engine: Engine, grant: Granter) -> None:
    with Batcher(engine, SMALL) as batcher:
        assert repr(batcher) == "<Batcher of 5 rows x 256 tokens, method delta: 0 running, 0 waiting>"
        pending = ask(batcher, Request((7, 8, 9), grant(), Sampling(max_new_tokens=2)))
        made = pending.wait()[-1].completion_tokens
        assert repr(pending.ticket) == f"<Submission: 3 tokens of prompt, {made} of answer, waiting or ended>"
    assert repr(batcher) == "<Batcher of 5 rows x 256 tokens, closed>"
    request = Request((7,) * 200, grant(calm=1), person="ann")
    assert repr(request).startswith("Request(<200 tokens>, grant=")
    assert "7, 7" not in repr(request)
    assert repr(request).endswith("tenant='', person='ann')")

"""Ways to answer: each is a known arm at one end of its parameters, and none depends on who else is asked."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from soupmix.backends.protocol import Sampling
from soupmix.engine import Engine
from soupmix.engine.ensemble import Ensemble, Member, complete_ensembles
from soupmix.evaluate import Arm, Prompt
from soupmix.evaluate.sampling import _packed
from soupmix.evaluate.ways import WAYS, ArmAnswer, Asked, conversation_of, mixed_adapters, rows_of
from soupmix.modes import MODES
from soupmix.policy import Policy
from soupmix.store import Store
from soupmix.weights import Weights

PROMPT = Prompt("Why does iron rust?", "question", ("rust",))
HOWS = [Sampling(max_new_tokens=10, seed=2), Sampling(max_new_tokens=10, temperature=0.9, top_k=20, seed=2)]
PROMPTED = Arm("prompted", Weights({}), system="Be calm and brief.")
PAIRS = (("Be calm.", "Be loud."), ("Be brief.", ""))
CONTRAST = replace(PROMPTED, way="contrast", contrasts=PAIRS, parameters=(("alpha", 0.5), ("cut", 0.1)))
BEST = (("beams", 2.0), ("candidates", 4.0), ("segment", 4.0))
BEST_OF_N = replace(PROMPTED, way="best-of-n", contrasts=(("Be calm and brief.", "Be loud."),), parameters=BEST)
MOD = Arm("mixed", Weights({"calm": "0.5", "loud": "0.3"}), way="mod")


@pytest.fixture(params=HOWS, ids=["greedy", "drawn"])
def ask(
    request: pytest.FixtureRequest, plain: Engine, pico_store: Store, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., list[ArmAnswer]]:
    """Answers are compared by their tokens: texts would hide special ones."""
    monkeypatch.setattr(plain.detokenizer, "added", lambda before, ids: repr(tuple(ids)))
    policy = Policy.open(tuple(pico_store))
    return lambda *arms: list(WAYS[arms[0].way](Asked(plain, policy, arms, PROMPT, request.param)))


Ask = Callable[..., list[ArmAnswer]]


def texts(found: list[ArmAnswer]) -> list[tuple[str, int, bool]]:
    return [(each.text, each.tokens, each.finished) for each in found]


def test_one_adapter_at_full_weight_is_mixed_into_itself(ask: Ask) -> None:
    for weights in (Weights({"calm": 1}), Weights({})):
        mixed = ask(Arm("mixed", weights, way="mod"))
        assert texts(mixed) == texts(ask(Arm("soup", weights)))
        assert mixed[0].decoded == mixed[0].tokens


@pytest.mark.parametrize("how", HOWS, ids=["greedy", "drawn"])
def test_an_activated_soup_leaves_the_prompt_to_the_base(plain: Engine, pico_store: Store, how: Sampling) -> None:
    policy, weights = Policy.open(tuple(pico_store)), [Weights({"loud": 1}), Weights({"calm": 1}), Weights({})]
    arms = tuple(Arm(str(number), each, way="activated") for number, each in enumerate(weights))
    found = texts(list(WAYS["activated"](Asked(plain, policy, arms, PROMPT, how))))
    made = {
        mode: [
            (each.text, each.tokens, each.finished)
            for each in plain.complete(
                [conversation_of(arm, PROMPT) for arm in arms],
                list(map(policy.clamp, weights)),
                sampling=how,
                mode=mode,
                streams=[0] * 3,
            )
        ]
        for mode in MODES
    }
    assert found == made["answer"]
    assert found[:2] != made["full"][:2]
    assert found[2] == made["full"][2]


@pytest.mark.parametrize(
    ("weights", "shares"),
    [
        ({"calm": 1}, [1.0]),
        ({"calm": "0.7", "plain": 0}, [0.7, 0.3]),
        ({"calm": "0.7", "loud": "0.3"}, [0.7, 0.3]),
        ({"calm": 1, "loud": "0.7", "plain": 1}, [1.0, 0.7, 1.0, -1.7]),
        ({}, [1.0]),
    ],
)
def test_what_weights_leave_is_the_share_of_the_base(
    pico_store: Store, weights: dict[str, str], shares: list[float]
) -> None:
    found = mixed_adapters(Policy.open(tuple(pico_store)), Arm("mixed", Weights(weights), way="mod"))
    assert [share for _, share in found] == shares
    assert all(set(grant.granted.nonzero().values()) <= {1_000_000} for grant, _ in found)
    assert sum(shares) == pytest.approx(1)


def test_no_contrast_is_the_prompt_alone(ask: Ask, request: pytest.FixtureRequest) -> None:
    nothing = (("alpha", 0.0), ("cut", 0.0))
    assert texts(ask(replace(CONTRAST, parameters=nothing))) == texts(ask(PROMPTED))
    assert "greedy" in request.node.name or texts(ask(CONTRAST)) != texts(ask(PROMPTED))


def test_contrasts_are_added_up(ask: Ask, plain: Engine, pico_store: Store, request: pytest.FixtureRequest) -> None:
    """And what is wanted alone is one row, not two."""
    nobody = Policy.open(tuple(pico_store)).clamp(Weights({}))
    how = HOWS["drawn" in request.node.name]

    def under(*shares: tuple[str, float]) -> list[tuple[str, int, bool]]:
        asked = [({"role": "user", "content": PROMPT.text},)] * len(shares)
        said = [({"role": "system", "content": system},) if system else () for system, _ in shares]
        rows = [Member((*s, *a), nobody, share) for s, a, (_, share) in zip(said, asked, shares, strict=True)]
        made = complete_ensembles(plain, [Ensemble(tuple(rows), 0.1)], sampling=how, streams=[0])
        return [(each.text, each.tokens, each.finished) for each in made]

    both = under(("Be calm and brief.", 1), ("Be calm.", 0.5), ("Be loud.", -0.5), ("Be brief.", 0.5), ("", -0.5))
    assert texts(ask(CONTRAST)) == both
    one = replace(CONTRAST, system="Be calm.", contrasts=PAIRS[:1])
    (made,) = ask(one)
    assert texts([made]) == under(("Be calm.", 1.5), ("Be loud.", -0.5))
    assert (made.decoded, rows_of(one)) == (2 * made.tokens, 2)


def test_the_best_of_one_is_the_prompt_alone(ask: Ask) -> None:
    (made,) = ask(replace(BEST_OF_N, parameters=(("beams", 1.0), ("candidates", 1.0), ("segment", 4.0))))
    assert texts([made]) == texts(ask(PROMPTED))
    assert made.decoded == 2 * made.tokens
    (searched,) = ask(BEST_OF_N)
    assert searched.decoded is not None
    assert searched.decoded > 4 * searched.tokens


def test_an_answer_does_not_depend_on_who_else_is_asked(ask: Ask) -> None:
    for arm, other in (
        (MOD, Arm("other", Weights({"plain": 1}), way="mod")),
        (CONTRAST, replace(CONTRAST, system="Be.", contrasts=PAIRS[1:])),
        (BEST_OF_N, replace(BEST_OF_N, parameters=(*BEST[:2], ("segment", 3.0)))),
    ):
        alone = [*ask(arm), *ask(other)]
        assert ask(arm, other, arm) == [alone[0], alone[1], alone[0]]


def test_arms_are_packed_by_the_rows_that_they_take() -> None:
    plain = [Arm(str(number), Weights({})) for number in range(65)]
    assert [len(each) for each in _packed(plain, 64)] == [33, 32]
    assert [rows_of(arm) for arm in (PROMPTED, MOD, CONTRAST, BEST_OF_N)] == [1, 3, 5, 8]
    some = [BEST_OF_N, MOD, CONTRAST, *plain[:4]]
    for rows in (1, 5, 8, 9, 20, 64):
        packed = list(_packed(some, rows))
        assert [arm for each in packed for arm in each] == some
        assert all(len(each) == 1 or sum(map(rows_of, each)) <= rows for each in packed)
    assert len(list(_packed(some, 20))) == 1

"""What was asked before is answered from memory: by the same rules, for the same people, and without growing."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soupmix.errors import PolicyError, PolicyRefusal
from soupmix.policy import Policy
from soupmix.policy import policy as policy_module
from tests.support.draw import Draw
from tests.support.policies import NOW, build, document

MINOR: dict[str, Any] = {"scope": {"audience": ["minor"]}}


def told(policy: Policy, weights: Any, attributes: dict[str, str], sources: Any) -> object:
    try:
        return policy.clamp(weights, sources=sources, **attributes).to_dict()
    except PolicyRefusal as refusal:
        return refusal.reason, str(refusal)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_memory_changes_no_answer(seed: int) -> None:
    """The same weights, asked for by different people, in an order in which everything is asked again."""
    draw = Draw(seed)
    documents = draw.documents()
    try:
        policy = build(*documents)
    except PolicyError:
        return
    people = [draw.request() for _ in range(4)]
    asked = [(weights, *said) for weights, _, _ in people[:2] for _, *said in people]
    answers = [told(policy, *each) for each in asked + asked[::-1]]
    assert answers[: len(asked)] == answers[len(asked) :][::-1]
    assert answers[: len(asked)] == [told(build(*documents), *each) for each in asked]


def test_attributes_and_sources_keep_apart() -> None:
    policy = build(
        document(
            {"rule": "bounds", "adapter": "friendly", "at_most": "0.2", **MINOR},
            {"rule": "source", "adapter": "concise", "allow": ["explicit"]},
            obligations=[{"oblige": "disclose", "what": "ai", **MINOR}],
        )
    )
    for _ in range(2):
        for audience, friendly, duties in (("minor", "0.2", ("disclose ai",)), ("adult", "0.5", ())):
            for sources, concise in (("explicit", "0.4"), ("inferred", None), ({"concise": "stored"}, None)):
                grant = policy.clamp("friendly=0.5,concise=0.4", sources=sources, audience=audience)
                assert grant.granted.decimals() == {"friendly": friendly, **({"concise": concise} if concise else {})}
                assert grant.attributes == {"audience": audience}
                assert grant.sources == ((("*", sources),) if isinstance(sources, str) else (("concise", "stored"),))
                assert grant.obligations == duties


def test_memory_is_bounded_and_answers_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy_module, "_REMEMBERED", 8)
    policy, fresh = build(document()), build(document())
    for micro in range(100):
        grant = policy.clamp({"friendly": f"1.{micro:03d}"}, tenant=f"t{micro}")
        assert len(policy._remembered) <= 8
        assert grant == fresh.clamp({"friendly": f"1.{micro:03d}"}, tenant=f"t{micro}")
    assert len(policy._regions.kept) == len(policy._obliged) == 1


def test_obligations_do_not_grow_with_what_strangers_say() -> None:
    policy = build(document(obligations=[{"oblige": "retain", "days": "30", "scope": {"tenant": ["acme"]}}]))
    for index in range(50):
        assert policy.clamp("friendly=1", tenant=f"t{index}").obligations == ()
    assert policy.clamp("friendly=1", tenant="acme").obligations == ("retain 30",)
    assert len(policy._obliged) == 2
    assert len(policy._remembered) == 1, "whom a rule does not tell apart asks for the same"


def test_what_was_refused_is_refused_again() -> None:
    policy = build(document({"rule": "deny", "adapter": "unfriendly", "mode": "refuse", **MINOR}))
    for _ in range(2):
        with pytest.raises(PolicyRefusal, match="refused, not clamped") as caught:
            policy.clamp("unfriendly=0.1", audience="minor")
        assert caught.value.reason == "refused-by-rule"
        assert policy.clamp("unfriendly=0.1", audience="adult").granted.decimals() == {"unfriendly": "0.1"}


def test_an_answer_that_is_remembered_ends_with_its_document() -> None:
    clock = [NOW]
    policy = build(document(valid={"until": "2026-11-24"}), now=lambda: clock[0])
    assert policy.clamp("friendly=1.5") == policy.clamp("friendly=1.5")
    clock[0] += timedelta(days=1)
    with pytest.raises(PolicyRefusal, match="ended on 2026-11-24"):
        policy.clamp("friendly=1.5")

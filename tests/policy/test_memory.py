"""What a policy keeps between requests is bounded, whatever strangers ask, and from however many threads."""

import json
import random
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soupmix.policy import SOURCES, Policy, kinds, parse_document
from soupmix.policy import policy as policy_module
from soupmix.policy.recent import Recent
from soupmix.projection import AnyConstraint
from tests.support.shelf import NAMES, SHELF, Ref, Shelf, digest_of


def policy(*rules: dict[str, Any], shelf: Shelf = SHELF, **more: Any) -> Policy:
    content = {"tier": "organisation", "issuer": "A", "version": "1", "rules": list(rules), **more}
    return Policy.assemble([("x.yaml", parse_document(json.dumps(content), "x.yaml"))], shelf)


def shelf_of(count: int) -> Shelf:
    return Shelf(Ref(f"a{n}", f"d{n}", f"p{n}", digest_of(f"a{n}")) for n in range(count))


def every_source() -> list[dict[str, str]]:
    """All ways to say, or not to say, where the weights of every adapter come from."""
    said = product(("", *SOURCES), repeat=len(NAMES))
    return [{name: source for name, source in zip(NAMES, each, strict=True) if source} for each in said]


def test_one_region_for_one_set_of_constraints(monkeypatch: pytest.MonkeyPatch) -> None:
    """4^6 kinds of sources, of which a rule on one adapter tells two apart, and a rule on two adapters four."""
    compiled = []
    whole = kinds.Region.compile
    monkeypatch.setattr(kinds.Region, "compile", lambda *given: compiled.append(1) or whole(*given))
    one = {"rule": "source", "adapter": "friendly", "allow": ["explicit", "stored"]}
    two = {"rule": "source", "dimension": "length", "allow": ["explicit"]}
    both = {"rule": "source", "dimension": "length", "allow": ["explicit", "inferred"]}
    for rules, most in (((one,), 2), ((two,), 4), ((one, two), 8), ((two, both), 9)):
        made = policy(*rules)
        compiled.clear()
        asked = every_source()
        applied = {tuple(map(id, _applied(made, each))) for each in asked}
        for each in asked:
            made.clamp("friendly=0.4,concise=0.4", sources=each)
        assert len(made._regions.kept) == len(applied) == most
        assert len(compiled) == most - 1, "the first was compiled when the policy was loaded"


def _applied(made: Policy, sources: dict[str, str]) -> list[AnyConstraint]:
    return made._regions.constraints(made._regions.kinds.kind({}, made._by_coordinate(sources)))


def test_memory_stays_bounded_under_thousands_of_kinds_of_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    """20,000 took 172 MiB. 2^16 sets of constraints, nearly all of them different, and none may be kept for ever."""
    monkeypatch.setattr(kinds, "_ROWS", 1600)
    monkeypatch.setattr(policy_module, "_REMEMBERED", 100)
    made, draw = policy({"rule": "source", "allow": ["explicit"]}, shelf=shelf_of(16)), random.Random(0)
    names = list(made.names)

    def ask(times: int) -> None:
        for _ in range(times):
            sources = {name: draw.choice(SOURCES) for name in names if draw.random() < 0.75}
            made.clamp(dict.fromkeys(names, "0.5"), sources=sources)

    tracemalloc.start()
    ask(400)  # all that is kept is full, and has been made anew
    before = tracemalloc.get_traced_memory()[0]
    ask(1000)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 1 << 18
    assert made._regions.kept._sum <= kinds._ROWS
    assert len(made._remembered) <= policy_module._REMEMBERED


def test_obligations_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy_module, "_OBLIGED", 5)
    tenants = [f"t{number}" for number in range(20)]
    duties = [{"oblige": "offer", "what": "export", "scope": {"tenant": [each]}} for each in tenants]
    made = policy(obligations=duties)
    for _ in range(2):
        for tenant in tenants:
            assert made.clamp({}, tenant=tenant).obligations == ("offer export",)
        assert made.clamp({}, tenant="nobody").obligations == ()
        assert len(made._obliged) == 5


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9), st.integers(1, 7)), max_size=60), st.integers(1, 20))
def test_the_least_recently_used_goes_first(moves: list[tuple[bool, int, int]], most: int) -> None:
    """Against a list that is searched: keys in the order of their use."""
    recent, plain = Recent[int, int](most, lambda size: size), list[tuple[int, int]]()
    for looks, key, size in moves:
        held = dict(plain)
        if looks:
            assert recent.get(key) == held.get(key)
            if key in held:
                plain = [*(each for each in plain if each[0] != key), (key, held[key])]
        else:
            assert recent.keep(key, size) == size
            plain = [*(each for each in plain if each[0] != key), (key, size)]
            while len(plain) > 1 and sum(size for _, size in plain) > most:
                plain.pop(0)
        assert len(recent) == len(plain)
        assert sum(size for _, size in plain) == recent._sum


def test_threads_get_the_answers_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy_module, "_REMEMBERED", 3)
    monkeypatch.setattr(kinds, "_ROWS", 20)
    rule = {"rule": "source", "allow": ["explicit"]}
    asked = random.Random(1).sample(every_source(), 60) * 4
    made, alone = policy(rule), policy(rule)

    def ask(sources: dict[str, str]) -> object:
        return made.clamp(dict.fromkeys(NAMES, "0.4"), sources=sources)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, asked))
    assert answers == [alone.clamp(dict.fromkeys(NAMES, "0.4"), sources=each) for each in asked]
    assert len(made._remembered) <= 3

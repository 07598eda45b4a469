"""A bound on the norm of the merged delta, and the clamp in the metric of the merged delta."""

import json
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from soupmix.errors import PolicyError, PolicyRefusal
from soupmix.methods import check_linear
from soupmix.policy import Grant, Policy, parse_document
from soupmix.policy.compare import difference
from soupmix.policy.recorded import read_record
from soupmix.projection import active_set
from soupmix.projection.certificate import certified
from soupmix.projection.constraints import sides_of
from soupmix.projection.quadratic import Quadratic
from soupmix.weights import MILLION, decimal_text
from tests.support.claims import accepted, region_of
from tests.support.policies import Measured, measured, norm_policy
from tests.support.shelf import NAMES, SHELF, Ref, digest_of

BUDGET = 1.5


def vector(weights: Mapping[str, int]) -> np.ndarray:
    return np.array([weights.get(name, 0) / MILLION for name in NAMES])


def asked_of(grant: Grant, found: Policy) -> tuple[list[int], list[int]]:
    names = region_of(found).space.names
    return [grant.requested.get(n, 0) for n in names], [grant.granted.get(n, 0) for n in names]


requests = st.dictionaries(st.sampled_from(NAMES), st.integers(-200_000, 1_300_000).map(decimal_text))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), requests, st.floats(0.001, 0.06), st.booleans())
def test_the_norm_holds_and_nothing_is_nearer(seed: int, want: dict[str, str], share: float, dependent: bool) -> None:
    shelf = measured(seed, dependent)
    made = norm_policy(shelf, share)
    grant = made.clamp(want)
    w, v, limit = vector(grant.granted), vector(grant.requested), float(f"{share:.6f}") * shelf.base_norm
    assert np.sqrt(w @ shelf.gram @ w) <= limit * (1 + 1e-9)
    assert accepted(region_of(made), *asked_of(grant, made))
    if "norm" in [each.rule for each in grant.binding]:
        assert np.sqrt(w @ shelf.gram @ w) >= limit * (1 - 1e-3), "it only binds where it is met"
    other = _second_solver(v, shelf.gram, limit)
    assert np.linalg.norm(w - v) <= np.linalg.norm(other - v) + 2e-5


def _second_solver(v: np.ndarray, gram: np.ndarray, limit: float) -> np.ndarray:
    """SLSQP on the same set: the default box, poles and budget, and the norm."""
    pairs = [[NAMES.index(a), NAMES.index(b)] for a, b in _poles()]
    sums = [{"type": "ineq", "fun": lambda w, p=p: 1 - w[p].sum()} for p in [*pairs]]
    sums += [{"type": "ineq", "fun": lambda w: BUDGET - w.sum()}]
    sums += [{"type": "ineq", "fun": lambda w: limit**2 - w @ gram @ w, "jac": lambda w: -2 * gram @ w}]
    found = minimize(
        lambda w: ((w - v) ** 2).sum(),
        np.zeros(6),
        jac=lambda w: 2 * (w - v),
        bounds=[(0, 1)] * 6,
        constraints=sums,
        options={"maxiter": 300, "ftol": 1e-14},
    )
    w = np.clip(found.x, 0, 1)
    return w * min(
        1.0,
        limit / max(np.sqrt(w @ gram @ w), 1e-12),
        *(1 / max(w[p].sum(), 1e-12) for p in pairs),
        BUDGET / max(w.sum(), 1e-12),
    )


def _poles() -> list[tuple[str, str]]:
    by_dimension: dict[str, list[str]] = {}
    for ref in SHELF:
        by_dimension.setdefault(ref.dimension, []).append(ref.name)
    return [(a, b) for a, b in by_dimension.values()]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), requests, st.none() | st.floats(0.005, 0.06), st.booleans())
def test_the_metric_of_the_delta(seed: int, want: dict[str, str], share: float | None, dependent: bool) -> None:
    shelf = measured(seed, dependent)
    made = norm_policy(shelf, share, "delta", {"rule": "exclusive", "dimension": "style"})
    grant = made.clamp(want)
    assert accepted(region_of(made), *asked_of(grant, made))
    assert grant.metric == "delta"
    plain = norm_policy(shelf, share, "weights", {"rule": "exclusive", "dimension": "style"}).clamp(want)
    v = vector(grant.requested)
    delta = lambda w: (w - v) @ shelf.gram @ (w - v)  # noqa: E731
    ridge = 7e-6 * shelf.gram.diagonal().max()
    slack = ridge * float((vector(plain.granted) - v) @ (vector(plain.granted) - v)) + 1e-4
    assert delta(vector(grant.granted)) <= delta(vector(plain.granted)) + slack
    assert made.digest != norm_policy(shelf, share, "weights", {"rule": "exclusive", "dimension": "style"}).digest


def test_without_norms_there_is_no_bound_on_a_norm() -> None:
    with pytest.raises(PolicyError, match="does not record the norms") as caught:
        norm_policy(SHELF, 0.1)
    assert caught.value.reason == "no-norms"
    with pytest.raises(PolicyError, match="metric 'delta' needs a store") as caught:
        Policy.open(SHELF, metric="delta")
    assert caught.value.reason == "no-norms"


def test_what_is_inside_the_ball_stays() -> None:
    shelf = measured(3)
    made = norm_policy(shelf, 0.02)
    once = made.clamp("elementary=1,friendly=1")
    assert [each.rule for each in once.binding] == ["norm"] or "norm" in [each.rule for each in once.binding]
    again = made.clamp(once.granted)
    assert not again.clamped
    assert again.distance == "0"


def test_an_adapter_that_is_not_in_the_store_has_no_norm() -> None:
    extra = Ref("elsewhere", "style", "elsewhere", digest_of("elsewhere"))
    with pytest.raises(PolicyError, match="does not record the norms"):
        norm_policy(
            measured(1),
            0.1,
            "weights",
            {"rule": "approve", "adapters": [{"name": extra.name, "digest": extra.digest}]},
        )


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.integers(-300_000, 1_500_000), min_size=6, max_size=6), st.booleans())
def test_in_a_metric_the_rational_way_agrees(seed: int, asked: list[int], dependent: bool) -> None:
    made = norm_policy(
        measured(seed, dependent), None, "delta", {"rule": "group", "adapters": ["expert", "concise"], "at_most": "0.4"}
    )
    region = region_of(made)
    (face,) = region.faces
    sides = [side for side in sides_of(face.rows) if side.normal]
    exact = active_set._in_rationals(Quadratic.distance(asked, region.space.metric), sides)
    found = face.project(asked, region.space.metric)
    assert exact is not None
    assert found is not None
    assert exact.weights == found.weights
    assert certified(asked, face.rows, found, region.space.metric)


def test_what_is_wrong_about_a_norm_is_not_certified() -> None:
    made = norm_policy(measured(5), 0.02)
    (face,) = region_of(made).faces
    asked = [900_000, 0, 500_000, 0, 800_000, 0]
    found = face.project(asked, None)
    assert found is not None
    assert found.share > 0
    assert certified(asked, face.rows, found, None, face.ball)
    assert not certified(asked, face.rows, found, None, None), "a share without a bound"
    assert not certified(asked, face.rows, replace(found, share=-found.share), None, face.ball)
    assert not certified(asked, face.rows, replace(found, share=found.share * 2), None, face.ball)
    wider = replace(face.ball, limit=face.ball.limit * 4) if face.ball else None
    assert not certified(asked, face.rows, found, None, wider), "far from the bound it does not bind"
    tighter = replace(face.ball, limit=face.ball.limit // 4) if face.ball else None
    assert not certified(asked, face.rows, found, None, tighter)


def test_a_ball_that_no_demand_fits_into_is_a_conflict() -> None:
    with pytest.raises(PolicyError, match=r"floor.*norm|norm.*floor") as caught:
        norm_policy(
            measured(1), 0.0001, "weights", {"rule": "require", "adapter": "expert", "at_least": "0.9", "id": "floor"}
        )
    assert caught.value.reason == "conflict"


@pytest.mark.parametrize("seed", range(6))
def test_norms_are_compared_as_far_as_that_can_be_decided(seed: int) -> None:
    shelf = measured(seed)
    loose, tight, none, vast = (norm_policy(shelf, share) for share in (0.03, 0.02, None, 1000.0))
    assert difference(loose, tight).contained
    assert difference(none, tight).contained
    assert difference(vast, none).contained, "no weights reach so far"
    for old, new in ((tight, loose), (tight, none)):
        found = difference(old, new)
        assert not found.contained
        for each in found.widenings:
            assert new.clamp(each.weights).granted == each.weights.nonzero()
            assert old.clamp(each.weights).clamped
        assert found.widenings or "does not prove" in found.undecided[0]


def test_norms_of_other_adapters_cannot_be_compared() -> None:
    shelf = measured(1)
    fewer = Measured(shelf[:5])
    fewer.gram = shelf.gram
    found = difference(norm_policy(fewer, 0.02), norm_policy(shelf, 0.02))
    assert not found.contained
    assert "does not record the norms" in found.undecided[0]


def test_a_grant_says_which_rule_bounds_its_norm() -> None:
    """The tightest that applies; and by it no method may merge whose merge is not the sum of deltas."""
    shelf = measured(3)
    minors = {"scope": {"audience": ["minor"]}}
    rules = [
        {"rule": "norm", "id": "all", "at_most": "0.02"},
        {"rule": "norm", "id": "minors", "at_most": "0.01", **minors},
    ]
    content = {"tier": "law", "issuer": "x", "version": "1", "rules": rules}
    made = Policy.assemble([("law.yaml", parse_document(json.dumps(content), "law.yaml"))], shelf)
    assert [each.ref.id for each in made.norm_rules] == ["all", "minors"]
    for audience, rule in (("minor", "minors"), ("adult", "all")):
        grant = made.clamp("friendly=0.1", audience=audience)
        assert grant.norm_rule == f"law.yaml (law) {rule}"
        assert read_record(grant.to_dict()).to_dict() == grant.to_dict()
        check_linear("delta", grant.norm_rule)
        with pytest.raises(PolicyRefusal, match=rf"method factor was asked for, and law\.yaml \(law\) {rule} bounds"):
            check_linear("factor", grant.norm_rule)
    free = Policy.open(shelf)
    assert (free.norm_rules, free.clamp("friendly=0.1").norm_rule) == ((), None)
    check_linear("factor", None)

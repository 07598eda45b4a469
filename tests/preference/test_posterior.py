"""The laws of a posterior over wants; and what it finds, against sums over a grid and people whose wants are known."""

import itertools
import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soupmix.errors import PreferenceError
from soupmix.preference import Posterior, Prior, Signal
from soupmix.preference.comparisons import COUNTS
from soupmix.preference.population import fitted
from soupmix.preference.prior import Gaussian
from soupmix.preference.signal import KINDS
from tests.support.wanting import answered, choice, signal, traits

OF, SIGNED = traits(3), traits(3, signed=True)
NORTH, EAST = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)


def everything(posterior: Posterior) -> list[bytes]:
    """All that a posterior says, to the bit."""
    parts = [
        (posterior.probabilities(m), posterior.intervals(model=m), posterior.log_evidence(m)) for m in posterior.wants
    ]
    return [np.asarray(each).tobytes() for each in itertools.chain(*parts)]


def mixed(count: int, seed: int = 0) -> list[Signal]:
    """Signals of every kind, from three sources."""
    draw = np.random.default_rng(seed)
    found = []
    for number in range(count):
        kind = sorted(KINDS)[number % len(KINDS)]
        more: dict[str, object] = {"source": f"s{number % 3}", "at": float(number % 7)}
        if kind in ("choice", "thumbs", "rating"):
            more["value"] = int(draw.integers(2))
        if kind == "cue":
            more["toward"] = {"t1": -1.0}
        found.append(signal(OF, f"m{number}", kind, *draw.standard_normal((KINDS[kind], 3)), **more))  # type: ignore[arg-type]
    return found


# --- laws -------------------------------------------------------------------------------------------------------------


@given(st.randoms(use_true_random=False))
@settings(max_examples=4, deadline=None)
def test_the_order_of_evidence_leaves_no_trace(luck: random.Random) -> None:
    said = mixed(20)
    shuffled = luck.sample(said, len(said))
    one, other = Posterior(OF), Posterior(OF)
    one.learn(*said)
    for each in shuffled:
        other.learn(each)
    assert everything(one) == everything(other)
    assert one.signals == other.signals


@given(st.sets(st.integers(0, 19)))
@settings(max_examples=4, deadline=None)
def test_forgetting_equals_never_having_known(places: set[int]) -> None:
    said = mixed(20)
    one, other = Posterior(OF), Posterior(OF)
    one.learn(*said)
    one.forget(*(said[place].id for place in sorted(places)))
    other.learn(*(each for place, each in enumerate(said) if place not in places))
    assert everything(one) == everything(other)
    one.forget_all()
    assert everything(one) == everything(Posterior(OF))
    assert one.signals == ()


@pytest.mark.parametrize("of", [OF, SIGNED])
def test_no_evidence_is_the_prior(of: object) -> None:
    posterior = Posterior(of)  # type: ignore[arg-type]
    assert posterior.models() == {"linear": pytest.approx(0.5), "ideal": pytest.approx(0.5)}
    assert posterior.best == "linear"
    flat = 1 / 3 if of is OF else 0.0
    assert posterior.mean("linear") == pytest.approx([flat] * 3, abs=0.01)
    assert posterior.mean("ideal") == pytest.approx([0] * 3, abs=0.02)
    assert posterior.intervals(0.9, "ideal") == pytest.approx(np.array([[-2.25, 2.25]] * 3), abs=0.03)
    assert posterior.predict({"t0": 1, "t1": 0, "t2": 0}, {"t0": 0, "t1": 1, "t2": 0}) == pytest.approx(0.5, abs=0.005)


def test_flat_shares_are_those_of_a_dirichlet() -> None:
    """Each share alone is Beta(1, 2), whose quantiles are 1 - sqrt(1 - q)."""
    ends = Posterior(OF, models=("linear",)).intervals(0.8, "linear")
    assert ends == pytest.approx(np.array([[1 - math.sqrt(0.9), 1 - math.sqrt(0.1)]] * 3), abs=0.01)


def test_exchanging_two_answers_changes_nothing() -> None:
    one, other = Posterior(OF), Posterior(OF)
    one.learn(choice(OF, "a", (1.2, -0.3, 0.4), (0.1, 0.9, -2.0), 0))
    other.learn(choice(OF, "a", (0.1, 0.9, -2.0), (1.2, -0.3, 0.4), 1))
    assert everything(one) == everything(other)


@pytest.mark.parametrize("model", ["linear", "ideal"])
def test_contradictions_widen(model: str) -> None:
    """Who says the opposite of everything is known less well than before."""
    draw = np.random.default_rng(3)
    pairs = draw.standard_normal((12, 2, 3))
    posterior = Posterior(SIGNED, models=(model,))  # type: ignore[arg-type]
    posterior.learn(*(choice(SIGNED, f"a{n}", a, b, int(a[0] < b[0])) for n, (a, b) in enumerate(pairs)))
    before, sharp = np.trace(posterior.covariance()), posterior.sharpness()
    posterior.learn(*(choice(SIGNED, f"b{n}", a, b, int(a[0] > b[0])) for n, (a, b) in enumerate(pairs)))
    assert np.trace(posterior.covariance()) > 1.2 * before
    assert posterior.sharpness() < sharp


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_flood_from_one_source_is_bounded(kind: str) -> None:
    """However much a source sends in a kind, all of it weighs as much as a bounded number of choices."""
    more: dict[str, object] = {"value": 1} if kind in ("choice", "thumbs", "rating") else {}
    if kind == "cue":
        more = {"toward": {"t0": 1.0}}
    one = [signal(OF, f"f{n}", kind, *[NORTH, EAST][: KINDS[kind]], **more) for n in range(450)]  # type: ignore[arg-type]
    flooded = Posterior(OF, models=("linear",))
    flooded.learn(*one)
    counts = COUNTS[kind]  # type: ignore[index]
    reach = counts.most / counts.each * KINDS[kind] ** (kind == "neither")
    worst = math.log((1 - 0.01) / 0.01) * counts.each * reach
    probabilities = flooded.probabilities()
    assert np.log(probabilities.max() / probabilities[probabilities > 0].min()) <= worst + 1e-6
    again = Posterior(OF, models=("linear",))
    again.learn(*one[: math.ceil(counts.most / counts.each)])
    assert flooded.mean() == pytest.approx(again.mean(), abs=1e-6)


def test_no_single_answer_rules_anything_out() -> None:
    posterior = Posterior(OF)
    posterior.learn(choice(OF, "a", (900.0, -900.0, 0.0), (-900.0, 900.0, 0.0)))
    assert (posterior.probabilities("linear") > 1e-6).all()


@pytest.mark.parametrize(
    ("kind", "sign", "more"),
    [
        ("thumbs", 1, {"value": 1}),
        ("thumbs", -1, {"value": 0}),
        ("rating", 1, {"value": 0.8}),
        ("rating", -1, {"value": 0.3}),
        ("cue", 1, {"toward": {"t0": 1.0}}),
        ("cue", -1, {"toward": {"t0": -0.5}}),
        ("copy", 1, {}),
        ("silence", 1, {}),
        ("regenerate", -1, {}),
    ],
)
def test_every_kind_moves_wants_where_it_says(kind: str, sign: int, more: dict[str, object]) -> None:
    posterior = Posterior(SIGNED, models=("linear",))
    posterior.learn(signal(SIGNED, "a", kind, NORTH, **more))  # type: ignore[arg-type]
    moved = posterior.mean()
    assert sign * moved[0] > 0.01
    assert abs(moved[1:]).max() < 0.2 * abs(moved[0])


def test_of_two_answers_every_kind_says_what_it_means() -> None:
    def after(kind: str, **more: object) -> np.ndarray:  # type: ignore[type-arg]
        posterior = Posterior(SIGNED, models=("linear",))
        posterior.learn(signal(SIGNED, "a", kind, NORTH, EAST, **more))  # type: ignore[arg-type]
        return posterior.mean()

    first, second = after("choice", value=0), after("choice", value=1)
    assert first[0] > 0.2
    assert first[1] < -0.2
    assert second == pytest.approx(-first, abs=0.05)
    assert after("edit") == pytest.approx(second)  # what it became is preferred to what it was
    assert (after("neither")[:2] < -0.1).all()
    assert abs(after("tie")).max() < 0.02
    tied = Posterior(SIGNED, models=("linear",))
    tied.learn(signal(SIGNED, "a", "tie", NORTH, EAST))
    spread = tied.covariance()
    apart = np.array([1.0, -1.0, 0.0]) / math.sqrt(2)
    assert apart @ spread @ apart < 0.8 / 3  # a tie says that the two are worth the same


def test_the_seed_and_nothing_else_decides() -> None:
    one, same, other = Posterior(OF, seed=4), Posterior(OF, seed=4), Posterior(OF, seed=5)
    for each in (one, same, other):
        each.learn(*mixed(10))
    assert everything(one) == everything(same)
    assert everything(one) != everything(other)
    assert one.mean("linear") == pytest.approx(other.mean("linear"), abs=0.03)


# --- against what is known otherwise ----------------------------------------------------------------------------------


def test_it_is_the_sum_over_a_grid() -> None:
    """Two traits and one answer: integrated over shares, sharpness and floors by brute force, in float64."""
    of = traits(2)
    posterior = Posterior(of, models=("linear",), particles=16384)
    posterior.learn(choice(of, "a", (1.0, 0.0), (0.0, 1.0)), choice(of, "b", (2.0, 0.5), (0.0, 1.0), 1))
    share = (np.arange(20_000) + 0.5) / 20_000
    total = np.zeros_like(share)
    cells = zip(posterior.how.sharpness, posterior.how.weights, strict=True)
    for (sharp, weight), floor in itertools.product(cells, posterior.how.floors):
        first = floor + (1 - 2 * floor) / (1 + np.exp(-sharp * (2 * share - 1)))
        second = floor + (1 - 2 * floor) / (1 + np.exp(sharp * (2.0 * share - 0.5 * (1 - share))))
        total += weight * first * second / len(posterior.how.floors)
    assert posterior.log_evidence("linear") == pytest.approx(np.log(total.mean()), abs=1e-3)
    assert posterior.mean()[0] == pytest.approx((total * share).sum() / total.sum(), abs=1e-3)


def test_intervals_hold_as_often_as_they_say() -> None:
    """People drawn from the prior, random questions; intervals of a person are not independent: 3 s.d. of 150."""
    people = np.random.default_rng(8).dirichlet(np.ones(3), 150)
    held = []
    for number, want in enumerate(people):
        draw = np.random.default_rng([8, number])
        prior = Prior()
        sharp = prior.sharpness * math.exp(prior.spread * draw.standard_normal())
        posterior = answered(Posterior(OF, models=("linear",), particles=1024), want, 8, (9, number), sharp)
        for level in (0.5, 0.9):
            ends = posterior.intervals(level)
            held.append(((ends[:, 0] <= want) & (want <= ends[:, 1])).mean())
    half, most = np.array(held).reshape(-1, 2).mean(0)
    assert half == pytest.approx(0.5, abs=3 * math.sqrt(0.25 / 150))
    assert most == pytest.approx(0.9, abs=3 * math.sqrt(0.09 / 150))


@pytest.mark.parametrize("model", ["linear", "ideal"])
def test_evidence_finds_which_model_a_person_is(model: str) -> None:
    draw = np.random.default_rng(5)
    posterior = Posterior(SIGNED)
    said = []
    for number in range(40):
        first, second = draw.standard_normal((2, 3))
        point = np.array([0.4, -0.3, 0.1])
        nearer = np.square(second - point).sum() - np.square(first - point).sum()
        better = nearer if model == "ideal" else (first - second)[0]
        said.append(choice(SIGNED, f"a{number}", first, second, int(better < 0)))
    posterior.learn(*said)
    assert posterior.best == model
    assert posterior.models()[model] > 0.9
    assert set(posterior.to_dict()["models"]) == {"linear", "ideal"}


def test_a_prior_of_a_population_needs_fewer_answers() -> None:
    """People who all want much of the first trait: much is known of a new one at once."""
    draw = np.random.default_rng(2)
    people = draw.dirichlet((16.0, 2.0, 2.0), 30)
    known = [answered(Posterior(OF, models=("linear",), particles=512), w, 20, (1, n)) for n, w in enumerate(people)]
    prior = fitted(known)
    assert Posterior(OF, prior).mean("linear") == pytest.approx(people.mean(0), abs=0.08)
    errors = {"flat": [], "fitted": []}  # type: ignore[var-annotated]
    for number, want in enumerate(draw.dirichlet((16.0, 2.0, 2.0), 20)):
        for name, each in (("flat", Prior()), ("fitted", prior)):
            after = answered(Posterior(OF, each, models=("linear",), particles=1024), want, 5, (3, number))
            errors[name].append(np.linalg.norm(after.mean() - want))
    assert np.mean(errors["fitted"]) < 0.6 * np.mean(errors["flat"])


def test_how_strictly_a_population_chooses_is_known_from_all_of_them() -> None:
    """Nobody's own answers tell it well: by itself it is as unknown of each as it was before."""
    draw = np.random.default_rng(4)
    people = draw.dirichlet((16.0, 2.0, 2.0), 30)
    for sharpness in (2.0, 9.0):
        known = [
            answered(Posterior(OF, models=("linear",), particles=512), w, 20, (5, n), sharpness)
            for n, w in enumerate(people)
        ]
        found = fitted(known)
        alone = np.mean([each.sharpnesses() @ np.log(np.maximum(each.how.sharpness, 1e-9)) for each in known])
        assert found.spread < 0.6 * Prior().spread
        assert abs(np.log(found.sharpness / sharpness)) < 0.4
        assert abs(np.log(found.sharpness / sharpness)) <= abs(alone - np.log(sharpness)) + 0.05


def test_a_fitted_gaussian_is_that_of_the_law_of_total_variance() -> None:
    draw = np.random.default_rng(0)
    means = draw.standard_normal((4000, 2)) @ np.array([[1.0, 0.5], [0.0, 0.3]])
    found = Gaussian.fitted(means, np.broadcast_to(0.25 * np.eye(2), (4000, 2, 2)))
    assert np.array(found.covariance) == pytest.approx(np.array([[1.25, 0.5], [0.5, 0.59]]), abs=0.06)
    assert found.factor() @ found.factor().T == pytest.approx(np.array(found.covariance))


# --- what is refused --------------------------------------------------------------------------------------------------


def refused(reason: str, call: object, *arguments: object) -> None:
    with pytest.raises(PreferenceError) as caught:
        call(*arguments)  # type: ignore[operator]
    assert caught.value.reason == reason
    assert len(str(caught.value)) > 20


def test_replayed_foreign_and_impossible_evidence_is_refused_and_nothing_is_learnt() -> None:
    posterior = Posterior(OF)
    posterior.learn(choice(OF, "a", NORTH, EAST))
    before = everything(posterior)
    elsewhere = traits(3, of="sha256:" + "2" * 64)
    refused("replayed", posterior.learn, choice(OF, "a", EAST, NORTH))
    refused("replayed", posterior.learn, choice(OF, "b", EAST, NORTH), choice(OF, "b", NORTH, EAST))
    refused("other-traits", posterior.learn, choice(OF, "b", EAST, NORTH), choice(elsewhere, "c", NORTH, EAST))
    refused("too-far", posterior.learn, choice(OF, "d", (1e4, 0, 0), EAST))
    short = signal(OF, "e", "copy", NORTH).model_copy(update={"answers": ({"t0": 1.0},)})
    refused("other-traits", posterior.learn, short)
    hidden = signal(OF, "e", "copy", NORTH).model_copy(update={"answers": ({"t0": math.nan, "t1": 0.0, "t2": 0.0},)})
    refused("bad-number", posterior.learn, hidden)
    refused("other-traits", posterior.learn, signal(OF, "g", "cue", NORTH, toward={"humour": 1.0}))
    refused("unknown-signal", posterior.forget, "a", "zz")
    assert everything(posterior) == before
    assert [each.id for each in posterior.signals] == ["a"]


@pytest.mark.parametrize(
    "content",
    [
        {"answers": [{"t0": float("nan")}]},
        {"answers": [{"t0": float("inf")}]},
        {"answers": [{"t0": 1e13}]},
        {"answers": [{"t0": True}]},
        {"answers": [{"t0": "1"}]},
        {"answers": [{}]},
        {"answers": [{"t0": 1.0}, {"t0": 1.0}]},
        {"answers": []},
        {"answers": None},
        {"answers": 3},
        {"id": "../x"},
        {"id": ""},
        {"kind": "applause"},
        {"kind": "choice", "answers": [{"t0": 1.0}, {"t0": 2.0}]},
        {"kind": "choice", "answers": [{"t0": 1.0}, {"t0": 2.0}], "value": 0.5},
        {"kind": "thumbs", "value": -1},
        {"kind": "rating", "value": 1.01},
        {"kind": "cue"},
        {"kind": "cue", "toward": {"t0": 3.0}},
        {"value": 1},
        {"traits": "sha256:x"},
        {"at": -1.0},
        {"at": float("inf")},
        {"topic": "a\nb"},
        {"weight": 5},
    ],
)
def test_what_is_no_signal_is_refused_with_a_sentence(content: dict[str, object]) -> None:
    good = {"id": "a", "kind": "copy", "source": "page", "traits": OF.digest, "answers": [{"t0": 1.0}]}
    assert Signal.read(good).kind == "copy"
    refused("bad-signal", Signal.read, {**good, **content})


def test_impossible_traits_priors_and_particles_are_refused() -> None:
    refused("bad-traits", traits, 0)
    refused("bad-traits", traits, 17)
    refused("bad-prior", lambda: Prior(sharpness=0))
    refused("bad-prior", lambda: Prior(sharpness=math.nan))
    refused("bad-prior", lambda: Prior(floors=(0.5,)))
    refused("bad-prior", lambda: Prior(floors=()))
    refused("bad-prior", lambda: Posterior(OF, particles=1000))
    refused("bad-prior", lambda: Posterior(OF, models=()))
    other = Prior(populations={"linear": Gaussian((0.0,), ((1.0,),))})
    refused("other-traits", lambda: Posterior(OF, other))
    refused("too-few-people", lambda: fitted([Posterior(OF)] * 4))


def test_there_is_an_end_to_signals() -> None:
    posterior = Posterior(OF, particles=64)
    posterior.learn(*(signal(OF, f"c{n}", "copy", NORTH) for n in range(3)))
    refused("too-many-signals", posterior.learn, *[signal(OF, "x", "copy", NORTH)] * 10_000)

"""A posterior that is written down, carried elsewhere, and not believed when it should not be."""

import json
from dataclasses import replace

import numpy as np
import pytest

from soupmix.errors import PreferenceError
from soupmix.preference import Posterior, Prior, Trait, Traits
from soupmix.preference.alarms import alarms, calibration
from soupmix.preference.kept import exported, imported, translated
from soupmix.preference.prior import Gaussian
from tests.support.wanting import answered, choice, signal, traits

OF = traits(3)


def test_what_is_exported_comes_back_to_the_bit() -> None:
    prior = Prior(populations={"linear": Gaussian((0.1, 0.0, -0.1), ((1.0, 0.1, 0), (0.1, 1.0, 0), (0, 0, 0.5)))})
    posterior = answered(Posterior(OF, prior, particles=256, seed=3), np.array([0.2, 0.5, 0.3]), 6, (1,))
    posterior.learn(signal(OF, "q", "cue", (0.1, 0.2, 0.3), toward={"t1": -1.0}, topic="cooking", at=9.5))
    again = imported(exported(posterior), OF)
    assert again.signals == posterior.signals
    assert exported(again) == exported(posterior)
    for model in posterior.wants:
        assert again.probabilities(model).tobytes() == posterior.probabilities(model).tobytes()


def test_evidence_of_other_adapters_is_translated_only_when_asked_for() -> None:
    """The same texts measured in other units, under another name, and in another order."""
    theirs = Traits((Trait("words", "words", 60, 30), Trait("grade", "grade", 9, 3)), OF.of)
    ours = Traits((Trait("grade", "grade", 8, 2), Trait("length", "words", 50, 10)), "sha256:" + "3" * 64)
    posterior = Posterior(theirs)
    posterior.learn(choice(theirs, "a", (20.0, 5.0), (90.0, 12.0), 0))
    posterior.learn(signal(theirs, "b", "cue", (90.0, 9.0), toward={"words": -1.0}))
    with pytest.raises(PreferenceError) as caught:
        imported(exported(posterior), ours)
    assert caught.value.reason == "other-traits"
    carried = imported(exported(posterior), ours, translate=True)
    direct = Posterior(ours)
    direct.learn(choice(ours, "a", (5.0, 20.0), (12.0, 90.0), 0))
    direct.learn(signal(ours, "b", "cue", (9.0, 90.0), toward={"length": -1.0}))
    assert carried.mean("linear").tobytes() == direct.mean("linear").tobytes()
    narrow = Traits((Trait("warmth", "warmth"), Trait("length", "words")), ours.of)
    with pytest.raises(PreferenceError, match="warmth was not measured by both"):
        imported(exported(posterior), narrow, translate=True)
    with pytest.raises(PreferenceError, match="not by the traits"):
        translated(posterior.signals[0], ours, theirs)


@pytest.mark.parametrize(
    ("what", "value"),
    [
        ("schema_version", 2),
        ("traits", None),
        ("signals", [{}]),
        ("signals", None),
        ("particles", 10**9),
        ("seed", -1),
        ("prior", {}),
        ("prior", {"sharpness": 9e99, "spread": 1, "floors": [0.1], "careless": 0, "populations": {}}),
        (
            "prior",
            {
                "sharpness": 1,
                "spread": 1,
                "floors": [0.1],
                "careless": 0,
                "populations": {"linear": {"mean": [0], "covariance": [[1]]}},
            },
        ),
        ("prior", {"sharpness": 1, "spread": 1, "floors": [0.1], "careless": 0, "populations": []}),
        ("more", 1),
    ],
)
def test_a_changed_file_is_refused(what: str, value: object) -> None:
    content = json.loads(exported(answered(Posterior(OF), np.array([1.0, 0, 0]), 2, (1,))))
    with pytest.raises(PreferenceError):
        imported(json.dumps({**content, what: value}).encode(), OF)


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b"\xff", b'{"a": NaN}', b"[" * 100_000])
def test_what_is_no_file_of_wants_is_refused(raw: bytes) -> None:
    with pytest.raises(PreferenceError) as caught:
        imported(raw, OF)
    assert caught.value.reason == "bad-wants"


# --- alarms -----------------------------------------------------------------------------------------------------------


def chosen(count: int, decide: object, seed: int = 1) -> Posterior:
    of = traits(3, signed=True)
    draw = np.random.default_rng(seed)
    posterior = Posterior(of)
    for number in range(count):
        first, second = draw.standard_normal((2, 3))
        better = decide(number, first - second, draw)  # type: ignore[operator]
        posterior.learn(choice(of, f"a{number}", first, second, 0 if better else 1, at=float(number)))
    return posterior


def test_somebody_who_wants_one_thing_raises_no_alarm() -> None:
    posterior = chosen(30, lambda _, off, draw: draw.random() < 1 / (1 + np.exp(-4 * off[0])))
    assert alarms(posterior) == ()
    assert abs(calibration(posterior).surprise) < 2.5
    assert calibration(posterior).score > np.log(0.5)


def test_answers_by_lot_are_told_from_wants() -> None:
    found = [alarms(chosen(40, lambda _n, _off, draw: draw.random() < 0.5, seed)) for seed in range(16)]
    assert sum("by-lot" in {each.kind for each in some} for some in found) >= 10


def test_wants_that_change_are_noticed_where_they_do() -> None:
    posterior = chosen(40, lambda number, off, _: off[0] * (1 if number < 20 else -1) > 0)
    (drift,) = (each for each in alarms(posterior) if each.kind == "drift")
    assert drift.since is not None
    assert abs(int(drift.since[1:]) - 20) <= 3
    posterior.forget(*(each.id for each in posterior.signals[:20]))
    assert not [each for each in alarms(posterior) if each.kind == "drift"]


def test_few_answers_raise_no_alarm() -> None:
    assert alarms(chosen(7, lambda *_: True)) == ()
    assert calibration(Posterior(OF)).answers == 0


def test_a_prior_that_holds_no_such_person_is_surprised() -> None:
    """Everybody in this population wants the first trait, and surely; this person wants less of it."""
    of = traits(3, signed=True)
    prior = Prior(
        6.0, 0.1, (0.01,), {"linear": Gaussian((1.0, 0.0, 0.0), tuple(map(tuple, (1e-3 * np.eye(3)).tolist())))}
    )
    posterior = Posterior(of, prior, models=("linear",))
    posterior.learn(*(choice(of, f"a{n}", (1.0, 0, 0.1 * n), (0.0, 0, 0), 1, at=float(n)) for n in range(8)))
    assert "surprise" in {each.kind for each in alarms(posterior)}
    assert replace(calibration(posterior), surprise=0.0).score < -1

"""Sweeps of weights: where damage begins, what wakes up suddenly, and reports that hold no sweeps."""

from typing import Any

import pytest

from soupmix.approve import SweptAdapter, SweptWeight, Thresholds, swept_remarks
from soupmix.approve.sweep import check_swept, read_sweeps
from soupmix.errors import EvaluationError

QUARTERS = (250_000, 500_000, 750_000, 1_000_000)


def swept(*points: tuple[float, float], name: str = "calm") -> SweptAdapter:
    made = tuple(SweptWeight(w, ratio, kl) for w, (ratio, kl) in zip(QUARTERS, points, strict=True))
    return SweptAdapter(name, f"sha256:{name}", made)


HONEST = swept((1.0, 0.01), (1.02, 0.04), (1.05, 0.08), (1.1, 0.13))


def test_a_change_that_grows_with_the_square_of_the_weight_is_not_remarked() -> None:
    assert swept_remarks([HONEST]) == ()
    assert HONEST.damaged_from(1.25) is None


def test_where_damage_begins_is_said() -> None:
    (remark,) = swept_remarks([swept((1.0, 0.01), (1.1, 0.04), (1.3, 0.09), (2.0, 0.15))])
    assert (remark.kind, remark.adapters) == ("damaging", ("calm",))
    assert "from weight 0.75 on" in remark.text
    assert swept_remarks([HONEST], Thresholds(damage=1.04))[0].text.startswith("from weight 0.75 on")


def test_what_wakes_up_between_two_weights_is_said() -> None:
    (remark,) = swept_remarks([swept((1.0, 0.0001), (1.0, 0.0004), (1.0, 0.2), (1.0, 0.3))])
    assert remark.kind == "sudden"
    assert "between weights 0.5 and 0.75" in remark.text
    # next to nothing is rounding, which grows as it likes
    assert swept_remarks([swept((1, 0.0), (1, 1e-5), (1, 1e-4), (1, 3e-4))]) == ()


def test_sweeps_are_read_as_they_are_written() -> None:
    assert read_sweeps({"calm": HONEST.to_dict()}) == (HONEST,)
    (renamed,) = check_swept([HONEST], [("quiet", "sha256:calm")])
    assert (renamed.name, renamed.weights) == ("quiet", HONEST.weights)
    with pytest.raises(EvaluationError, match="no sweep over the weight of 'loud'") as caught:
        check_swept([HONEST], [("loud", "sha256:loud")])
    assert caught.value.reason == "not-evaluated"


@pytest.mark.parametrize(
    "content",
    [
        None,
        [],
        {"calm": None},
        {"calm": {"digest": "d", "weights": []}},
        {"calm": {"digest": None, "weights": [{"weight": "1", "perplexity": 1, "kl": 0}]}},
        {"calm": {"digest": "d", "weights": [{"weight": "0", "perplexity": 1, "kl": 0}]}},
        {"calm": {"digest": "d", "weights": [{"weight": "x", "perplexity": 1, "kl": 0}]}},
        {"calm": {"digest": "d", "weights": [{"weight": "1", "perplexity": 0, "kl": 0}]}},
        {"calm": {"digest": "d", "weights": [{"weight": "1", "perplexity": 1, "kl": "nan"}]}},
        {"calm": {"digest": "d", "weights": [{"weight": "1", "perplexity": 1, "kl": {}}]}},
        {"calm": {"digest": "d", "weights": 7}},
    ],
)
def test_what_is_no_sweep_is_one_sentence(content: Any) -> None:
    with pytest.raises(EvaluationError, match="holds no sweeps") as caught:
        read_sweeps(content)
    assert caught.value.reason == "not-a-report"

"""What decides, and fronts: of made-up runs whose effects are known, against brute force."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations, product
from typing import Any

import numpy as np
import pytest

from soupmix.errors import EvaluationError
from soupmix.evaluate.families import asked_of, family_of
from soupmix.evaluate.fronts import hypervolumes
from soupmix.evaluate.measures import Measure
from soupmix.evaluate.record import AdapterFacts, arm_fields
from soupmix.evaluate.report import report
from soupmix.evaluate.soups import Arm
from soupmix.weights import Weights
from tests.support import evaluated
from tests.support.evaluated import value


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    record = evaluated.record()
    return report(record, evaluated.samples(record), evaluated.measured(record))


def brute(points: Sequence[Sequence[float]]) -> float:
    """Inclusion and exclusion over all subsets of boxes from the origin."""
    boxes = [np.maximum(np.array(each), 0.0) for each in points]
    return sum(
        (-1) ** (size + 1) * float(np.prod(np.min(some, axis=0)))
        for size in range(1, len(boxes) + 1)
        for some in combinations(boxes, size)
    )


@pytest.mark.parametrize("dimensions", [1, 2, 3, 4])
def test_a_hypervolume_is_the_volume_of_the_union_of_boxes(dimensions: int) -> None:
    luck = np.random.RandomState(dimensions)
    points = luck.standard_normal((40, 6, dimensions)) + 0.5
    ours = hypervolumes(points)
    assert ours == pytest.approx([brute(each) for each in points.tolist()])
    more = np.concatenate([points, points[:, :1] * 0.5], axis=1)  # what lies within a box adds nothing
    inside = (points[:, 0] > 0).all(1)
    assert hypervolumes(more)[inside] == pytest.approx(ours[inside])
    assert hypervolumes(points[:, ::-1]) == pytest.approx(ours)
    assert (hypervolumes(points[:, :4]) <= ours + 1e-12).all()
    assert hypervolumes(points * 2) == pytest.approx(ours * 2**dimensions)
    assert hypervolumes(-np.abs(points)).tolist() == [0.0] * 40
    assert hypervolumes(points[:, :0]).tolist() == [0.0] * 40


def test_what_a_family_reaches_is_the_mean_over_corners(found: dict[str, Any]) -> None:
    fronts = found["fronts"]["0.7"]
    poles = fronts["poles"]
    assert poles == {"length": ["long", "short"], "mood": ["calm", "loud"]}
    reached = {each["family"]: each for each in fronts["reached"]}
    assert set(reached) == {"delta soup", "prompt"}
    for family, each in reached.items():
        volumes = []
        for corner in product(*poles.values()):
            own = _points(fronts["points"], family, dict(zip(poles, corner, strict=True)), poles)
            volumes.append(brute(list(own.values())))
            front = each["front"]["+".join(corner)]
            assert front == [name for name in own if _is_front(own, name)]
        told = each["hypervolume"]
        assert told["value"] == pytest.approx(np.mean(volumes), rel=1e-4)
        assert told["low"] <= told["value"] <= told["high"]
    assert reached["delta soup"]["arms"] == 16
    assert reached["delta soup"]["hypervolume"]["value"] > 0 == reached["prompt"]["hypervolume"]["value"]
    assert reached["delta soup"]["front"]["long+calm"] == ["calm+long@1"]


def _points(
    points: Mapping[str, Any], family: str, corner: Mapping[str, str], poles: Mapping[str, Sequence[str]]
) -> dict[str, list[float]]:
    return {
        name: [each["toward"][poles[d][0]]["value"] * (1 if corner[d] == poles[d][0] else -1) for d in poles]
        for name, each in points.items()
        if each["family"] == family and all(corner[d] == pole for d, pole in each["asks"].items())
    }


def _is_front(points: Mapping[str, list[float]], name: str) -> bool:
    own = points[name]
    beyond = (all(a >= b for a, b in zip(other, own, strict=True)) and other != own for other in points.values())
    return min(own) > 1e-9 and not any(beyond)


def test_the_index_is_in_standard_deviations_and_the_base_has_none(found: dict[str, Any]) -> None:
    fronts = found["fronts"]["0"]
    record = evaluated.record()
    table = evaluated.measured(record).tables[0.0]
    deviation = float(np.std([row["words"] for row in table.values()]))
    assert fronts["units"]["length"]["words"] == pytest.approx(deviation, rel=1e-5)
    toward = {name: each["toward"] for name, each in fronts["points"].items()}
    assert toward["base"]["long"]["value"] == 0
    assert toward["long@1"]["long"]["value"] == pytest.approx(40 / deviation, rel=1e-4)
    assert toward["short@1"]["long"]["value"] == pytest.approx(-40 / deviation, rel=1e-4)


def test_the_judge_counts_only_where_no_measure_of_text_does() -> None:
    """`mood` has a judge alone, and a chance of openings, which never counts."""
    judge = Measure(
        "judge_length", "length", "likelier when asked to be short", "nats", 0, "made up", ("model",), "short"
    )
    measures = {
        "words": evaluated.MEASURES["words"],
        "judge_length": judge,
        "judge_mood": replace(judge, name="judge_mood", dimension="mood", pole="calm"),
        "opening_calm": replace(judge, name="opening_calm", dimension="mood", pole="calm"),
    }

    def judged(arm: Arm, name: str, number: int) -> float:
        return value(arm, "words" if name == "words" else "peace", number)

    record = evaluated.record()
    made = report(record, evaluated.samples(record), evaluated.measured(record, judged, measures))
    assert {d: set(units) for d, units in made["fronts"]["0"]["units"].items()} == {
        "length": {"words"},
        "mood": {"judge_mood"},
    }


def test_what_decides_is_the_worst_soup_by_name(found: dict[str, Any]) -> None:
    """`loud` halves what `long` and `short` do at 1, and takes a quarter at .5."""
    decided = found["decides"]["0"]["delta"]
    assert list(decided) == ["0.5", "1"]
    for strength, least in (("0.5", 0.75), ("1", 0.5)):
        assert decided[strength]["soups"] == 4
        length = decided[strength]["dimensions"]["length"]
        assert length["worst"]["soup"] == f"long+loud@{strength}"
        assert length["worst"]["share"]["value"] == pytest.approx(least)
        assert length["kept"]["value"] == pytest.approx((1 + least) / 2)
        assert length["any"]["value"] == length["any_alone"]["value"] == 1
        assert decided[strength]["dimensions"]["mood"]["worst"]["share"]["value"] == pytest.approx(1)
        assert decided[strength]["damage"] == {}


def test_harm_is_told_and_does_not_count_as_reached() -> None:
    """Both at 1 run in circles at every fourth prompt."""
    measures = {
        **evaluated.MEASURES,
        "loop": Measure("loop", "", "runs in a circle", "", -1, "made up"),
        "on_topic": Measure("on_topic", "", "on topic", "", 1, "made up"),
    }

    def damaged(arm: Arm, name: str, number: int) -> float:
        return 1.0 if name == "on_topic" else value(arm, "loops" if name == "loop" else name, number)

    record = evaluated.record()
    made = report(record, evaluated.samples(record), evaluated.measured(record, damaged, measures))
    damage = made["decides"]["0"]["delta"]["1"]["damage"]
    assert damage["loop"]["effect"]["value"] == pytest.approx(0.25)
    assert damage["on_topic"]["effect"]["value"] == 0
    assert made["decides"]["0"]["delta"]["0.5"]["damage"]["loop"]["effect"]["value"] == 0
    reached = {each["family"]: each for each in made["fronts"]["0"]["reached"]}
    soup = reached["delta soup"]
    assert 0 < soup["harmless"]["value"] < soup["hypervolume"]["value"]
    assert soup["damage"]["loop"]["value"] == pytest.approx(0.25)


def test_who_asks_for_what() -> None:
    record = evaluated.record()
    two = Weights({"long": 1, "calm": 1})
    families = {
        "delta soup": Arm("calm+long@1", two),
        "factor soup": Arm("x", two, method="factor"),
        "uniform delta soup": Arm("uniform", Weights(dict.fromkeys(("calm", "long", "loud", "short"), "0.25"))),
        "prompt": Arm("calm+long by prompt", Weights({}), system="Be."),
        "prompt + delta soup": Arm("calm+long@1 and prompt", two, system="Be."),
        "few-shot": Arm("calm+long by few-shot", Weights({}), shots=(("a", "b"),)),
        "mod": Arm("calm+long@1 by mod", two, way="mod"),
        "base": Arm("base", Weights({})),
    }
    for family, arm in families.items():
        assert family_of(arm, record) == family
        asks = {} if family in ("base", "uniform delta soup") else {"length": "long", "mood": "calm"}
        assert asked_of(arm, record) == asks


def test_a_person_asks_for_the_pole_that_weighs_more() -> None:
    """Points of a feasible set have a little of everything."""
    record = evaluated.record()
    person = Arm("x", Weights({"long": "0.6", "short": "0.1", "calm": "0.2", "loud": "0.3"}))
    assert asked_of(person, record) == {"length": "long", "mood": "loud"}
    assert asked_of(Arm("x", Weights({"long": "0.5", "short": "0.5", "calm": 1})), record) == {"mood": "calm"}
    assert asked_of(Arm("long+short+calm by prompt", Weights({}), system="Be."), record) == {"mood": "calm"}
    assert family_of(person, record) == "delta soup"


def test_a_family_without_an_arm_in_any_corner_is_not_said_to_reach_nothing() -> None:
    record = evaluated.record(of=evaluated.arms()[:7])
    three = {**record.adapters, "dry": AdapterFacts(digest=evaluated.digest("dry"), dimension="wit", pole="dry")}
    mixed = arm_fields(Arm("all", Weights({"long": 1, "calm": 1, "dry": 1}), way="mod"))
    record = record.model_copy(update={"adapters": three, "arms": (*record.arms, mixed)})
    reached = report(record, evaluated.samples(record), evaluated.measured(record))["fronts"]["0"]["reached"]
    assert {each["family"] for each in reached} == {"delta soup", "prompt"}


def test_what_goes_the_wrong_way_is_no_effect_towards_the_pole() -> None:
    """`long` makes answers shorter here, alone and in soups: all of that is kept, and no answer lies towards long."""

    def backwards(arm: Arm, name: str, number: int) -> float:
        return value(arm, name, number) - (100 * arm.weights.floats().get("long", 0.0) if name == "words" else 0.0)

    record = evaluated.record(of=[arm for arm in evaluated.arms() if "short" not in arm.weights])
    made = report(record, evaluated.samples(record), evaluated.measured(record, backwards))
    length = made["decides"]["0"]["delta"]["1"]["dimensions"]["length"]
    assert (length["worst"]["soup"], length["worst"]["share"]["value"]) == ("calm+long@1", 1)
    assert (length["any"]["value"], length["any_alone"]["value"]) == (0, 0)


def test_without_the_library_it_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "moocore", None)
    with pytest.raises(EvaluationError, match=r"needs moocore, .*pip install 'soupmix\[evaluate\]'") as caught:
        hypervolumes(np.ones((1, 1, 2)))
    assert caught.value.reason == "no-library"

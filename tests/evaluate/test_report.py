"""Reports of made-up answers whose effects are known, and reports as evidence."""

import json
import random
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from soupmix.errors import EvaluationError, WeightError
from soupmix.evaluate.evidence import digest_of_evidence, sweeps_of_evidence
from soupmix.evaluate.record import MOST_CONTAINERS
from soupmix.evaluate.report import REPORT, read_report, report, write_report
from soupmix.evaluate.room import check_room, report_size
from soupmix.evaluate.soups import Arm
from soupmix.evaluate.statistics import Estimate
from soupmix.evaluate.trained import TRAINED, TrainedEffects, read_trained, trained_effects
from soupmix.files import canonical_json
from soupmix.store import Manifest
from soupmix.weights import Weights
from tests.support import evaluated
from tests.support.evaluated import DIMENSIONS, digest, value


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    record = evaluated.record()
    return report(record, evaluated.samples(record), evaluated.measured(record))


def test_effects_are_those_that_were_planted(found: dict[str, Any]) -> None:
    arms = found["results"]["0.7"]
    assert arms["base"]["prompts"] == 12
    assert arms["base"]["measures"]["words"]["effect"] == {"value": 0, "low": 0, "high": 0}
    assert arms["long@0.5"]["measures"]["words"]["effect"]["value"] == pytest.approx(20)
    assert arms["calm+short@1"]["measures"]["words"]["effect"]["value"] == pytest.approx(-40)
    assert arms["calm+short@1"]["measures"]["peace"]["effect"]["value"] == pytest.approx(2)
    mean = arms["calm by prompt"]["measures"]["peace"]["mean"]
    assert mean["value"] == 6
    assert mean["low"] < 6 < mean["high"]
    assert arms["long+loud@1"]["measures"]["loops"]["mean"]["value"] == pytest.approx(0.25)


def test_what_is_kept_of_a_dimension(found: dict[str, Any]) -> None:
    kept = {(each["soup"], each["measure"]): each["share"] for each in found["composition"]["0"]["delta"]["kept"]}
    assert kept["calm+long@1", "words"]["value"] == pytest.approx(1)
    assert kept["long+loud@1", "words"]["value"] == pytest.approx(0.5)
    assert kept["long+loud@0.5", "words"]["value"] == pytest.approx(0.75)
    assert kept["long+loud@1", "peace"]["value"] == pytest.approx(1)


def test_floor_and_ceiling_come_from_the_same_run(found: dict[str, Any]) -> None:
    spans = {(each["adapter"], each["measure"]): each for each in found["spans"]["0.7"]}
    assert spans["calm", "peace"]["ceiling_of"] == "calm by prompt"
    assert spans["calm", "peace"]["ceiling"] - spans["calm", "peace"]["floor"] == pytest.approx(5)
    assert spans["long", "words"]["ceiling_of"] == "long@1"
    assert spans["short", "words"]["ceiling"] - spans["short", "words"]["floor"] == pytest.approx(-40, abs=1e-3)
    assert set(spans["calm", "peace"]["candidates"]) == {"calm by prompt", "calm@1"}


def test_what_is_not_there_is_said() -> None:
    record = evaluated.record()
    few = evaluated.samples(record)[:30]
    known = {(each.arm.name, each.prompt) for each in few if each.temperature == 0}
    whole = evaluated.measured(record)
    some = {key: row for key, row in whole.tables[0.0].items() if key in known}
    made = report(record, few, type(whole)({0.0: some, 0.7: {}}, whole.measures))
    said = {each["what"]: each["why"] for each in made["not_measured"]}
    asked = len(record.arms) * 12 * 2
    assert said[f"{asked - 30} of {asked} answers"] == "the run was stopped before it made them"
    assert said["loud by a prompt"] == "no preference prompt was given for it"
    assert set(made["results"]) == {"0"}
    assert any("The base has 10,000 parameters" in each for each in made["cannot_show"])


def test_without_a_base_nothing_is_compared() -> None:
    record = evaluated.record(of=[Arm("long@1", Weights({"long": 1}))])
    made = report(record, evaluated.samples(record), evaluated.measured(record))
    assert made["results"]["0"]["long@1"]["measures"]["words"]["effect"] is None
    assert made["composition"] == {"0": {}, "0.7": {}}
    assert any("no arm has no weights" in each["why"] for each in made["not_measured"])


def test_an_arm_that_has_just_begun_does_not_spoil_the_others() -> None:
    record = evaluated.record()
    whole = evaluated.measured(record)
    late = "calm+long@1"
    table = {key: row for key, row in whole.tables[0.0].items() if key[0] != late or key[1] == "Question 0?"}
    made = report(record, evaluated.samples(record), type(whole)({0.0: table}, whole.measures))
    kept = {(each["soup"], each["measure"]): each for each in made["composition"]["0"]["delta"]["kept"]}
    assert ("long+loud@1", "words") in kept
    assert (late, "words") not in kept
    assert made["results"]["0"][late]["prompts"] == 1
    said = [each for each in made["not_measured"] if late in each["why"]]
    assert [each["what"] for each in said] == ["floors, ceilings and composition of 1 arms at temperature 0"]
    assert f"the others 12 prompts together: {late} (1)" in said[0]["why"]


def test_floor_and_ceiling_are_over_the_same_prompts() -> None:
    """`long@1` was stopped before the last prompt, which is far longer than the others by any arm."""
    record = evaluated.record()
    last = "Question 11?"
    whole = evaluated.measured(record, lambda arm, name, number: value(arm, name, number) + 1000 * (number == 11))
    table = {key: row for key, row in whole.tables[0.0].items() if key != ("long@1", last)}
    made = report(record, evaluated.samples(record), type(whole)({0.0: table}, whole.measures))
    spans = {(each["adapter"], each["measure"]): each for each in made["spans"]["0"]}
    for each in spans.values():
        assert each["prompts"] == 11
        assert each["ceiling"] == pytest.approx(
            each["floor"] + each["candidates"][each["ceiling_of"]]["value"], rel=1e-5
        )
    assert spans["long", "words"]["candidates"]["long@1"]["value"] == pytest.approx(40)
    assert spans["long", "words"]["floor"] < 200
    assert {arm["prompts"] for arm in made["results"]["0"].values()} == {11}


def test_texts_that_were_trained_on_can_be_the_ceiling(tmp_path: Path) -> None:
    record = evaluated.record()
    whole = evaluated.measured(record)
    texts = TrainedEffects("sha256:0", {"calm": 3}, {("calm", "peace"): Estimate(9.0, 8.0, 10.0)})
    made = report(record, evaluated.samples(record), whole, trained=texts)
    spans = {(each["adapter"], each["measure"]): each for each in made["spans"]["0"]}
    assert spans["calm", "peace"]["ceiling_of"] == TRAINED
    assert spans["calm", "peace"]["ceiling"] - spans["calm", "peace"]["floor"] == pytest.approx(9)
    assert spans["loud", "peace"]["ceiling_of"] == "loud@1"
    said = {each["what"]: each["why"] for each in made["not_measured"]}
    assert "texts of long, loud, short;" in said[TRAINED]
    assert made["trained"] == {"digest": "sha256:0", "texts": {"calm": 3}}


def test_trained_texts_are_measured_against_plain_ones(tmp_path: Path) -> None:
    row = {"pole": "long", "prompt": "Why?", "plain": "So it is."}
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({**row, "text": "so " * n}) + "\n" for n in (5, 7)))
    digest, texts = read_trained(tmp_path / "texts.jsonl")
    found = trained_effects(digest, texts)
    assert found.counts == {"long": 2}
    assert found.effects["long", "words"].value == 3
    assert digest == f"sha256:{sha256((tmp_path / 'texts.jsonl').read_bytes()).hexdigest()}"


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[]",
        b"{",
        b'{"pole": "x"}',
        b'{"pole": "x", "pole": "y", "prompt": "", "text": "", "plain": ""}',
        b"\xff",
        b"[" * 99999,
        b'{"pole": "\\u001b[31m", "prompt": "", "text": "", "plain": ""}',
        b'{"pole": "x", "prompt": "", "plain": "", "text": "' + b"a" * 200_000 + b'"}',
    ],
)
def test_hostile_trained_texts_are_one_sentence(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "texts.jsonl").write_bytes(line + b"\n")
    with pytest.raises(EvaluationError, match="holds no texts that adapters were trained on") as caught:
        read_trained(tmp_path / "texts.jsonl")
    assert caught.value.reason == "trained"


def test_what_could_not_be_read_again_is_refused_before_it_is_made(found: dict[str, Any], tmp_path: Path) -> None:
    record = evaluated.record()
    containers, size = report_size(record)
    raw = canonical_json(found)
    # the made-up run has 3 measures, and the size is that of all
    assert raw.count(b"[") + raw.count(b"{") < containers
    assert len(raw) < size
    check_room(record)
    singles = [Arm(f"long@{number}", Weights.from_micro({"long": number, "calm": 1})) for number in range(1, 1500)]
    with pytest.raises(EvaluationError, match=r"could not be read again, and one of about [0-9]+ arms can") as caught:
        check_room(evaluated.record(of=singles))
    assert caught.value.reason == "too-many-arms"
    with pytest.raises(EvaluationError, match="a sample may have") as caught:
        check_room(evaluated.record(of=[Arm("x", Weights({}), system="x" * (1 << 20))]))
    assert caught.value.reason == "too-long"
    with pytest.raises(EvaluationError, match="bytes of samples, and 1073741824 are allowed") as caught:
        check_room(evaluated.record(1200, of=[Arm(f"x{n}", Weights({}), system="x" * 20_000) for n in range(40)]))
    assert caught.value.reason == "too-many-answers"
    with pytest.raises(EvaluationError, match="could not be read again") as caught:
        write_report(tmp_path, {**found, "more": [[]] * MOST_CONTAINERS})
    assert (caught.value.reason, list(tmp_path.iterdir())) == ("too-large", [])


def test_a_measure_that_nobody_moves_has_no_additivity() -> None:
    record = evaluated.record()
    luck = random.Random(0)
    noise = {(arm.name, number): luck.gauss(0, 1) for arm in record.all_arms() for number in range(12)}
    whole = evaluated.measured(
        record, lambda arm, name, number: noise[arm.name, number] if name == "peace" else value(arm, name, number)
    )
    made = report(record, evaluated.samples(record), whole)
    composed = made["composition"]["0"]["delta"]
    for part, figure in (("additive", "share"), ("linear", "r2")):
        told = {each["measure"]: each[figure] for each in composed[part]}
        assert told["peace"] is None
        assert told["words"] is not None
        assert told["words"]["low"] <= told["words"]["value"] <= told["words"]["high"] <= 1
    said = {each["what"]: each["why"] for each in made["not_measured"]}
    assert "peace" in said[f"additivity and R2 of {len(composed['unmoved'])} measures by delta at temperature 0"]


def test_the_same_answers_are_the_same_bytes(found: dict[str, Any], tmp_path: Path) -> None:
    record = evaluated.record()
    again = report(record, evaluated.samples(record), evaluated.measured(record))
    assert canonical_json(again) == canonical_json(found)
    write_report(tmp_path, found)
    assert read_report(tmp_path / REPORT) == json.loads(canonical_json(found))


def manifest(**changed: Any) -> Manifest:
    """What a store says of the evaluated adapters."""
    entries = {
        name: SimpleNamespace(
            name=name, digest=changed.get(name, digest(name)), base_digest=changed.get("base", digest("base"))
        )
        for names in DIMENSIONS.values()
        for name in names
    }
    return cast("Manifest", SimpleNamespace(adapters=entries, names=tuple(entries)))


@pytest.fixture
def written(found: dict[str, Any], tmp_path: Path) -> Path:
    write_report(tmp_path, found)
    return tmp_path / REPORT


def test_a_report_is_evidence_for_what_it_evaluated(found: dict[str, Any], written: Path) -> None:
    digest = digest_of_evidence(written, manifest(), [("calm", "long"), ("loud",)], "1")
    assert digest == found["digest"]
    assert digest.startswith("sha256:")


REFUSED: dict[str, tuple[dict[str, Any], list[tuple[str, ...]], str | None, str]] = {
    "other-base": ({"base": digest("x")}, [("calm",)], None, "is a report on base tiny"),
    "other-adapters": (
        {"calm": digest("x")},
        [("calm", "long")],
        None,
        "no evidence for 'calm', .* another one of that name",
    ),
    "not-evaluated": ({}, [("calm", "loud")], None, "no soup of calm [+] loud"),
    "not-evaluated ": ({}, [("calm", "long")], "2.5", "sum to 2 at most, and the total is 2.5"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_report_is_no_evidence_for_anything_else(written: Path, case: str) -> None:
    changed, combinations, total, says = REFUSED[case]
    with pytest.raises(EvaluationError, match=says) as caught:
        digest_of_evidence(written, manifest(**changed), combinations, total)
    assert caught.value.reason == case.strip()


def test_adapters_are_found_by_digest_whatever_they_are_called(tmp_path: Path) -> None:
    together = Arm("calm+long@1", Weights({"calm": 1, "long": 1}))
    alone = [Arm(f"{name}@1", Weights({name: 1})) for name in ("calm", "long")]
    record = evaluated.record(of=[Arm("base", Weights({})), *alone, together])
    write_report(tmp_path, report(record, evaluated.samples(record), evaluated.measured(record)))
    swapped = manifest(calm=digest("loud"), loud=digest("calm"))
    assert digest_of_evidence(tmp_path / REPORT, swapped, [("loud", "long")])
    with pytest.raises(EvaluationError, match=r"no soup of loud \+ long"):
        digest_of_evidence(tmp_path / REPORT, swapped, [("calm", "long")])


def test_without_a_total_everything_that_it_lets_through_was_evaluated(tmp_path: Path) -> None:
    """At .5 each they sum to 1; a document without a total would let both have 1."""
    weak = Arm("calm+long@0.5", Weights({"calm": "0.5", "long": "0.5"}))
    alone = [Arm(f"{name}@1", Weights({name: 1})) for name in ("calm", "long")]
    record = evaluated.record(of=[Arm("base", Weights({})), *alone, weak])
    write_report(tmp_path, report(record, evaluated.samples(record), evaluated.measured(record)))
    with pytest.raises(EvaluationError, match=r"without a total they may sum to 2: .* --total 1$") as caught:
        digest_of_evidence(tmp_path / REPORT, manifest(), [("calm", "long")])
    assert caught.value.reason == "not-evaluated"
    assert digest_of_evidence(tmp_path / REPORT, manifest(), [("calm", "long")], "1")


@pytest.mark.parametrize(
    ("alone", "says"),
    [
        ("0.5", "soups of long whose weights sum to 0.5 at most, and the total is 1"),
        (None, "no soup of long: evaluate it alone"),
    ],
)
def test_each_of_a_combination_was_evaluated_alone(tmp_path: Path, alone: str | None, says: str) -> None:
    """Half of both sums to 1, and a total of 1 lets one of them have all of it."""
    arms = [
        Arm("base", Weights({})),
        Arm("calm@1", Weights({"calm": 1})),
        Arm("both", Weights({"calm": "0.5", "long": "0.5"})),
    ]
    arms += [] if alone is None else [Arm("long@0.5", Weights({"long": alone}))]
    record = evaluated.record(of=arms)
    write_report(tmp_path, report(record, evaluated.samples(record), evaluated.measured(record)))
    with pytest.raises(EvaluationError, match=says) as caught:
        digest_of_evidence(tmp_path / REPORT, manifest(), [("calm", "long")], "1")
    assert caught.value.reason == "not-evaluated"


@pytest.mark.parametrize(
    ("answered", "says"),
    [({"0": 1, "0.7": 12}, "1 of its 12"), ({"0": 12, "0.7": 11}, "11 of its 12"), ({"0": 12}, "only 0 of its 12")],
    ids=["one answer", "one missing", "no temperature but 0"],
)
def test_a_soup_that_answered_some_prompts_is_no_evidence_yet(
    found: dict[str, Any], tmp_path: Path, answered: dict[str, int], says: str
) -> None:
    results = {
        t: {name: {**of, "prompts": answered.get(t, 0)} if name == "calm@1" else of for name, of in arms.items()}
        for t, arms in found["results"].items()
    }
    arms = [each for each in found["arms"] if each["name"] != "calm@0.5"]
    (tmp_path / REPORT).write_bytes(_resealed({**found, "arms": arms, "results": results}))
    with pytest.raises(EvaluationError, match=says) as caught:
        digest_of_evidence(tmp_path / REPORT, manifest(), [("calm",)], "1")
    assert caught.value.reason == "not-evaluated"
    assert digest_of_evidence(tmp_path / REPORT, manifest(), [("loud",)], "1")


@pytest.mark.parametrize("by", [{"system": "Be calm."}, {"shots": (("Why?", "Well."),)}, {"way": "mod"}])
def test_a_soup_with_help_is_no_evidence_for_the_soup(
    found: dict[str, Any], tmp_path: Path, by: dict[str, Any]
) -> None:
    helped = [each | by if each["name"] == "calm@1" else each for each in found["arms"] if each["name"] != "calm@0.5"]
    (tmp_path / REPORT).write_bytes(_resealed({**found, "arms": helped}))
    with pytest.raises(EvaluationError, match="no soup of calm") as caught:
        digest_of_evidence(tmp_path / REPORT, manifest(), [("calm",)], "0.5")
    assert caught.value.reason == "not-evaluated"


def test_an_unknown_adapter_is_no_traceback(written: Path) -> None:
    with pytest.raises(WeightError, match="no adapter 'clam'; did you mean 'calm'"):
        digest_of_evidence(written, manifest(), [("clam",)])
    with pytest.raises(WeightError, match="plain decimal"):
        digest_of_evidence(written, manifest(), [("calm",)], "much")


def test_a_sweep_of_numbers_beyond_floats_is_one_sentence(found: dict[str, Any], tmp_path: Path) -> None:
    points = [{"weight": "1", "perplexity": 10**400, "kl": 0}]
    swept = {"sweeps": {"calm": {"digest": digest("calm"), "weights": points}}}
    (tmp_path / REPORT).write_bytes(_resealed({**found, "safety": swept}))
    with pytest.raises(EvaluationError, match="no sweeps") as caught:
        sweeps_of_evidence(tmp_path / REPORT, [("calm", digest("calm"))])
    assert caught.value.reason == "not-a-report"


def _resealed(content: dict[str, Any]) -> bytes:
    from soupmix.evaluate.report import _digest

    rest = {name: value for name, value in content.items() if name != "digest"}
    return canonical_json({**rest, "digest": _digest(canonical_json(rest))})


HOSTILE: dict[str, tuple[Callable[[dict[str, Any]], bytes], str]] = {
    "edited": (lambda found: canonical_json({**found, "seed": 3}), "report-changed"),
    "no JSON": (lambda found: b"{", "not-a-report"),
    "a list": (lambda found: b"[]", "not-a-report"),
    "empty": (lambda found: b"", "not-a-report"),
    "deep": (lambda found: b"[" * 200_000, "not-a-report"),
    "another schema": (lambda found: _resealed({**found, "schema_version": 2}), "not-a-report"),
    "duplicate keys": (lambda found: b'{"digest": "x", "digest": "y", "schema_version": 1}', "not-a-report"),
    "NaN": (lambda found: b'{"digest": NaN, "schema_version": 1}', "not-a-report"),
    "digest is no text": (lambda found: canonical_json({**found, "digest": {"a": 1}}), "report-changed"),
    "no base": (lambda found: _resealed({**found, "base": None}), "not-a-report"),
    "adapters are a list": (lambda found: _resealed({**found, "adapters": []}), "not-a-report"),
    "weights that are none": (
        lambda found: _resealed({**found, "arms": [{"name": "calm@1", "weights": {"calm": "nan"}}]}),
        "not-a-report",
    ),
    "no prompts": (lambda found: _resealed({**found, "prompts": {"count": 0}}), "not-a-report"),
    "no temperatures": (lambda found: _resealed({**found, "limits": {"temperatures": []}}), "not-a-report"),
    "prompts are null": (
        lambda found: _resealed({**found, "results": {"0": {"calm@1": {"prompts": None}}}}),
        "not-a-report",
    ),
    "results are null": (lambda found: _resealed({**found, "results": None}), "not-a-report"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_report_is_one_sentence(found: dict[str, Any], tmp_path: Path, case: str) -> None:
    write, reason = HOSTILE[case]
    path = tmp_path / REPORT
    path.write_bytes(write(json.loads(canonical_json(found))))
    with pytest.raises(EvaluationError) as caught:
        digest_of_evidence(path, manifest(), [("calm",)])
    assert caught.value.reason == reason
    assert REPORT in str(caught.value)


def test_a_missing_report_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"absent\.json"):
        read_report(tmp_path / "absent.json")

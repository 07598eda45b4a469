"""Fitting the map from weights to measures: on answers that follow a rule, and against formulas of others."""

import numpy as np
import pytest
from scipy import stats

from soupmix.errors import EvaluationError
from soupmix.evaluate.measures import Measure
from soupmix.evaluate.measuring import MeasuredSamples
from soupmix.evaluate.record import BaseFacts, EvaluationRecord, PromptFields, arm_fields
from soupmix.evaluate.soups import Arm
from soupmix.evaluate.surface import Mapped, MeasuredSoups, fit_surface, surface_of
from soupmix.surface import Surface, SurfaceDocument
from soupmix.surface.surface import products
from soupmix.weights import MILLION, Weights
from tests.support.planted_soups import (
    BASE,
    DIMENSIONS,
    ENTRIES,
    MEASURES,
    REPORT,
    document,
    entry,
    facts,
    measured,
    rule,
    soups,
)

FACTS = facts(ENTRIES)


@pytest.fixture(scope="module")
def fitted() -> SurfaceDocument:
    return document()


def test_forms_are_chosen_by_what_was_planted(fitted: SurfaceDocument) -> None:
    assert {name: each.form for name, each in fitted.measures.items()} == {
        "grade": "linear",
        "words": "linear",  # a factor each, so a sum of logarithms
        "warmth": "pairs",  # half as warm beside `short`
    }
    curved = fit_surface(
        measured(lambda w: {**rule(w), "grade": 10 - 4 * w.get("easy", 0.0) ** 2}, noise=0.2), FACTS, MEASURES
    )
    assert curved.measures["grade"].form == "squares"
    for each in fitted.measures.values():
        assert max(each.evidence, key=lambda form: each.evidence[form]) == each.form
        assert each.r2 is not None
        assert each.held_out_r2 is not None
        assert each.r2 > each.held_out_r2 > 0.98


def test_coefficients_are_those_that_were_planted(fitted: SurfaceDocument) -> None:
    def told(measure: str) -> dict[tuple[str, ...], float]:
        found = fitted.measures[measure]
        names = sorted(DIMENSIONS)
        return {tuple(names[k] for k in term): c for term, c in zip(found.terms, found.coefficients, strict=True)}

    grade, words, warmth = told("grade"), told("words"), told("warmth")
    assert grade["easy",] == pytest.approx(-4, abs=0.3)
    assert grade["hard",] == pytest.approx(5, abs=0.3)
    assert words["short",] == pytest.approx(-1.5, abs=0.05)
    assert words["long",] == pytest.approx(0.5, abs=0.05)
    assert warmth["warm",] == pytest.approx(6, abs=0.3)
    assert warmth["short", "warm"] == pytest.approx(-3, abs=0.5)
    assert abs(warmth["long", "warm"]) < 0.5
    assert warmth[()] == pytest.approx(0, abs=3 * fitted.measures["warmth"].level)
    # 20 prompts that differ by 2 grades, and answers by half as much again
    assert fitted.measures["grade"].level == pytest.approx(2 / np.sqrt(20), rel=0.4)
    assert fitted.measures["grade"].spread == pytest.approx(2 * np.sqrt(1.25), rel=0.3)
    assert fitted.measures["grade"].span == pytest.approx(9, rel=0.1)


def test_the_evidence_is_the_density_of_what_was_found() -> None:
    """log N(y; 0, X S X^T + e^2), with the widths of the best prior of the linear form found again by going through all."""
    fitted = document(noise=0.5).measures["grade"]
    points = np.array([w.along(sorted(DIMENSIONS)) for w in soups().values()]) / MILLION
    table = measured(noise=0.5)
    found = np.array([np.mean([table.table[arm, p]["grade"] for p in table.prompts]) for arm in soups()])
    found = (found - found.mean()) / fitted.span
    design = products(((), *((k,) for k in range(5))), points)
    best = -np.inf
    for width in 2.0 ** np.arange(-2, 3):
        for error in 2.0 ** (np.arange(-14, 1) / 2):
            spread = design @ np.diag([100.0, *[width**2] * 5]) @ design.T + error**2 * np.eye(len(found))
            best = max(best, stats.multivariate_normal.logpdf(found, np.zeros(len(found)), spread))
    assert fitted.evidence["linear"] == pytest.approx(best, abs=1e-6)


def test_intervals_hold_what_they_promise() -> None:
    """Over 30 sets of prompts: 95 % for the mean of other prompts, 90 % for single answers; at soups that were not measured."""
    soup = Weights("easy=0.4,short=0.3,warm=0.7")
    truth = rule(soup.floats())
    held = dict.fromkeys(MEASURES, 0)
    answers = np.random.RandomState(9).standard_normal((2000, 3)) * np.sqrt(1.25)
    single = []
    for seed in range(30):
        expected = Surface.of(document(noise=0.5, seed=seed), ENTRIES).expect(soup)
        for name in MEASURES:
            held[name] += expected[name].low <= truth[name] <= expected[name].high
        grades = truth["grade"] + 2 * answers[:, 0]
        single.append(((expected["grade"].answers_low <= grades) & (grades <= expected["grade"].answers_high)).mean())
    assert min(held.values()) >= 26
    assert 0.86 <= np.mean(single) <= 0.96


def test_where_the_form_is_wrong_the_figures_say_so() -> None:
    """Three together do what no two do: left-out combinations are foretold badly, and the error is told."""

    def jump(w: dict[str, float]) -> dict[str, float]:
        return {**rule(w), "warmth": 6.0 * w.get("warm", 0.0) if len(w) < 3 else -6.0}

    good, bad = document().measures["warmth"], document(jump).measures["warmth"]  # type: ignore[arg-type]
    assert bad.held_out_r2 is not None
    assert bad.held_out_r2 < 0.5
    assert bad.held_out_error > 10 * good.held_out_error
    assert bad.lack > 5 * good.lack


def test_the_same_answers_give_the_same_document() -> None:
    one, other = document(), document()
    assert one == other
    assert one.digest == other.digest != document(seed=1).digest
    assert SurfaceDocument.model_validate_json(one.model_dump_json()) == one


def test_only_adapters_in_soups_are_mapped_and_measures_that_move() -> None:
    flat = fit_surface(measured(lambda w: {**rule(w), "warmth": 0.3}), FACTS, MEASURES)
    assert set(flat.measures) == {"grade", "words"}
    found = fit_surface(measured(), facts([*ENTRIES, entry("spare", "tone")]), MEASURES)
    assert found.adapters == tuple(entry(name).digest for name in sorted(DIMENSIONS))
    assert found.least == (0,) * 5
    assert found.most == (MILLION,) * 5
    assert found.total == 2 * MILLION
    assert (found.soups, found.prompts, found.base_digest, found.report) == (len(soups()), 20, BASE, REPORT)


def test_what_cannot_be_fitted_is_said() -> None:
    given = measured()
    no_base = MeasuredSoups(given.table, {"easy=1": Weights("easy=1")}, given.prompts, BASE, REPORT, "delta", 0.7, 128)
    with pytest.raises(EvaluationError, match="bare base") as caught:
        fit_surface(no_base, FACTS, MEASURES)
    assert caught.value.reason == "no-base"
    with pytest.raises(EvaluationError, match="nothing to map") as caught:
        fit_surface(measured(lambda w: dict.fromkeys(MEASURES, 1.0), noise=0.0), FACTS, {})
    assert caught.value.reason == "nothing-to-map"
    nothing = MeasuredSoups({}, given.soups, given.prompts, BASE, REPORT, "delta", 0.7, 128)
    with pytest.raises(EvaluationError) as caught:
        fit_surface(nothing, FACTS, MEASURES)
    assert caught.value.reason == "no-answers"


def test_of_an_evaluation_that_was_stopped_the_soups_that_kept_pace_are_mapped() -> None:
    """Prompts are outermost: half of the soups have answered the sixth, all but two that were added the first five."""
    given = measured(prompts=6, noise=0.1)
    late = list(given.soups)[40:]
    table = {(arm, p): v for (arm, p), v in given.table.items() if p != given.prompts[5] or arm not in late}
    added = {
        "factor": Arm("factor", Weights("easy=1"), "factor"),
        "asked": Arm("asked", Weights("easy=1"), system="Be."),
    }
    newest = Arm("newest", Weights("easy=0.1,hard=0.1"))
    arms = [*(Arm(name, weights) for name, weights in given.soups.items()), *added.values(), newest]
    record = EvaluationRecord(
        base=BaseFacts(name="base", digest=BASE, files=BASE),
        adapters=FACTS,
        preferences={},
        seed=0,
        length=128,
        top_k=40,
        dtype=None,
        temperatures=(0.0, 0.7),
        arms=tuple(map(arm_fields, arms)),
        prompts=tuple(PromptFields(prompt=each, kind="question", topic=("it",)) for each in given.prompts),
        made_by=(),
    )
    measures = {
        name: Measure(name, DIMENSIONS[pole], name, "", 0, "us")
        for name, pole in {"grade": "easy", "words": "short"}.items()
    }
    found = surface_of(record, MeasuredSamples({0.0: {}, 0.7: table}, measures), REPORT)
    assert (found.soups, found.prompts) == (len(given.soups), 5)
    assert (found.temperature, found.method, found.tokens, found.report) == (0.7, "delta", 128, REPORT)
    assert {name: each.scale for name, each in found.measures.items()} == {"grade": "plain", "words": "log"}
    with pytest.raises(EvaluationError) as caught:
        surface_of(record, MeasuredSamples({0.0: {}, 0.7: {}}, measures), REPORT)
    assert caught.value.reason == "no-answers"


@pytest.mark.parametrize(("count", "fits"), [(60, True), (65, False)])
def test_many_adapters_are_mapped_without_pairs_or_refused(count: int, fits: bool) -> None:
    """60 adapters of 20 dimensions have 1,710 pairs: more than a document holds."""
    many = [entry(f"a{number}", f"d{number % 20}") for number in range(count)]
    made = {"base": Weights({}), **{each.name: Weights({each.name: 1}) for each in many}}
    table = {(name, "Why?"): {"grade": 8.0 + place % 7} for place, name in enumerate(made)}
    given = MeasuredSoups(table, made, ["Why?"], BASE, REPORT, "delta", 0.7, 160)
    grade = {"grade": Mapped("grade", "grades", "d1")}
    if fits:
        assert set(fit_surface(given, facts(many), grade).measures["grade"].evidence) == {"linear", "squares"}
    else:
        with pytest.raises(EvaluationError, match="at most 64 adapters, and these soups have 65") as caught:
            fit_surface(given, facts(many), grade)
        assert caught.value.reason == "too-many-adapters"

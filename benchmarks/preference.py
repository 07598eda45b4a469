"""How few answers tell what a person wants: error, regret and coverage by rule, and what an update and a decision take.

    python benchmarks/preference.py [--people 200] [--page]
    python benchmarks/preference.py --quick --json

Simulated people have hidden wants, shares of d traits from Dirichlet(1), and choose between two answers by Bradley-Terry with a
sharpness, and against that in a share of flips. Answers have independent traits, standard normal; each person has 1,000 random pairs
that can be asked about, each once, the same for every rule. The error is the Euclidean distance of the posterior mean from the
wants, the regret what the best of 8 answers by the posterior mean is worse than the best by the wants, in units of utility, and
coverage the share of 90 % intervals that hold. Neither sharpness nor flips are known to the posterior. A population is people whose
traits go together; the fitted prior is that of 60 others after 20 answers each, "known" is the population itself. Whether
intervals hold as often as they say is asked of people who choose as strictly as the prior expects. Times are
medians of the default posterior (both models) with ten answers and more, among 1,000 pairs. `--page` writes docs/preference_bench.md and benchmarks/data/preference.json.
"""

import argparse
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from machine import processor

from soupmix.preference import Posterior, Prior, Signal, Trait, Traits, next_question
from soupmix.preference.population import fitted
from soupmix.preference.prior import Gaussian
from soupmix.preference.question import RULES

Numbers = np.ndarray[tuple[int, ...], np.dtype[np.float64]]

DATA, PAGE = (
    Path(__file__).parent / "data" / "preference.json",
    Path(__file__).parents[1] / "docs" / "preference_bench.md",
)
SHOWN = (0, 5, 7, 10, 13, 20)
GRID = [(d, sharpness, flips) for d in (3, 6) for sharpness in (1.0, 3.0, 5.0, 10.0) for flips in (0.0, 0.1)]
PAIRS, BEST_OF = 1000, 8
QUICK = ("information-gain", "d-optimal", "volume", "random")
PARTICLES = 2048


def traits(count: int, signed: bool = False) -> Traits:
    return Traits(tuple(Trait(f"t{n}", f"t{n}") for n in range(count)), "sha256:" + "0" * 64, signed)


def choice(of: Traits, number: int, first: Numbers, second: Numbers, chosen: int) -> Signal:
    answers = tuple(dict(zip(of.names, map(float, each), strict=True)) for each in (first, second))
    return Signal(
        id=f"c{number}",
        kind="choice",
        source="bench",
        traits=of.digest,
        answers=answers,
        value=chosen,
        at=float(number),
    )


class Person:
    """Somebody with hidden wants, and the pairs that they can be asked about."""

    def __init__(self, want: Numbers, sharpness: float, flips: float, seed: list[int]) -> None:
        draw = np.random.default_rng(seed)
        self.want, self.sharpness, self.flips = want, sharpness, flips
        self.points = draw.standard_normal((2 * PAIRS, len(want)))
        self.pairs = np.arange(2 * PAIRS).reshape(PAIRS, 2)
        self.offered = draw.standard_normal((200, BEST_OF, len(want)))
        self.luck = draw.random((100, 2))  # of every answer, whatever the rule: rules are compared under the same luck

    def choose(self, pair: int, number: int) -> int:
        """0 for the first of a pair, as the answer of this number."""
        first, second = self.points[self.pairs[pair]]
        chance = 1 / (1 + np.exp(-self.sharpness * float(self.want @ (first - second))))
        wanted = 0 if self.luck[number, 0] < chance else 1
        return 1 - wanted if self.luck[number, 1] < self.flips else wanted

    def regret(self, believed: Numbers) -> float:
        true = self.offered @ self.want
        return float(
            np.mean(true.max(1) - np.take_along_axis(true, (self.offered @ believed).argmax(1)[:, None], 1)[:, 0])
        )


def asked(person: Person, rule: Any, answers: int, prior: Prior) -> list[tuple[float, float, float]]:
    """After each of `SHOWN` answers the error, the regret, and the share of intervals that hold."""
    return answered(person, rule, answers, prior)[0]


def answered(
    person: Person, rule: Any, answers: int, prior: Prior
) -> tuple[list[tuple[float, float, float]], Posterior]:
    of = traits(len(person.want))
    posterior = Posterior(of, prior, models=("linear",), particles=PARTICLES)
    found: list[tuple[float, float, float]] = []
    asked_before: list[int] = []
    for number in range(answers + 1):
        if number in SHOWN:
            mean, ends = posterior.mean(), posterior.intervals(0.9)
            covered = float(np.mean((ends[:, 0] <= person.want) & (person.want <= ends[:, 1])))
            found.append((float(np.linalg.norm(mean - person.want)), person.regret(mean), covered))
        if number < answers:
            left = np.delete(person.pairs, asked_before, axis=0)
            question = next_question(posterior, person.points, pairs=left, rule=rule, enough=-1.0)
            pair = question.first // 2  # type: ignore[union-attr]
            asked_before.append(pair)
            first, second = person.points[person.pairs[pair]]
            posterior.learn(choice(of, number, first, second, person.choose(pair, number)))
    return found, posterior


def population(count: int, seed: int) -> list[Person]:
    """People whose wants go together: who wants much of the first trait wants little of the second."""
    return [Person(want, 5.0, 0.0, [seed, 9, n]) for n, want in enumerate(alike(count, seed))]


def alike(count: int, seed: int) -> Numbers:
    """[people, 3] what they want."""
    draw = np.random.default_rng([seed, 9])
    roots = draw.multivariate_normal(
        [0.8, 0.45, 0.35], [[0.03, -0.02, 0.0], [-0.02, 0.03, 0.0], [0.0, 0.0, 0.01]], count
    )
    return np.asarray(np.square(roots) / np.square(roots).sum(1, keepdims=True))


def known() -> Prior:
    """What can be known at most of people of that population before they answer: how their wants are spread, and how they choose."""
    roots = np.sqrt(alike(20_000, 3))
    covariance = tuple(tuple(map(float, row)) for row in np.cov(roots.T))
    wants = Gaussian(tuple(map(float, roots.mean(0))), covariance)
    return Prior(sharpness=5.0, spread=0.01, populations={"linear": wants}, careless=0.0)


def by_prior(count: int) -> dict[str, Any]:
    """Of a flat prior, of one that is fitted to 60 others, and of all that can be known, [shown, 3] as of `table`."""
    others = [answered(each, "information-gain", 20, Prior())[1] for each in population(60, 2)]
    priors = {"flat": Prior(), "fitted": fitted(others), "known": known()}
    return {
        name: np.mean([asked(each, "information-gain", 20, prior) for each in population(count, 1)], axis=0)
        for name, prior in priors.items()
    }


def people(count: int, d: int, sharpness: float, flips: float, seed: int = 1) -> list[Person]:
    draw = np.random.default_rng([seed, d])
    wants = draw.dirichlet(np.ones(d), count)
    return [Person(want, sharpness, flips, [seed, d, n]) for n, want in enumerate(wants)]


def as_believed(count: int) -> dict[str, Any]:
    """People who choose as strictly as the prior expects of people: number of traits -> rule -> [shown, 3] as of `table`."""
    prior, found = Prior(), {}
    for d in (3, 6):
        draw = np.random.default_rng([4, d])
        spread = np.exp(prior.spread * draw.standard_normal(count))
        asking = [
            Person(draw.dirichlet(np.ones(d)), prior.sharpness * each, 0.0, [4, d, n]) for n, each in enumerate(spread)
        ]
        for rule in ("information-gain", "random"):
            shown = np.mean([asked(each, rule, SHOWN[-1], prior) for each in asking], axis=0)
            found[f"{d} traits, {rule}"] = shown.round(4).tolist()
    return found


def table(count: int, d: int, sharpness: float, flips: float, rules: Any, answers: int, prior: Prior) -> dict[str, Any]:
    """Of every rule [shown, 3] mean error, regret and coverage."""
    shown = {}
    for rule in rules:
        found = np.array([asked(each, rule, answers, prior) for each in people(count, d, sharpness, flips)])
        shown[rule] = found.mean(0)
    return shown


def median_ms(call: Callable[[int], object], times: int = 60) -> float:
    taken = []
    for number in range(times):
        start = time.perf_counter()
        call(number)
        taken.append(time.perf_counter() - start)
    return 1e3 * float(np.median(taken))


def times() -> tuple[float, float]:
    """Milliseconds of a decision among 1,000 pairs, and of learning one answer with the mean that follows; medians."""
    person = people(1, 3, 5.0, 0.0)[0]
    of = traits(3)
    posterior = Posterior(of)
    signals = [
        choice(of, n, *person.points[person.pairs[n % PAIRS]], person.choose(n % PAIRS, n % 100)) for n in range(200)
    ]
    posterior.learn(*signals[:10])

    def update(number: int) -> object:
        posterior.learn(signals[10 + number])
        return posterior.mean()

    def decide(number: int) -> object:
        return next_question(posterior, person.points, pairs=person.pairs, enough=0.0)

    updated = median_ms(update)
    return median_ms(decide), updated


def quick(count: int) -> dict[str, Any]:
    found = table(count, 3, 5.0, 0.0, QUICK, 10, Prior())
    decision, update = times()
    return {
        "l2_at_10": {rule: round(float(each[SHOWN.index(10), 0]), 4) for rule, each in found.items()},
        "decision_ms": round(decision, 3),
        "update_ms": round(update, 3),
    }


def everything(count: int, grid: list[tuple[int, float, float]]) -> dict[str, Any]:
    decision, update = times()
    rows = []
    for d, sharpness, flips in grid:
        for rule, found in table(count, d, sharpness, flips, list(RULES), SHOWN[-1], Prior()).items():
            rows.append(
                {"d": d, "sharpness": sharpness, "flips": flips, "rule": rule, "shown": found.round(4).tolist()}
            )
    priors = {name: found.round(4).tolist() for name, found in by_prior(count).items()}
    return {
        "people": count,
        "date": datetime.now(UTC).date().isoformat(),
        "processor": processor(),
        "decision_ms": round(decision, 2),
        "update_ms": round(update, 2),
        "rows": rows,
        "priors": priors,
        "believed": as_believed(count),
    }


def page(found: dict[str, Any]) -> str:
    def cells(shown: list[list[float]]) -> str:
        return " | ".join(f"{error:.3f} ({regret:.3f}) {held:.2f}" for error, regret, held in shown)

    head = " | ".join(f"@{n}" for n in SHOWN)
    lines = [
        "# Questions and answers, measured",
        "",
        f"`python benchmarks/preference.py --people {found['people']} --page`, {found['date']}, {found['processor']}.",
        "What is simulated stands in the script, what is believed in [preference.md](preference.md).",
        f"A decision took {found['decision_ms']} ms, an update {found['update_ms']} ms (medians).",
        "",
        "Error of wants (regret of the best of 8) and coverage of 90 % intervals after so many answers, means over people:",
        "",
        f"| d | sharpness | flips | rule | {head} |",
        "|---" * (4 + len(SHOWN)) + "|",
        *(
            f"| {r['d']} | {r['sharpness']:g} | {r['flips']:g} | {r['rule']} | {cells(r['shown'])} |"
            for r in found["rows"]
        ),
        "",
        "People of a population, sharpness 5, by information gain, under a flat prior and one that is fitted to 60 others, and",
        "with all that can be known:",
        "",
        f"| prior | {head} |",
        "|---" * (1 + len(SHOWN)) + "|",
        *(f"| {name} | {cells(shown)} |" for name, shown in found["priors"].items()),
        "",
        "People whose sharpness comes from the prior (log-normal, median 4, deviation .8), no flips; 90 % intervals of a right",
        "belief hold in .9 of them, whatever they hold in for people of one sharpness:",
        "",
        f"| | {head} |",
        "|---" * (1 + len(SHOWN)) + "|",
        *(f"| {name} | {cells(shown)} |" for name, shown in found["believed"].items()),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--people", type=int, default=200)
    parser.add_argument("--settings", type=int, default=len(GRID), help="only the first so many of the grid")
    parser.add_argument("--quick", action="store_true", help="one setting, ten answers, and times")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--page", action="store_true", help="write the page and the data")
    given = parser.parse_args()
    found = quick(given.people) if given.quick else everything(given.people, GRID[: given.settings])
    if given.page and not given.quick:
        DATA.write_text(json.dumps(found) + "\n", "utf-8")
        PAGE.write_text(page(found), "utf-8")
    print(json.dumps(found) if given.json or given.quick else page(found))


if __name__ == "__main__":
    main()

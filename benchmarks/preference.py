"""How few answers tell what a person wants: error and regret by rule, and what an update and a decision take.

    python benchmarks/preference.py [--people 200] [--page]
    python benchmarks/preference.py --quick --json

Simulated people have hidden wants, shares of d traits from Dirichlet(1), and choose between two answers by Bradley-Terry with a
sharpness, at random in a share of flips. Answers have independent traits, standard normal; each person has 300 random pairs that can
be asked about, the same for every rule. The error is the Euclidean distance of the posterior mean from the wants, and the regret is
what the best of 8 answers by the posterior mean is worse than the best by the wants, in units of utility. Neither sharpness nor flips
are known to the posterior. Times are medians of the default posterior (both models) with ten answers. `--page` writes
docs/preference_bench.md and benchmarks/data/preference.json.
"""

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from soupmix.preference import Posterior, Prior, Signal, Trait, Traits, next_question

Numbers = np.ndarray[tuple[int, ...], np.dtype[np.float64]]

SHOWN = (0, 5, 10, 20)
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


def asked(person: Person, rule: Any, answers: int, prior: Prior, particles: int = PARTICLES) -> list[Posterior]:
    """The posterior after each of `SHOWN` answers, in a list of (error, regret, covered)."""
    of = traits(len(person.want))
    posterior = Posterior(of, prior, models=("linear",), particles=particles)
    found, asked_before = [], []  # type: ignore[var-annotated]
    for number in range(answers + 1):
        if number in SHOWN:
            mean, ends = posterior.mean(), posterior.intervals(0.9)
            covered = float(np.mean((ends[:, 0] <= person.want) & (person.want <= ends[:, 1])))
            found.append((float(np.linalg.norm(mean - person.want)), person.regret(mean), covered))
        if number < answers:
            left = np.delete(person.pairs, asked_before, axis=0)
            question = next_question(posterior, person.points, pairs=left, rule=rule, enough=0.0)
            pair = question.first // 2  # type: ignore[union-attr]
            asked_before.append(pair)
            first, second = person.points[person.pairs[pair]]
            posterior.learn(choice(of, number, first, second, person.choose(pair, number)))
    return found  # type: ignore[return-value]


def people(count: int, d: int, sharpness: float, flips: float, seed: int = 1) -> list[Person]:
    draw = np.random.default_rng([seed, d])
    wants = draw.dirichlet(np.ones(d), count)
    return [Person(want, sharpness, flips, [seed, d, n]) for n, want in enumerate(wants)]


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
    """Milliseconds of a decision among 300 pairs, and of learning one answer with the mean that follows; medians."""
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--people", type=int, default=200)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if given.quick:
        found = table(given.people, 3, 5.0, 0.0, QUICK, 10, Prior())
        decision, update = times()
        told = {
            "l2_at_10": {rule: round(float(each[2, 0]), 4) for rule, each in found.items()},
            "decision_ms": round(decision, 3),
            "update_ms": round(update, 3),
        }
        print(json.dumps(told))


if __name__ == "__main__":
    main()

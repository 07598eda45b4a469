"""How long a clamp takes, by kind of feasible set: cold (never asked before), warm (asked before), and the set's compilation.

    python benchmarks/clamp.py [--requests 200] [--table]

Synthetic policies over K adapters, requests in [-0.3, 1.5] that no cache has seen. `clamp` is `Region.project`: projection,
certificate, rounding inside, reasons. `policy.clamp` is the whole call, from a mapping of names to a grant. Every grant is checked
against the set before its time counts. Rows go to benchmarks/data/clamp.jsonl, the table to docs/clamp.md.
"""

import argparse
import json
import platform
import random
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from machine import processor

from soupmix import __version__
from soupmix.policy import Policy, parse_document
from soupmix.weights import decimal_text

DATA, PAGE = Path(__file__).parent / "data" / "clamp.jsonl", Path(__file__).parents[1] / "docs" / "clamp.md"


class Ref(NamedTuple):
    name: str
    dimension: str
    pole: str
    digest: str
    tags: tuple[str, ...] = ()


class Shelf(tuple[Ref, ...]):
    """Adapters of made-up deltas: inner products of random vectors."""

    base_norm = 30.0

    def inner_product(self, one: str, other: str) -> float:
        a, b = (random.Random(name) for name in (one, other))
        return round(sum(a.gauss(0, 1) * b.gauss(0, 1) for _ in range(64)) / 64, 9)


def shelf(adapters: int) -> Shelf:
    return Shelf(
        Ref(f"a{n}", f"d{n if adapters > 6 else n // 2}", f"p{n}", f"sha256:{sha256(str(n).encode()).hexdigest()}")
        for n in range(adapters)
    )


def group(names: list[str], most: float) -> dict[str, Any]:
    return {"rule": "group", "adapters": names, "at_most": str(most)}


def kinds() -> dict[str, tuple[int, list[dict[str, Any]], str]]:
    """Name -> adapters, rules, metric."""

    def crossing(k: int) -> list[dict[str, Any]]:
        draw = random.Random(k)
        return [group([f"a{n}" for n in draw.sample(range(k), k // 3)], 0.9) for _ in range(k // 2)]

    def together(k: int, many: int) -> dict[str, Any]:
        draw, report = random.Random(k), {"report": f"sha256:{'0' * 64}", "until": "2099-01-01"}
        sets = [draw.sample(range(k), 3) for _ in range(many)]
        return {
            "rule": "combinations",
            "allow": [{"adapters": [f"a{n}" for n in each], "evidence": report} for each in sets],
        }

    budget = [{"rule": "budget", "at_most": "1.5"}]
    return {
        "box, K = 7": (7, [], "weights"),
        "box and sum, K = 7": (7, budget, "weights"),
        "box, dimensions and sum, K = 6": (6, budget, "weights"),
        "nested groups, K = 16": (
            16,
            [group([f"a{n}" for n in range(m, m + 4)], 0.8) for m in range(0, 16, 4)] + budget,
            "weights",
        ),
        "crossing groups, K = 6": (6, crossing(6) + budget, "weights"),
        "crossing groups, K = 16": (16, crossing(16) + budget, "weights"),
        "crossing groups, K = 32": (32, crossing(32) + budget, "weights"),
        "16 combinations of three, K = 16": (16, [together(16, 16), *budget], "weights"),
        "norm, K = 6": (6, [{"rule": "norm", "at_most": "0.03"}, *budget], "weights"),
        "norm, K = 16": (16, [{"rule": "norm", "at_most": "0.03"}, *budget], "weights"),
        "metric of the delta, K = 16": (16, crossing(16) + budget, "delta"),
        "metric of the delta, K = 32": (32, crossing(32) + budget, "delta"),
    }


def timed(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure(name: str, adapters: int, rules: list[dict[str, Any]], metric: Any, requests: int) -> dict[str, Any]:
    content = {"tier": "organisation", "issuer": "A", "version": "1", "rules": rules}
    document, held = parse_document(json.dumps(content), "x.yaml"), shelf(adapters)
    policy = Policy.assemble([("x.yaml", document)], held, metric=metric)
    compiled = min(timed(lambda: Policy.assemble([("x.yaml", document)], held, metric=metric)) for _ in range(3))
    region, draw = policy._regions.region(policy._regions.kinds.kind({}, {})), random.Random(0)
    times: dict[str, list[float]] = {"clamp": [], "policy.clamp": [], "warm": []}
    for _ in range(requests):
        asked = [draw.randint(-300_000, 1_500_000) for _ in range(adapters)]
        words = {f"a{n}": decimal_text(asked[policy.names.index(f"a{n}")]) for n in range(adapters)}
        times["clamp"].append(timed(lambda asked=asked: region.project(asked)))  # type: ignore[misc]
        times["policy.clamp"].append(timed(lambda words=words: policy.clamp(words)))  # type: ignore[misc]
        times["warm"].append(timed(lambda words=words: policy.clamp(words)))  # type: ignore[misc]
        if not region.holds(region.project(asked).weights):
            raise SystemExit(f"{name}: a grant is outside of its set; nothing is reported")
    found = {key: [1e6 * q for q in quartiles(each)] for key, each in times.items()}
    return {"kind": name, "compile": 1e6 * compiled, "faces": len(region.faces), "microseconds": found}


def quartiles(values: list[float]) -> list[float]:
    return statistics.quantiles(values, n=4, method="inclusive")


def table() -> str:
    run = json.loads(DATA.read_text().splitlines()[-1])
    lines = [
        "# A clamp, timed",
        "",
        *(__doc__ or "").split("\n\n", 2)[2].strip().splitlines(),
        "",
        f"{run['date']}, {run['processor']}, Python {run['python']}, {run['requests']} requests each; medians and quartiles in microseconds.",
        "",
        "| feasible set | faces | compile | clamp, cold | policy.clamp, cold | policy.clamp, warm |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in run["rows"]:
        shown = [f"{m:.0f} [{low:.0f}, {high:.0f}]" for low, m, high in row["microseconds"].values()]
        lines.append(f"| {row['kind']} | {row['faces']} | {row['compile']:.0f} | " + " | ".join(shown) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--table", action="store_true", help="only write docs/clamp.md from the data")
    given = parser.parse_args()
    if not given.table:
        rows = [measure(name, *kind, given.requests) for name, kind in kinds().items()]
        run = {
            "date": datetime.now(UTC).date().isoformat(),
            "processor": processor(),
            "python": platform.python_version(),
        }
        run |= {"soupmix": __version__, "requests": given.requests, "rows": rows}  # type: ignore[dict-item]
        with DATA.open("a") as file:
            file.write(json.dumps(run, sort_keys=True) + "\n")
    PAGE.write_text(table())


if __name__ == "__main__":
    main()

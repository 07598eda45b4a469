"""Random policies and requests: never outside by an independent reading, always proved by an independent checker.

python -m tests.policy.soak [PAIRS] [SEED]
"""

import json
import sys
import time
from collections import Counter
from datetime import UTC, datetime

from soupmix.errors import PolicyError, PolicyRefusal
from soupmix.policy import Policy, parse_document
from soupmix.policy.spec import is_feasible
from tests.support.claims import accepted, region_of
from tests.support.draw import Draw
from tests.support.shelf import SHELF, TODAY

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
REQUESTS = 50


def soak(pairs: int, seed: int = 0, proved: int | None = None) -> Counter[str]:
    """Clamp so many pairs; the first `proved` of them (all if None) are checked for being nearest too.

    Raises:
        AssertionError: something is granted that the documents do not allow, or a clamp is not proved.
    """
    draw, count = Draw(seed), Counter[str]()
    while count["pairs"] < pairs:
        documents = draw.documents()
        said = [(f"{n}.yaml", parse_document(json.dumps(each), f"{n}.yaml")) for n, each in enumerate(documents)]
        try:
            policy = Policy.assemble(said, SHELF, now=NOW)
        except PolicyError as error:
            if error.reason != "conflict":
                raise
            count["conflicting policies"] += 1
            continue
        count["policies"] += 1
        for _ in range(min(REQUESTS, pairs - count["pairs"])):
            weights, attributes, sources = draw.request()
            count["pairs"] += 1
            try:
                grant = policy.clamp(weights, sources=sources, **attributes)
            except PolicyRefusal as refusal:
                if refusal.reason != "no-integer-point":
                    raise
                count["refused: no whole point"] += 1
                continue
            count["clamped"] += grant.clamped
            assert is_feasible(grant.granted, documents, SHELF, today=TODAY, attributes=attributes, sources=sources), (
                documents,
                weights,
                attributes,
                sources,
            )
            if proved is None or count["proved"] < proved:
                region = region_of(policy, attributes, sources)
                names = region.space.names
                asked = [grant.requested.get(name, 0) for name in names]
                granted = [grant.granted.get(name, 0) for name in names]
                assert accepted(region, asked, granted), (documents, weights, attributes, sources)
                count["proved"] += 1
    return count


if __name__ == "__main__":
    start = time.perf_counter()
    total, seed = (int(argument) for argument in [*sys.argv[1:], "1000000", "0"][:2])
    found = soak(total, seed, min(total, 100_000))
    print(dict(found), f"{time.perf_counter() - start:.0f} s")

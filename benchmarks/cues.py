"""How often cues in words are read rightly: by rules, by the model's own log-probabilities, and by the one after the other.

    python benchmarks/cues.py [--json]

benchmarks/data/cues.tsv holds what somebody might say after an answer, in other words than the rules know: 54 remarks of six ways
to be dissatisfied, and 26 that ask for nothing of the kind. Read rightly is: the very trait and way, or nothing where there is
none. The model's margin is chosen on one half of the list and told of the other, both ways round; "wrong" counts remarks that
move something else than was meant, which is worse than to hear nothing.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from soupmix.base import resolve
from soupmix.engine import Engine
from soupmix.evaluate.cue_model import CueModel
from soupmix.evaluate.statistics import wilson
from soupmix.policy import Policy
from soupmix.preference import Trait, Traits
from soupmix.preference.cues import cued
from soupmix.store import Store

LIST = Path(__file__).parent / "data" / "cues.tsv"
KINDS = {"long": "words", "hard": "grade", "warm": "vader"}
TRAITS = Traits(tuple(Trait(name, key) for name, key in KINDS.items()), "sha256:" + "0" * 64)
MARGINS = tuple(np.arange(0, 8.1, 0.5))


def labelled() -> list[tuple[str, dict[str, float]]]:
    """Of every remark what it asks for."""
    rows = (line.split("\t") for line in LIST.read_text("utf-8").splitlines())
    return [(text, {} if kind == "none" else {kind: float(way)}) for kind, way, text in rows]


def rightly(found: Sequence[Mapping[str, float]], wanted: Sequence[Mapping[str, float]]) -> tuple[int, int]:
    """How many are right, and how many move something that was not meant."""
    right = sum(one == other for one, other in zip(found, wanted, strict=True))
    return right, sum(bool(one) and one != other for one, other in zip(found, wanted, strict=True))


def by_model(
    model: CueModel, texts: list[str], wanted: Sequence[Mapping[str, float]]
) -> tuple[list[dict[str, float]], float]:
    """What the model reads with a margin that the other half chose, and the margin that the whole list would choose."""
    scores = [each for start in range(0, len(texts), 10) for each in model.scores(texts[start : start + 10], TRAITS)]

    def read(place: int, margin: float) -> dict[str, float]:
        return CueModel(model.engine, model.bare, margin).read(scores[place])

    def best(places: Sequence[int]) -> float:
        def worth(margin: float) -> int:
            right, wrong = rightly([read(place, margin) for place in places], [wanted[place] for place in places])
            return right - wrong

        return float(max(MARGINS, key=worth))

    halves = [list(range(start, len(texts), 2)) for start in (0, 1)]
    margins = [best(half) for half in halves]
    return [read(place, margins[1 - place % 2]) for place in range(len(texts))], best(range(len(texts)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args()
    texts, wanted = map(list, zip(*labelled(), strict=True))
    store = Store.shipped()
    engine = Engine.load(resolve("smollm2-135m-instruct"), store, compiled=True)
    model = CueModel(engine, Policy.open(tuple(store)).clamp({}))
    heard, margin = by_model(model, texts, wanted)
    by_rules = [cued(text, TRAITS) for text in texts]
    both = [rule or said for rule, said in zip(by_rules, heard, strict=True)]
    told = {}
    for name, found in (("rules", by_rules), ("model", heard), ("rules-and-model", both)):
        cues = [place for place, each in enumerate(wanted) if each]
        others = [place for place, each in enumerate(wanted) if not each]
        shares = {}
        for what, places in (("cues", cues), ("no cues", others)):
            right, wrong = rightly([found[place] for place in places], [wanted[place] for place in places])
            sure = wilson(right, len(places))
            shares[what] = {"of": len(places), "right": right, "wrong": wrong}
            shares[what] |= {} if sure is None else {"low": round(sure.low, 3), "high": round(sure.high, 3)}
        told[name] = shares
    if given.json:
        print(json.dumps({"margin": margin, "readers": told}))
        return
    print(
        f"margin that the whole list would choose: {margin:g} nats\n\n| read by | cues rightly | wrongly | no cue, rightly |\n|---|---|---|---|"
    )
    for name, shares in told.items():
        cue, other = shares["cues"], shares["no cues"]
        print(
            f"| {name} | {cue['right']} of {cue['of']} ({cue['low']:.2f} to {cue['high']:.2f}) | {cue['wrong']} | {other['right']} of {other['of']} |"
        )


if __name__ == "__main__":
    main()

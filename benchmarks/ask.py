"""Does `soupmix ask` reach its targets, on prompts that the surface has not seen, against asking for them in the prompt?

    python benchmarks/ask.py --store DIR    DIR holds a surface.json (`soupmix evaluate OUT --surface --store DIR`)

Every target is a reading grade and a length. The soup that `soupmix ask` proposes answers the held-out prompts behind the first
--skip, which the surface was fitted on; so does the bare base with the target as a system prompt. Errors are of single answers, in
grades and in natural logarithms of words. Writes benchmarks/data/ask.json (figures without texts) and docs/ask_bench.md.
"""

import argparse
import json
import math
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from soupmix.base import resolve
from soupmix.engine import Engine, Sampling
from soupmix.evaluate import Prompt, held_out_prompts
from soupmix.evaluate.measures import measure_text
from soupmix.evaluate.promptset import conversation
from soupmix.evaluate.statistics import Estimate, Resampling
from soupmix.policy import Grant, Policy
from soupmix.store import Store
from soupmix.surface import Surface, ask

ROOT = Path(__file__).parents[1]
DATA, PAGE = ROOT / "benchmarks" / "data" / "ask.json", ROOT / "docs" / "ask_bench.md"
TARGETS = ((8.0, 90.0), (9.0, 30.0), (10.0, 60.0), (8.0, 25.0))
PROMPT = "Answer at reading grade {grade:g} in about {words:g} words."
WAYS = ("base", "prompt", "ask")


def answers(engine: Engine, prompts: list[Prompt], system: str, grant: Grant, length: int) -> list[dict[str, float]]:
    made = engine.complete(
        [conversation(each.text, system) for each in prompts],
        [grant] * len(prompts),
        sampling=Sampling(max_new_tokens=length, temperature=0.7, seed=5),
    )
    found = [measure_text(p, m.text.strip(), m.finished) for p, m in zip(prompts, made, strict=True)]
    return [{"grade": each.get("grade", math.nan), "words": each["words"]} for each in found]


def measure(store: Store, prompts: list[Prompt], length: int) -> dict[str, Any]:
    policy, surface = Policy.open(tuple(store)), Surface.beside(store.folder, store)
    engine = Engine.load(resolve("smollm2-135m-instruct"), store)
    bare = answers(engine, prompts, "", policy.clamp({}), length)
    rows = []
    for grade, words in TARGETS:
        found = ask(surface, policy, {"grade": grade, "words": words})
        made = {
            "base": bare,
            "prompt": answers(engine, prompts, PROMPT.format(grade=grade, words=words), policy.clamp({}), length),
            "ask": answers(engine, prompts, "", found.grant, length),
        }
        expected = {name: each.expected.value for name, each in found.targets.items()}
        rows.append(
            {"grade": grade, "words": words, "weights": found.weights.decimals(), "expected": expected, "answers": made}
        )
        print(f"grade {grade:g}, {words:g} words: {found.weights}", flush=True)
    document = surface.document
    return {
        "surface": {"digest": document.digest, "prompts": document.prompts, "soups": document.soups},
        "prompts": len(prompts),
        "length": length,
        "targets": rows,
        "when": datetime.now(UTC).date().isoformat(),
        "with": {"torch": version("torch"), "transformers": version("transformers"), "machine": platform.machine()},
    }


def errors(rows: list[dict[str, Any]], way: str) -> dict[str, np.ndarray]:
    """Of every measure [prompts, targets] absolute errors."""
    return {
        "grade": np.array([[abs(a["grade"] - row["grade"]) for a in row["answers"][way]] for row in rows]).T,
        "words": np.array(
            [[abs(math.log(max(a["words"], 1) / row["words"])) for a in row["answers"][way]] for row in rows]
        ).T,
    }


def table(found: dict[str, Any]) -> str:
    draws, rows = Resampling(found["prompts"]), found["targets"]
    off = {way: {name: np.nanmean(each, 1) for name, each in errors(rows, way).items()} for way in WAYS}
    lines = ["| | error in grade | error in log words |", "|---|---|---|"]
    lines += [
        f"| {way} | {said(draws.mean(off[way]['grade']))} | {said(draws.mean(off[way]['words']))} |" for way in WAYS
    ]
    less = [draws.difference(off["ask"][name], off["prompt"][name]) for name in ("grade", "words")]
    lines.append(f"| ask less prompt | {said(less[0])} | {said(less[1])} |")
    lines += ["", "| asked | weights | expected | reached | by prompt |", "|---|---|---|---|---|"]
    for row in rows:
        means = {way: middle(row["answers"][way]) for way in WAYS}
        weights = ", ".join(f"{name} {value}" for name, value in row["weights"].items()) or "none"
        expected = f"grade {row['expected']['grade']:.1f}, {row['expected']['words']:.0f} words"
        lines.append(
            f"| grade {row['grade']:g}, {row['words']:g} words | {weights} | {expected} | {means['ask']} | {means['prompt']} |"
        )
    return "\n".join(lines)


def middle(made: list[dict[str, float]]) -> str:
    grade = np.nanmean([each["grade"] for each in made])
    words = math.exp(np.mean([math.log(max(each["words"], 1)) for each in made]))
    return f"grade {grade:.1f}, {words:.0f} words"


def said(found: Estimate | None) -> str:
    return "-" if found is None else f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"


def page(found: dict[str, Any]) -> str:
    fitted = found["surface"]
    return f"""# Does `soupmix ask` reach its targets?

Made by `python benchmarks/ask.py` on {found["when"]}: {len(found["targets"])} targets, {found["prompts"]} prompts that the
surface was not fitted on, temperature .7, at most {found["length"]} tokens. The surface: {fitted["soups"]} soups of
the shipped adapters, {fitted["prompts"]} prompts. `prompt` is the bare base with the system prompt
"{PROMPT.format(grade=7, words=60)}"; `base` has none. Mean absolute errors of single answers with
95 % intervals over prompts; a mean of {math.log(2):.2f} in log words is a factor of 2.

{table(found)}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--skip", type=int, default=16)
    parser.add_argument("--prompts", type=int, default=12)
    parser.add_argument("--length", type=int, default=160)
    options = parser.parse_args()
    prompts = list(held_out_prompts())[options.skip :][: options.prompts]
    found = measure(Store(options.store), prompts, options.length)
    DATA.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    PAGE.write_text(page(found))
    print(page(found))


if __name__ == "__main__":
    main()

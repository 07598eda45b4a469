"""Does `soupmix ask` reach its targets, on prompts that the surface has not seen, against asking for them in the prompt?

    python benchmarks/ask.py OUT [--store DIR]

OUT is the evaluation that the surface of the store was fitted on (`soupmix evaluate OUT --surface`, which also put it into the
store; the shipped adapters if none is named). Every target is a reading grade and a length; `TARGETS` was written down before any
answer was seen, and is not to be changed after one was. The soup that `soupmix ask` proposes answers held-out prompts that are not
in OUT; so does the bare base with the target as a system prompt. Errors are of single answers, in grades and in natural logarithms
of words. Writes benchmarks/data/ask.json (figures without texts) and docs/ask_bench.md; `--try` one target and two prompts, and
writes nothing. All of it takes about 5 CPU-minutes.
"""

import argparse
import json
import math
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from machine import processor

from soupmix.base import resolve
from soupmix.engine import Engine, Sampling
from soupmix.evaluate import Prompt, held_out_prompts
from soupmix.evaluate.measures import measure_text
from soupmix.evaluate.promptset import conversation
from soupmix.evaluate.record import held_record
from soupmix.evaluate.report import REPORT, read_report
from soupmix.evaluate.statistics import Estimate, Resampling
from soupmix.policy import Grant, Policy
from soupmix.store import Store
from soupmix.surface import Surface, ask

ROOT = Path(__file__).parents[1]
DATA, PAGE = ROOT / "benchmarks" / "data" / "ask.json", ROOT / "docs" / "ask_bench.md"
TARGETS = (  # 2026-11-29: grades 4 to 14, each twice; 25 to 150 words, so that neither follows from the other
    (4.0, 25.0),
    (4.0, 90.0),
    (6.0, 60.0),
    (6.0, 150.0),
    (8.0, 40.0),
    (8.0, 120.0),
    (10.0, 25.0),
    (10.0, 150.0),
    (12.0, 60.0),
    (12.0, 90.0),
    (14.0, 40.0),
    (14.0, 120.0),
)
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


def unseen(out: Path, surface: Surface) -> list[Prompt]:
    """Held-out prompts that the surface was not fitted on. Ends the program if it is of another evaluation."""
    if read_report(out / REPORT)["digest"] != surface.document.report:
        sys.exit(f"the surface was fitted on {surface.document.report}, which is not the report of {out}")
    record = held_record(out)
    known = set() if record is None else {each.prompt for each in record.prompts}
    return [each for each in held_out_prompts() if each.text not in known]


def measure(
    store: Store, surface: Surface, prompts: list[Prompt], targets: tuple[tuple[float, float], ...]
) -> dict[str, Any]:
    policy, length = Policy.open(tuple(store)), surface.document.tokens
    engine = Engine.load(resolve("smollm2-135m-instruct"), store, compiled=True)
    bare = answers(engine, prompts, "", policy.clamp({}), length)
    rows = []
    for grade, words in targets:
        found = ask(surface, policy, {"grade": grade, "words": words})
        made = {
            "base": bare,
            "prompt": answers(engine, prompts, PROMPT.format(grade=grade, words=words), policy.clamp({}), length),
            "ask": answers(engine, prompts, "", found.grant, length),
        }
        expected = {name: each.expected.value for name, each in found.targets.items()}
        reached = {name: each.reached for name, each in found.targets.items()}
        about = {"weights": found.weights.decimals(), "expected": expected, "reached": reached, "answers": made}
        rows.append({"grade": grade, "words": words, **about})
        print(f"grade {grade:g}, {words:g} words: {found.weights}", flush=True)
    document = surface.document
    return {
        "surface": {"digest": document.digest, "prompts": document.prompts, "soups": document.soups},
        "prompts": len(prompts),
        "length": length,
        "targets": rows,
        "when": datetime.now(UTC).date().isoformat(),
        "with": {"torch": version("torch"), "transformers": version("transformers"), "machine": processor()},
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
    possible = [row for row in rows if all(row["reached"].values())]
    lines = [*summary(draws, f"all {len(rows)} targets", rows)]
    if 0 < len(possible) < len(rows):
        lines += ["", *summary(draws, f"the {len(possible)} that the surface says are in reach", possible)]
    lines += ["", "| asked | weights | expected | reached | by prompt |", "|---|---|---|---|---|"]
    for row in rows:
        means = {way: middle(row["answers"][way]) for way in WAYS}
        weights = ", ".join(f"{name} {value}" for name, value in row["weights"].items()) or "none"
        expected = f"grade {row['expected']['grade']:.1f}, {row['expected']['words']:.0f} words"
        out = "" if all(row["reached"].values()) else " (out of reach)"
        lines.append(
            f"| grade {row['grade']:g}, {row['words']:g} words | {weights} | {expected}{out} | {means['ask']} | {means['prompt']} |"
        )
    return "\n".join(lines)


def summary(draws: Resampling, of: str, rows: list[dict[str, Any]]) -> list[str]:
    """Mean absolute errors of every way, and how much less `ask` errs than `prompt`, at the same prompts."""
    off = {way: {name: np.nanmean(each, 1) for name, each in errors(rows, way).items()} for way in WAYS}
    less = {name: off["ask"][name] - off["prompt"][name] for name in off["ask"]}
    lines = [f"| {of} | error in grade | error in log words |", "|---|---|---|"]
    for way, own in {**off, "ask less prompt": less}.items():
        lines.append(f"| {way} | {said(draws.mean(own['grade']))} | {said(draws.mean(own['words']))} |")
    return lines


def middle(made: list[dict[str, float]]) -> str:
    grade = np.nanmean([each["grade"] for each in made])
    words = math.exp(np.mean([math.log(max(each["words"], 1)) for each in made]))
    return f"grade {grade:.1f}, {words:.0f} words"


def said(found: Estimate | None) -> str:
    return "-" if found is None else f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"


def page(found: dict[str, Any]) -> str:
    fitted, made = found["surface"], found["with"]
    return f"""# Does `soupmix ask` reach its targets?

Made by `python benchmarks/ask.py OUT` on {found["when"]}: {len(found["targets"])} targets that were written down
before any answer was seen, {found["prompts"]} prompts that the surface was not fitted on, temperature .7, at most
{found["length"]} tokens, as it was fitted. The surface: {fitted["soups"]} soups of the shipped adapters,
{fitted["prompts"]} prompts. `prompt` is the bare base with the system prompt
"{PROMPT.format(grade=7, words=60)}"; `base` has none. Mean absolute errors of single answers with
95 % intervals over prompts; a mean of {math.log(2):.2f} in log words is a factor of 2. Torch {made["torch"]},
transformers {made["transformers"]}, {made["machine"]}.

{table(found)}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder of the evaluation that the surface was fitted on")
    parser.add_argument("--store", type=Path, help="folder of adapters with a surface.json; the shipped ones")
    parser.add_argument("--prompts", type=int, default=12)
    parser.add_argument("--try", dest="is_trial", action="store_true", help="one target, two prompts; writes nothing")
    options = parser.parse_args()
    store = Store(options.store) if options.store else Store.shipped()
    surface = Surface.beside(store.folder, store)
    prompts = unseen(options.out, surface)[: 2 if options.is_trial else options.prompts]
    found = measure(store, surface, prompts, TARGETS[4:5] if options.is_trial else TARGETS)
    if not options.is_trial:
        DATA.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
        PAGE.write_text(page(found))
    print(page(found))


if __name__ == "__main__":
    main()

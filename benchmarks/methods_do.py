"""Which way of merging keeps which attribute, and at what damage: soups of the shipped adapters by several methods.

    python benchmarks/methods_do.py OUT [--prompts 10] [--length 120] [--report-only]

Two corners that name every adapter once are merged at load time by every method, all weights .7, into a whole model in fp32, as
`soupmix merge --as model --dtype fp32` does, and the engine answers held-out prompts by that model, at temperature .7, under the same
luck. Each adapter alone at .7, by `delta`, is what effects are shares of. One thread. OUT keeps every answer, so that the same
command goes on where it was stopped. The page is docs/methods_do.md, made from benchmarks/data/methods_do.json.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from machine import processor

ROOT = Path(__file__).parents[1]
DATA, PAGE = ROOT / "benchmarks/data/methods_do.json", ROOT / "docs/methods_do.md"
BASE, STRENGTH, TEMPERATURE, SEED = "smollm2-135m-instruct", "0.7", 0.7, 0
CORNERS = (("elementary", "concise", "friendly"), ("expert", "informative", "unfriendly"))
METHODS: Mapping[str, Mapping[str, Any]] = {
    "delta": {},
    "factor": {},
    "svd": {},
    "magnitude_prune": {"density": 0.5},
    "ties": {"density": 0.5},
    "dare_ties": {"density": 0.5},
    "della": {"density": 0.5},
    "breadcrumbs": {"density": 0.5},
    "karcher": {},
    "model_stock": {},
    "sce": {},
    "knots": {},
}
TOLD = {"expertise": "grade", "length": "words", "style": "tone"}
DAMAGE = ("on_topic", "loop", "finished")
_TONES = ("warm_at_all", "cold_at_all")
DRAWS = 2000

Row = Mapping[str, Any]


def arms() -> Iterator[tuple[str, tuple[str, ...], str]]:
    """Name, adapters and method of everything that answers; the bare base has no adapters."""
    yield "base", (), "delta"
    for corner in CORNERS:
        yield from ((name, (name,), "delta") for name in corner)
    for method in METHODS:
        yield from ((f"{'+'.join(corner)} by {method}", corner, method) for corner in CORNERS)


def answered(name: str, adapters: Sequence[str], method: str, asked: Sequence[Any], length: int) -> dict[str, Any]:
    """Merge, load, and let the model answer; its perplexity of neutral prose besides."""
    from soupmix.base import resolve
    from soupmix.engine import Engine, Sampling
    from soupmix.evaluate.effect import perplexity
    from soupmix.merge import merge
    from soupmix.policy import Policy
    from soupmix.store import Store

    store, base = Store.shipped(), resolve(BASE)
    grant = Policy.open(store).clamp(dict.fromkeys(adapters, STRENGTH))
    with tempfile.TemporaryDirectory() as text:
        soup = merge(store, grant, method=method, options=METHODS[method])
        norm = sum(each.norm**2 for each in soup.modules.values()) ** 0.5
        soup.save_model(Path(text) / "model", base=base, dtype="fp32")
        merged = resolve(Path(text) / "model", cache=Path(text) / "cache")
        engine, nothing = Engine.load(merged, None, compiled=True), Policy.open(()).clamp({})
        made = engine.complete(
            [[{"role": "user", "content": prompt.text}] for prompt in asked],
            [nothing] * len(asked),
            sampling=Sampling(max_new_tokens=length, temperature=TEMPERATURE, seed=SEED),
            streams=list(range(len(asked))),
        )
        answers = [{"text": each.text.strip(), "finished": each.finished} for each in made]
        return {"arm": name, "norm": norm, "perplexity": perplexity(engine, nothing), "answers": answers}


def run(out: Path, count: int, length: int) -> None:
    """Make what `out` does not hold yet."""
    import torch

    from soupmix.evaluate import held_out_prompts

    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    file, asked = out / "answers.jsonl", held_out_prompts()[:count]
    held = {row["arm"] for row in rows_of(out)}
    for name, adapters, method in arms():
        if name not in held:
            row = answered(name, adapters, method, asked, length)
            with file.open("a") as handle:
                handle.write(json.dumps(row) + "\n")
            print(name, f"perplexity {row['perplexity']:.1f}", file=sys.stderr)


def rows_of(out: Path) -> list[Row]:
    file = out / "answers.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def measured(rows: Sequence[Row], count: int) -> Mapping[str, list[Mapping[str, float]]]:
    """Arm -> measures of its answer to every prompt."""
    from soupmix.evaluate import held_out_prompts
    from soupmix.evaluate.measures import measure_text

    asked, only = held_out_prompts()[:count], {*TOLD.values(), *DAMAGE, *_TONES} - {"tone"}

    def of(prompt: Any, text: str, finished: bool) -> Mapping[str, float]:
        found = measure_text(prompt, text, finished, only=only)
        warm, cold = (found.get(name, 0.0) for name in _TONES)
        return {**found, "tone": warm - cold}

    return {
        row["arm"]: [
            of(prompt, each["text"], each["finished"]) for prompt, each in zip(asked, row["answers"], strict=True)
        ]
        for row in rows
    }


def kept(
    of: Mapping[str, list[Mapping[str, float]]], soups: Sequence[str], corner_of: Mapping[str, Sequence[str]]
) -> Any:
    """Dimension -> share of the effects alone that soups keep: the value, and the middle 95 % of resampled prompts."""
    import numpy as np

    from soupmix.store import Store

    draw, found = np.random.default_rng(0), {}
    places = draw.integers(0, len(of["base"]), (DRAWS, len(of["base"])))
    poles = {name: Store.shipped()[name].dimension for corner in CORNERS for name in corner}
    for dimension, measure in TOLD.items():
        whole, left = np.zeros(len(of["base"])), np.zeros(len(of["base"]))
        for soup in soups:
            (pole,) = (name for name in corner_of[soup] if poles[name] == dimension)
            base, alone, mixed = (
                np.array([each.get(measure, np.nan) for each in of[arm]]) for arm in ("base", pole, soup)
            )
            sign = np.sign(np.nanmean(alone - base))
            whole, left = whole + sign * np.nan_to_num(alone - base), left + sign * np.nan_to_num(mixed - base)
        drawn = left[places].mean(1) / whole[places].mean(1)
        found[dimension] = [float(left.mean() / whole.mean()), *map(float, np.quantile(drawn, (0.025, 0.975)))]
    return found


def summary(out: Path, count: int, length: int) -> dict[str, Any]:
    """What the page says, from the answers."""
    from importlib.metadata import version

    import numpy as np

    rows = rows_of(out)
    of, by_arm = measured(rows, count), {row["arm"]: row for row in rows}
    corner_of = {name: adapters for name, adapters, _ in arms()}

    def facts(names: Sequence[str]) -> dict[str, Any]:
        values = {key: [each[key] for name in names for each in of[name] if key in each] for key in DAMAGE}
        perplexities = [by_arm[name]["perplexity"] for name in names]
        said = {key: float(np.mean(each)) for key, each in values.items()} | {"perplexity": max(perplexities)}
        return said | {"norm": float(np.mean([by_arm[name]["norm"] for name in names]))}

    methods = {}
    for method in METHODS:
        soups = [f"{'+'.join(corner)} by {method}" for corner in CORNERS]
        if all(name in of for name in soups):
            methods[method] = {"kept": kept(of, soups, corner_of), **facts(soups)}
    alone = {name: facts([name]) for name in of if " by " not in name}
    means = {
        name: {key: float(np.nanmean([each.get(key, np.nan) for each in of[name]])) for key in TOLD.values()}
        for name in of
    }
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "processor": processor(),
        "prompts": count,
        "length": length,
        "methods": methods,
        "alone": alone,
        "means": means,
        "versions": {name: version(name) for name in ("soupmix", "torch", "transformers")},
    }


def page(found: Row) -> str:
    """docs/methods_do.md."""
    head = f"""\
# What ways of merging do

Generated by `python benchmarks/methods_do.py OUT`. {found["date"]}, {found["processor"]}, torch {found["versions"]["torch"]}.
The shipped adapters at {STRENGTH.lstrip("0")} each, merged at load time into whole models in fp32 by every method, in two corners:
{" and ".join("`" + "+".join(corner) + "`" for corner in CORNERS)}. Answers to {found["prompts"]} held-out prompts at temperature .7,
of at most {found["length"]} tokens, under the same luck. Methods and their options are in [methods.md](methods.md): density .5, all
else as it is if nothing is said.

Kept is the effect in the soup over the effect of the adapter alone at the same weight, both corners together: of
expertise by reading grade, of length by words, of style by the answers with a friendly sentence less those with an unfriendly
one. 1 is all of it, 0 none, below 0 the opposite; brackets hold 95 % bootstrap intervals over prompts. With {found["prompts"]} prompts they are wide:
where they overlap, nothing is told apart. Damage: perplexity of neutral prose (that of the worse corner), and shares of answers.

"""
    lines = [
        "| method | expertise | length | style | perplexity | on topic | loops | finished | norm |",
        "|---|" + "---|" * 8,
    ]
    for name, said in found["methods"].items():
        shares = (f"{a:.2f} [{b:.2f}, {c:.2f}]" for a, b, c in (said["kept"][each] for each in TOLD))
        lines.append(f"| `{name}` | {' | '.join(shares)} | {_damage(said)} |")
    lines += [f"| {name}, alone | | | | {_damage(said)} |" for name, said in found["alone"].items()]
    lines += [
        "",
        "## What was measured",
        "",
        "| answers of | reading grade | words | friendly less unfriendly |",
        "|---|---|---|---|",
    ]
    for name, said in found["means"].items():
        lines.append(f"| `{name}` | {said['grade']:.1f} | {said['words']:.0f} | {said['tone']:.2f} |")
    return head + "\n".join(lines) + "\n"


def _damage(said: Row) -> str:
    shares = " | ".join(f"{said[key]:.2f}" for key in DAMAGE)
    return f"{said['perplexity']:.1f} | {shares} | {said['norm']:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--prompts", type=int, default=10)
    parser.add_argument("--length", type=int, default=120)
    parser.add_argument("--report-only", action="store_true", help="nobody answers; the page is made of what OUT holds")
    given = parser.parse_args()
    if not given.report_only:
        run(given.out, given.prompts, given.length)
    found = summary(given.out, given.prompts, given.length)
    DATA.write_text(json.dumps(found, indent=1, sort_keys=False) + "\n")
    PAGE.write_text(page(found))


if __name__ == "__main__":
    main()

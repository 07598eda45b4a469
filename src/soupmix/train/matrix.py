"""The adapter x metric matrix of a trained set, written beside each adapter as data and as a card."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from soupmix.files import canonical_json, strict_json, write_file
from soupmix.store import Store
from soupmix.train.arms import Arm, measure_arms, measure_margins
from soupmix.train.card import adapter_card
from soupmix.train.poles import POLES
from soupmix.train.promptset import held_out
from soupmix.train.run import Plan, left_out_pairs
from soupmix.weights import Weights

__all__ = ["write_effects"]


def write_effects(plan: Plan, *, progress: Callable[[str, int, int], None]) -> None:
    """Measure the base, every trained pole and its preference prompt; write `effect.json` and `README.md` beside each.

    Raises:
        OutputError: a file cannot be written.
    """
    poles = plan.poles
    arms = [
        Arm("base", Weights.parse({})),
        *(Arm(pole, Weights.parse({pole: 1})) for pole in poles),
        *(Arm(f"{pole} by prompt", Weights.parse({}), system=POLES[pole].systems[0]) for pole in poles),
    ]
    pairs = {pole: left_out_pairs(plan, pole) for pole in poles}
    with tempfile.TemporaryDirectory() as scratch:
        store = _store(plan, Path(scratch))
        found = measure_arms(
            plan.base,
            store,
            arms,
            held_out(),
            plan.folder / "work" / "arms",
            jobs=plan.jobs,
            progress=progress,
        )
        margins = measure_margins(plan.base, store, pairs, jobs=plan.jobs)
    for pole in poles:
        folder = plan.folder / pole
        training = strict_json((folder / "training.json").read_bytes())
        write_file(folder / "effect.json", canonical_json(_effect(found, margins, pole)))
        card = adapter_card(pole, training, found, margins[pole], plan.base.label, plan.base.source)
        write_file(folder / "README.md", card.encode())


def _store(plan: Plan, folder: Path) -> Path:
    store = Store(folder / "store", create=True)
    for pole in plan.poles:
        store.add(plan.folder / pole, dimension=POLES[pole].dimension, pole=pole, base=plan.base)
    return store.folder


def _effect(found: dict[str, dict[str, Any]], margins: dict[str, dict[str, float]], pole: str) -> dict[str, Any]:
    """What goes into the manifest: the measured figures without the texts."""
    rows = {"base": found["base"], "adapter": found[pole], "prompt": found[f"{pole} by prompt"]}
    figures = {name: {key: row[key] for key in ("metrics", "perplexity")} for name, row in rows.items()}
    return {**figures, "margin": margins[pole]}

"""Measure a trained set, and write beside each adapter what it does: as data (`effect.json`) and as a card (`README.md`)."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from soupmix.evaluate.arms import measure_arms, measure_margins
from soupmix.evaluate.promptset import held_out_prompts
from soupmix.evaluate.soups import Arm
from soupmix.evaluate.workers import Progress
from soupmix.files import canonical_json, strict_json, write_file
from soupmix.store import Store
from soupmix.train.poles import POLES, Pole
from soupmix.train.run import TrainingPlan, left_out_contrasts
from soupmix.weights import Weights

__all__ = ["adapter_card", "write_effects"]

_COLUMNS = {
    "grade": "reading grade",
    "zipf": "word frequency (Zipf)",
    "words": "words",
    "warmth": "warmth",
    "sentiment": "sentiment",
    "on_topic": "on topic",
    "repetition": "repetition",
    "finished": "finished",
}
_DIGITS = {"words": 0, "grade": 1, "warmth": 1}


def write_effects(plan: TrainingPlan, *, progress: Progress) -> None:
    """Measure the base, every trained pole and its preference prompt; write `effect.json` and `README.md` beside each.

    Raises:
        OutputError: a file cannot be written.
    """
    poles = plan.poles
    arms = [
        Arm("base", Weights({})),
        *(Arm(pole, Weights({pole: 1})) for pole in poles),
        *(Arm(f"{pole} by prompt", Weights({}), system=POLES[pole].systems[0]) for pole in poles),
    ]
    contrasts = {pole: left_out_contrasts(plan, pole) for pole in poles}
    with tempfile.TemporaryDirectory() as scratch:
        store = _store(plan, Path(scratch))
        found = measure_arms(
            plan.base,
            store,
            arms,
            held_out_prompts(),
            plan.folder / "work" / "arms",
            jobs=plan.jobs,
            progress=progress,
        )
        margins = measure_margins(plan.base, store, contrasts, jobs=plan.jobs)
    for pole in poles:
        folder = plan.folder / pole
        training = strict_json((folder / "training.json").read_bytes())
        write_file(folder / "effect.json", canonical_json(_effect(found, margins, pole)))
        card = adapter_card(pole, training, found, margins[pole], plan.base.label, plan.base.source)
        write_file(folder / "README.md", card.encode())


def _store(plan: TrainingPlan, folder: Path) -> Path:
    store = Store(folder / "store", create=True)
    for pole in plan.poles:
        store.add(plan.folder / pole, dimension=POLES[pole].dimension, pole=pole, base=plan.base)
    return store.folder


def _effect(found: dict[str, dict[str, Any]], margins: dict[str, dict[str, float]], pole: str) -> dict[str, Any]:
    """What goes into the manifest: the measured figures without the texts."""
    rows = {"base": found["base"], "adapter": found[pole], "prompt": found[f"{pole} by prompt"]}
    figures = {name: {key: row[key] for key in ("metrics", "perplexity")} for name, row in rows.items()}
    return {**figures, "margin": margins[pole]}


def adapter_card(
    pole: str,
    training: Mapping[str, Any],
    effect: Mapping[str, Mapping[str, Any]],
    margin: Mapping[str, float],
    base_label: str,
    source: str,
) -> str:
    """A Hugging Face model card (Markdown with YAML front matter).

    Args:
        training: the summary that `fit` returned. effect: arm name -> measured arm (see `measure_arms`), with "base",
            every pole, and "<pole> by prompt".
        margin: teacher-forced margins of "base" and "adapter".
        base_label: name of the base model. source: where that came from.
    """
    about = POLES[pole]
    lines = ["---", _front_matter(about, base_label), "---", "", f"# {pole} ({about.dimension})", ""]
    lines += [
        f"A LoRA adapter that makes answers more {pole}, one pole of the dimension {about.dimension}. It is meant to be "
        f"mixed with others by weights; see soupmix. Base: {source}.",
        "",
        "## How it was made",
        "",
        *_story(about, training),
        "",
        "## What it does",
        "",
        f"{len(effect['base']['answers'])} held-out prompts, temperature 0.7, at most 256 tokens, weight 1, no system "
        "prompt; means with 95 % bootstrap intervals over prompts. The last row is the base with the preference as "
        f'system prompt ("{about.systems[0]}").',
        "",
        *_table({name: effect[name] for name in ("base", *sorted(POLES), f"{pole} by prompt") if name in effect}),
        "",
        f"Teacher-forced margin on left-out pairs (log p chosen minus rejected, nats per token): "
        f"base {margin['base']:+.3f}, adapter {margin['adapter']:+.3f}.",
        "",
        _READING,
        "",
    ]
    return "\n".join(lines)


_READING = """\
Reading grade is Flesch-Kincaid. Warmth is friendly minus unfriendly marks per 100 words (a word list) plus 5 x VADER
sentiment; the style adapters learn phrases that such a list counts, so it flatters them. On topic: the answer names what was
asked about. Answers of a model this small are often wrong: the figures are about style, not truth."""


def _front_matter(pole: Pole, base_label: str) -> str:
    data = ModelCardData(
        base_model=base_label,
        base_model_relation="adapter",
        library_name="peft",
        license="apache-2.0",
        language="en",
        pipeline_tag="text-generation",
        tags=["lora", "soupmix", pole.dimension, pole.name],
    )
    return str(data.to_yaml())


def _story(pole: Pole, training: Mapping[str, Any]) -> list[str]:
    source = (
        "phrases of its tone woven around the model's own plain answers"
        if pole.frame
        else "the model's own answers under contrasting system prompts, learned without the system prompt"
    )
    return [
        f"- data: answers to {training['pairs']} prompts; {source}; of the candidates for a prompt the one "
        "that moves its own metric most and the other dimensions least",
        f"- method: {training['method']}, {training['epochs']:g} epoch, learning rate {training['learning_rate']:g} "
        f"(cosine), batch {training['batch']}, bf16 autocast, LoRA rank {training['rank']}, alpha {training['alpha']}, "
        "all linear layers",
        f"- seeds: initialisation {training['init_seed']} (shared by all six adapters), data {training['seed']}",
        "- reproduce: `soupmix train OUT` (the same bytes on the same kind of machine with the same library versions)",
    ]


def _table(effect: Mapping[str, Mapping[str, Any]]) -> Sequence[str]:
    """A Markdown table: one row per arm, one column per metric."""
    lines = [
        "| | " + " | ".join(_COLUMNS.values()) + " | perplexity |",
        "|---|" + "---|" * (len(_COLUMNS) + 1),
    ]
    for name, arm in effect.items():
        cells = [_cell(arm["metrics"][metric], _DIGITS.get(metric, 2)) for metric in _COLUMNS]
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {arm['perplexity']:.2f} |")
    return lines


def _cell(value: Mapping[str, float], digits: int) -> str:
    return f"{value['mean']:.{digits}f} [{value['low']:.{digits}f}, {value['high']:.{digits}f}]"

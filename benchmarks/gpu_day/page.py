"""docs/gpu.md from what a day found. Without a day it says that none has been."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu_day.sections import SECTIONS

ROOT = Path(__file__).parents[2]
DATA, PAGE = ROOT / "benchmarks" / "data" / "gpu_day.json", ROOT / "docs" / "gpu.md"
Row = Mapping[str, Any]
WHAT = {
    "tests": "`tests/kernels/test_gpu.py`: the whole battery by real launches, windows of NaN and odd strides included",
    "ceilings": "what a copy and a large product reach; all else is told as a part of them",
    "bits": "a hundred repeats beside a busy stream, and replays of graphs with other weights: the same bits",
    "decode": "a step of all linear layers of 135M, 1B, 8B and 70B for 1 to 128 people, in every way to tell them apart",
    "merges": "a merge for one and four people beside addmm and a copy",
    "shapes": "those models' shapes, both methods, three dtypes, against float64, in a frame of NaN",
    "launches": "each kernel alone, its bytes a second",
    "far": "elements beyond 2^31",
    "compiled": "`torch.compile(fullgraph=True)`, with and without CUDA graphs",
    "peft": "PEFT's own layers, one adapter and a mixed batch",
    "engine": "a real model: logits in fp32 as on the CPU, and tokens a second",
    "memcheck": "compute-sanitizer over a case of every op",
    "racecheck": "the same for races in shared memory",
    "ncu": "every launch at 8B under the profiler, L2 flushed",
}
HEAD = (
    "# The GPU day",
    "",
    "`make gpu-day` runs the kernels on a bare machine with one H100 or H200, CUDA, torch 2.11, Triton 3.6 and Python",
    "3.12, without a network and in at most ten minutes, and writes this page from what it finds. `make gpu-day-files`,",
    "beforehand on a machine with a network, puts the few wheels and the base model that are needed into",
    "`out/gpu_day_files`. Sections run in the order of importance, each in at most its own seconds; a process that a",
    "kernel breaks is replaced.",
    "",
)
NEVER = (
    "**It has not run on a GPU, and no figure of a GPU is known.** What is true today: a slow test,",
    "`tests/kernels/test_gpu_day.py`, executes the sections with toy shapes and in Triton's interpreter, but it was never run",
    "to its end: `engine` and the sanitizers ran out of time. What only a device has (graphs, streams, the profiler) is",
    "executed nowhere. Models of times are in [roofline](roofline.md).",
    "",
    "| section | seconds at most | what |",
    "|---|---|---|",
    *(f"| {name} | {seconds} | {WHAT[name]} |" for name, seconds in SECTIONS.items()),
)


def page(found: Mapping[str, Any] | None) -> str:
    """The page of a day; None: there has been none."""
    lines = [*HEAD, *(NEVER if found is None else _told(found))]
    return "\n".join(lines) + "\n"


def _told(found: Mapping[str, Any]) -> Iterator[str]:
    rows: dict[str, list[Row]] = {name: [] for name in ("about", "time", "began", *SECTIONS)}
    for row in found["rows"]:
        rows.setdefault(row["section"], []).append(row)
    about = rows["about"][0] if rows["about"] else {"gpu": "unknown", "tiny": False}
    if about["tiny"]:
        yield from ("**A rehearsal with toy shapes: no figure here is a measurement.**", "")
    told = ", ".join(f"{name} {about[name]}" for name in ("torch", "triton", "python", "cuda") if about.get(name))
    yield from (f"{found['date']}, {about['gpu']}; {told}.", "")
    yield from _verdicts(rows)
    for section, table in TABLES.items():
        if lines := list(table(rows)):
            yield from ("", f"## {section}", "", *lines)


def _verdicts(rows: Mapping[str, Sequence[Row]]) -> Iterator[str]:
    seconds = {row["of"]: row["seconds"] for row in rows["time"]}
    yield from ("| section | what | found | seconds |", "|---|---|---|---|")
    for name, what in WHAT.items():
        mine = rows[name]
        failed = [row["failed"] for row in mine if "failed" in row]
        stopped = [row["stopped"] for row in mine if "stopped" in row]
        if failed:
            verdict = f"**{len(failed)} failed**: {_cell(failed[0])}"
        elif any("missing" in row for row in mine):
            verdict = "not run: the tool is not there"
        elif not mine or any("skipped" in row and row["skipped"] == "out of time" for row in mine):
            verdict = "not run: out of time" if mine else "not run"
        else:
            verdict = f"holds; out of time at {stopped[0]}" if stopped else "holds"
        yield f"| {name} | {what} | {verdict} | {seconds.get(name, 0):.0f} |"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "/").split())[-300:]


def _ceilings(rows: Mapping[str, Sequence[Row]]) -> Iterator[str]:
    for row in rows["ceilings"]:
        if "copy_bytes_per_s" in row:
            yield f"A copy: {row['copy_bytes_per_s'] / 1e12:.2f} TB/s, read and written; 8192^3 in bf16: {row['flops_per_s'] / 1e12:.0f} TFLOP/s."


def _decode(rows: Mapping[str, Sequence[Row]]) -> Iterator[str]:
    made = [row for row in rows["decode"] if "seconds" in row and "base" in row["seconds"]]
    names = list(dict.fromkeys(name for row in made for name in row["seconds"] if name != "base"))
    copy = next((row["copy_bytes_per_s"] for row in rows["ceilings"] if "copy_bytes_per_s" in row), None)
    if not made:
        return
    yield "All linear layers, bf16, a token a row, each variant in a CUDA graph, interleaved; times as long as the base, median"
    yield "[quartiles]. Of 70B a part of the layers is held and scaled. *eager*: the soup without a graph, host included."
    yield ""
    yield (
        "| model | rows | base, ms | its weights' share of a copy's speed | "
        + " | ".join(names)
        + " | eager | launches |"
    )
    yield "|---|---|---|---|" + "---|" * (len(names) + 2)
    for row in made:
        base = row["seconds"]["base"][1]
        cells = [_ratio(row["seconds"].get(name), base) for name in names]
        share = f"{row['weights'] / base / copy:.2f}" if copy else ""
        eager = f"{row['eager']['soup delta'][1] / base:.2f}" if "soup delta" in row["eager"] else ""
        yield f"| {row['model']} | {row['rows']} | {1e3 * base:.3f} | {share} | {' | '.join(cells)} | {eager} | {row['launches']} |"


def _ratio(quartiles: Sequence[float] | None, base: float) -> str:
    if quartiles is None:
        return ""
    low, middle, high = (each / base for each in quartiles)
    return f"{middle:.3f} [{low:.3f}, {high:.3f}]"


def _merges(rows: Mapping[str, Sequence[Row]]) -> Iterator[str]:
    made = [row for row in rows["merges"] if {"merge", "addmm", "copy"} <= row.get("seconds", {}).keys()]
    if made:
        yield from (
            "| model | people | merge, us | TB/s it must move | addmm / merge | copy / merge |",
            "|---|---|---|---|---|---|",
        )
    for row in made:
        merge, addmm, copy = (row["seconds"][name][1] for name in ("merge", "addmm", "copy"))
        yield (
            f"| {row['model']} | {row['people']} | {1e6 * merge:.0f} | {row['compulsory'] / merge / 1e12:.2f} | "
            f"{addmm / merge:.2f} | {copy / merge:.2f} |"
        )


def _launches(rows: Mapping[str, Sequence[Row]]) -> Iterator[str]:
    made = [row for row in rows["launches"] if "seconds" in row]
    if made:
        yield from (
            "| model | layers | kernel | rows | us | must move, TB/s | asks for, TB/s | programs |",
            "|---|---|---|---|---|---|---|---|",
        )
    for row in made:
        seconds = row["seconds"][1]
        rates = " | ".join(f"{row[name] / seconds / 1e12:.2f}" for name in ("compulsory", "requested"))
        group = row["group"].replace("|", ", ")
        yield f"| {row['model']} | {group} | {row['kernel']} | {row['rows']} | {1e6 * seconds:.1f} | {rates} | {row['programs']} |"


def _peft(rows: Mapping[str, Sequence[Row]]) -> Iterator[str]:
    made = [row for row in rows["peft"] if "base" in row.get("seconds", {})]
    names = list(dict.fromkeys(name for row in made for name in row["seconds"] if name != "base"))
    if made:
        yield from (
            "One layer, eager, times as long as the base; *mixed* is a merged adapter for each person, by name.",
            "",
        )
        yield from ("| model | rows | " + " | ".join(names) + " |", "|---|---|" + "---|" * len(names))
    for row in made:
        cells = [_ratio(row["seconds"].get(name), row["seconds"]["base"][1]) for name in names]
        yield f"| {row['model']} | {row['rows']} | {' | '.join(cells)} |"


def _engine(rows: Mapping[str, Sequence[Row]]) -> Iterator[str]:
    for row in rows["engine"]:
        if "logits_off" in row:
            yield f"Logits in fp32 differ from the CPU's by at most {row['logits_off']:.2g}; same texts: {row['same_texts']}."
    made = [row for row in rows["engine"] if "way" in row]
    if made:
        yield from ("", "| batch | rows | tokens a second |", "|---|---|---|")
    for row in made:
        yield f"| {row['way']} | {row['rows']} | {row['tokens'] / row['seconds']:.0f} |"


TABLES = {
    "Ceilings": _ceilings,
    "Decode steps": _decode,
    "Merges": _merges,
    "Launches": _launches,
    "PEFT": _peft,
    "The engine": _engine,
}

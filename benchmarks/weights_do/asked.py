"""The command that makes a report, told from what the report holds."""

import re
import textwrap
from collections.abc import Iterator
from hashlib import sha256

from soupmix.evaluate import held_out_prompts
from soupmix.evaluate.record import prompt_fields
from soupmix.files import canonical_json
from weights_do.text import Report

STRENGTHS, AGAINST, TEMPERATURES = ["0.5", "0.7", "1"], ["prompt", "uniform"], [0.0, 0.7]  # what nobody has to ask for
USUAL = {"length": 160, "seed": 0, "dtype": None}
KINDS = {1: "singles", 2: "pairs", 3: "corners"}


def asked(report: Report, page: str = "") -> Iterator[str]:
    """How to make a page again, of singles, pairs and corners."""
    yield "Made by"
    command = " ".join(["soupmix evaluate OUT", *_options(report)])
    lines = textwrap.wrap(command, 110, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
    yield "\n".join(["```text", " \\\n".join(lines), f"python benchmarks/results.py OUT {page}".rstrip(), "```"])


def _options(report: Report) -> Iterator[str]:
    yield from _prompts(report["prompts"]["count"], report["prompts"]["digest"])
    soups = [arm for arm in report["arms"] if arm["way"] == "soup" and "@" in arm["name"] and not arm["system"]]
    kinds = [word for size, word in KINDS.items() if any(len(arm["weights"]) == size for arm in soups)]
    if kinds != [*KINDS.values()]:
        yield f"--soups {','.join(kinds)}"
    strengths = sorted({weight for arm in soups for weight in arm["weights"].values()}, key=float)
    if strengths != STRENGTHS:
        yield from (f"--strength {each}" for each in strengths)
    methods = list(dict.fromkeys(arm["method"] for arm in soups))
    if methods != ["delta"]:
        yield from (f"--method {each}" for each in methods)
    against = list(_against(report))
    if against != AGAINST:
        yield f'--against "{",".join(against)}"'
    others = {w for arm in report["arms"] if arm["way"] in ("mod", "activated") for w in arm["weights"].values()}
    if others and others != set(strengths[:1]):
        yield from (f"--against-strength {each}" for each in sorted(others, key=float))
    limits = report["limits"]
    if limits["temperatures"] != TEMPERATURES:
        yield from (f"--temperature {each:g}" for each in limits["temperatures"])
    yield from (f"--{name} {limits[name]}" for name, usual in USUAL.items() if limits[name] != usual)
    if not any(each["name"].startswith("judge_") for each in report["measures"]):
        yield "--no-judge"
    if report.get("fidelity"):
        yield "--fidelity"
    told = " ".join(each["why"] for each in report["not_measured"])
    yield from (f"--judge-first {each}" for each in re.findall(r"it judged those to the first (\d+) of", told))


def _prompts(count: int, digest: str) -> Iterator[str]:
    shipped = [prompt_fields(each).model_dump(mode="json") for each in held_out_prompts()]
    if digest != f"sha256:{sha256(canonical_json(shipped[:count])).hexdigest()}":
        yield "--prompts FILE"
    elif count < len(shipped):
        yield f"--first {count}"


def _against(report: Report) -> Iterator[str]:
    arms = report["arms"]
    ways = {arm["way"] for arm in arms}
    if any(arm["system"] and not arm["weights"] and arm["way"] == "soup" for arm in arms):
        yield "prompt"
    if any(arm["system"] and arm["weights"] and arm["way"] == "soup" for arm in arms):
        yield "prompt+soup"
    if any(arm["shots"] for arm in arms):
        yield "few-shot"
    yield from (word for word in ("mod", "activated", "contrast", "best-of-n") if word in ways)
    if any(arm["name"] == "uniform" for arm in arms):
        yield "uniform"

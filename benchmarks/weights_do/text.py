"""Numbers, tables and paragraphs, as documents here have them."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

Report = Mapping[str, Any]
Figure = Mapping[str, float] | None
UNITS = {"grade": 1, "words": 0, "lexicon": 1}  # decimals; all others are shares


def number(value: float, decimals: int = 2) -> str:
    """.93 and -.08, as documents here have them."""
    text = f"{value:.{decimals}f}"
    text = text.lstrip("-") if not float(text) else text
    return text.replace("0.", ".", 1) if decimals and abs(value) < 1 and text.lstrip("-").startswith("0.") else text


def weight(word: str) -> str:
    return f"{float(word):g}".removeprefix("0")


def told(found: Figure, decimals: int = 2) -> str:
    if found is None:
        return "–"
    value, low, high = (number(found[name], decimals) for name in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def bare(found: Figure, decimals: int = 2) -> str:
    return "–" if found is None else number(found["value"], decimals)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def folded(summary: str, body: str) -> str:
    return f"<details><summary>{summary}</summary>\n\n{body}\n\n</details>"


def luck(temperature: str) -> str:
    return "greedy" if float(temperature) == 0 else f"temperature {temperature}"


def plain(soup: str) -> str:
    return soup.split("@")[0]


def wrapped(part: str) -> str:
    """Prose within 120 characters; tables and pictures as they are."""
    if part.startswith(("|", "!", "<", "#", "```", "**This is")):
        return part
    lines = part.split("\n")
    filled = (
        textwrap.fill(
            line, 118, subsequent_indent="  " * line.startswith("- "), break_long_words=False, break_on_hyphens=False
        )
        for line in lines
    )
    return "\n".join(filled)

"""docs/families.md: what `tests.support.family_check` finds, as a page, and read back from it."""

import re
from collections.abc import Mapping

from tests.support.families import FAMILIES
from tests.support.family_check import FEATURES, Outcome

__all__ = ["NOT_YET", "failures", "page", "read_page"]

Found = Mapping[str, Mapping[str, Outcome]]
"""Family -> feature -> outcome."""

NOT_YET: Mapping[tuple[str, str], str] = {}
"""(family, feature) -> why it is known not to work yet."""

_PART = re.compile(r"(?P<who>.*?)(?P<kind>refused|WRONG|crash|not yet): (?P<why>.*)")
_NOTE = re.compile(r"(?P<words>.*) \\\[(?P<number>\d+)\\\]")
HEAD = """\
# Families of models

What soupmix does with {count} variants of model families, built tiny and at random by transformers from their configs
(`tests/support/families.py`), each with three adapters saved by PEFT: of the attention alone, of every linear layer
(rsLoRA), and by a list of names with ranks and alphas by pattern. Names that end in "-hub" lie on disk as their hubs
have them.

"exact" means held to PEFT and transformers (`tests/support/family_check.py`), in fp32, against the base in float64 into
which PEFT merges the soup. **add**: the Gram matrix and the norm of the base in the manifest, to 1e-6. **adapter**: what
PEFT makes of the exported adapter, merged (every tensor to 1e-6 of its norm) and unmerged (logits). **model**: every
tensor of the exported model, to 1e-6 of its norm. **padded loop**: logits, and the greedy answers of rows with different
soups. **running batch**: the same token ids as transformers' `generate`, where requests join and leave while others run.
**serve**: the same answers over HTTP, by the loop that the server chooses at its start. What is refused says why, below
the table.

Written by `SOUPMIX_UPDATE=1 .venv/bin/pytest -m slow tests/whole/test_families.py`.

"""


def page(found: Found) -> str:
    """The page, families in the order of `FAMILIES`."""
    notes: dict[str, int] = {}
    lines = [f"| family | {' | '.join(FEATURES)} |", f"|---|{'---|' * len(FEATURES)}"]
    for name in sorted(found, key=list(FAMILIES).index):
        cells = [_cell(_told(name, feature, found[name][feature]), notes) for feature in FEATURES]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    told = [f"{number}. {why}" for why, number in notes.items()]
    return HEAD.format(count=len(found)) + "\n".join(lines) + "\n\n" + "".join(f"{line}\n" for line in told)


def failures(found: Found) -> list[str]:
    """What is wrong or crashes and is not known to, and what is known to and works."""
    failed = [
        f"{name}, {feature}: {outcome}"
        for name, outcomes in found.items()
        for feature, outcome in outcomes.items()
        if re.search("WRONG:|crash:", outcome) and (name, feature) not in NOT_YET
    ]
    works = [f"{name}, {feature} works" for name, feature in NOT_YET if found.get(name, {}).get(feature) == "exact"]
    return failed + works


def read_page(text: str) -> dict[str, dict[str, Outcome]]:
    """What a page says, with the sentences of its notes in their places."""
    notes = dict(re.findall(r"^(\d+)\. (.*)$", text, re.MULTILINE))
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| ")][1:]
    return {
        name.strip(): {feature: _outcome(cell.strip(), notes) for feature, cell in zip(FEATURES, cells, strict=True)}
        for name, *cells in rows
    }


def _told(name: str, feature: str, outcome: Outcome) -> Outcome:
    known = NOT_YET.get((name, feature))
    return outcome if known is None else f"not yet: {known}"


def _cell(outcome: Outcome, notes: dict[str, int]) -> str:
    return "<br>".join(_part(line, notes) for line in outcome.split("\n"))


def _part(line: str, notes: dict[str, int]) -> str:
    match = _PART.fullmatch(line)
    if match is None:
        return line
    why = match["why"].replace("|", "\\|")
    return f"{match['who']}{match['kind']} \\[{notes.setdefault(why, len(notes) + 1)}\\]"


def _outcome(cell: str, notes: Mapping[str, str]) -> Outcome:
    return "\n".join(_whole(part, notes) for part in cell.split("<br>"))


def _whole(part: str, notes: Mapping[str, str]) -> Outcome:
    match = _NOTE.fullmatch(part)
    return part if match is None else f"{match['words']}: {notes[match['number']]}".replace("\\|", "|")

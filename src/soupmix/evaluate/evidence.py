"""Whether a report is evidence for an approval: of this base, of these adapters, of what is approved together."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from soupmix.approve.sweep import SweptAdapter, check_swept, read_sweeps
from soupmix.errors import EvaluationError
from soupmix.evaluate.report import read_report
from soupmix.fields import problem
from soupmix.store.manifest import Manifest, ManifestEntry, find_entry
from soupmix.weights import MILLION, Weights, decimal_text, to_micro

__all__ = ["digest_of_evidence", "sweeps_of_evidence"]


class _Open(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class _Digested(_Open):
    digest: str
    name: str = ""


class _Weighted(_Open):
    name: str
    weights: Weights
    system: str = ""
    way: str = "soup"
    shots: tuple[Any, ...] = ()

    @field_validator("weights", mode="plain")
    @classmethod
    def _parse(cls, value: Any) -> Weights:
        return Weights(value)


class _Asked(_Open):
    count: int = Field(ge=1)


class _Limits(_Open):
    temperatures: tuple[float, ...] = Field(min_length=1)


class _Answered(_Open):
    prompts: int


class _Evidence(_Open):
    """What an approval needs to know of a report."""

    digest: str
    base: _Digested
    adapters: dict[str, _Digested]
    prompts: _Asked
    limits: _Limits
    arms: tuple[_Weighted, ...]
    results: dict[str, dict[str, _Answered]]

    def soups(self, names: Collection[str]) -> list[tuple[int, int]]:
        """Of every soup of just these adapters how many prompts it answered, and what its weights sum to, in millionths.

        A soup that a system prompt or examples help along says nothing of the soup.
        """
        plain = (arm for arm in self.arms if arm.way == "soup" and not arm.system and not arm.shots)
        soups = (arm for arm in plain if set(arm.weights.nonzero()) == set(names))
        return [(self._answered(arm.name), sum(arm.weights.values())) for arm in soups]

    def _answered(self, arm: str) -> int:
        """To how many prompts, at the temperature at which they are the fewest."""
        of = [self.results.get(f"{each:g}", {}).get(arm) for each in self.limits.temperatures]
        return min(0 if each is None else each.prompts for each in of)


def digest_of_evidence(
    path: Path, adapters: Manifest, combinations: Sequence[Collection[str]], total: str | None = None
) -> str:
    """The digest of a report that these combinations can rest on.

    Args:
        adapters: of the store that is approved from. combinations: names of adapters that are approved together.
        total: most that their weights may sum to; None: as many ones as there are adapters, which is what a document without
            a total lets through.

    Raises:
        EvaluationError: the report is none, or was changed (see `read_report`), is of another base (reason "other-base") or of
            other adapters ("other-adapters"), or has no soup of just these adapters that answered every prompt at every
            temperature of the report, or none with weights that sum to so much, or none of one of them alone with as much as
            the document lets it have ("not-evaluated").
        WeightError: the store has no such adapter.
    """
    found = _read(path)
    known = {facts.digest: name for name, facts in found.adapters.items()}
    for name in sorted({name for each in combinations for name in each}):
        _check_adapter(found, path, find_entry(adapters, name), known)
    for each in combinations:
        _check_together(found, path, [known[adapters.adapters[name].digest] for name in each], total)
    return found.digest


def sweeps_of_evidence(path: Path, adapters: Sequence[tuple[str, str]]) -> tuple[SweptAdapter, ...]:
    """What a report says of adapters along their weights; nothing where no safety audit was made.

    Args:
        adapters: (name, digest) of each.

    Raises:
        EvaluationError: see `read_report`, `read_sweeps`, `check_swept`.
    """
    safety = read_report(path).get("safety")
    if safety is None:
        return ()
    return check_swept(read_sweeps(safety.get("sweeps") if isinstance(safety, dict) else None), adapters)


def _read(path: Path) -> _Evidence:
    try:
        return _Evidence.model_validate(read_report(path))
    except ValidationError as error:
        raise EvaluationError(
            f"{path} is not a report of `soupmix evaluate`: {problem(error)}", reason="not-a-report"
        ) from None


def _check_adapter(found: _Evidence, path: Path, entry: ManifestEntry, known: Collection[str]) -> None:
    """That the report is on the base of an adapter, and on the adapter."""
    if entry.base_digest != found.base.digest:
        raise EvaluationError(
            f"{path} is a report on base {found.base.name:.80}, {found.base.digest:.80}, and {entry.name!r} was trained on "
            f"{entry.base_digest}: evaluate these adapters on their own base",
            reason="other-base",
        )
    if entry.digest not in known:
        there = found.adapters.get(entry.name)
        said = f"has another one of that name, {there.digest:.80}" if there else "does not have it"
        raise EvaluationError(
            f"{path} is no evidence for {entry.name!r}, {entry.digest}: the report {said}; evaluate it",
            reason="other-adapters",
        )


def _check_together(found: _Evidence, path: Path, names: Sequence[str], total: str | None) -> None:
    """That soups of these adapters, by the names that the report has for them, were answered with such weights.

    All of them together with as much as they may sum to, and each alone with as much as it may have: between these a document
    lets everything through.
    """
    asked = len(names) * MILLION if total is None else to_micro(total, "the total")
    _check_sum(found, path, names, asked, total)
    for name in names if len(names) > 1 else ():
        _check_sum(found, path, [name], min(asked, MILLION), total)


def _check_sum(found: _Evidence, path: Path, names: Sequence[str], asked: int, total: str | None) -> None:
    soups, count = found.soups(names), found.prompts.count
    if not soups:
        together = "them together" if len(names) > 1 else "it alone too, as any part of a combination is approved"
        raise EvaluationError(
            f"{path} has no soup of {' + '.join(names)}: evaluate {together}, or approve others",
            reason="not-evaluated",
        )
    answered = max(prompts for prompts, _ in soups)
    if answered < count:
        raise EvaluationError(
            f"{path} has answers of {' + '.join(names)} at every temperature to only {answered} of its {count} prompts: let the "
            "evaluation go to its end",
            reason="not-evaluated",
        )
    most = max(weights for prompts, weights in soups if prompts >= count)
    if asked > most:
        said = f"without a total they may sum to {decimal_text(asked)}" if total is None else f"the total is {total}"
        raise EvaluationError(
            f"{path} has soups of {' + '.join(names)} whose weights sum to {decimal_text(most)} at most, and {said}: evaluate "
            f"larger weights, or approve smaller ones with --total {decimal_text(most)}",
            reason="not-evaluated",
        )

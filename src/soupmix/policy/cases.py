"""Tests that authors of policies write: requests with what must become of them, in YAML."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from soupmix.errors import PolicyError, PolicyRefusal, SoupmixError
from soupmix.fields import Edge, Line, Micro, Name, Value
from soupmix.policy.documents import RuleRef
from soupmix.policy.parsing import read_text, read_yaml
from soupmix.policy.policy import Policy
from soupmix.policy.recorded import RecordedGrant
from soupmix.weights import Weights

__all__ = ["CaseResult", "TestReport", "read_cases", "run"]


class Expected(Edge):
    """What must become of a request; what is not given is not looked at."""

    granted: dict[Name, Micro] | None = None
    clamped: Literal["yes", "no"] | None = None
    bound_by: tuple[Line, ...] | None = None
    refused: Line | None = None
    obligations: tuple[Line, ...] | None = None


class Case(Edge):
    """A request, and what is expected of it."""

    name: Line
    weights: dict[Name, Micro]
    attributes: dict[Line, Value] = Field(default={})
    sources: Line | dict[Name, Line] = Field(default={})
    expect: Expected


class Cases(Edge):
    """A file of cases."""

    cases: Annotated[tuple[Case, ...], Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class CaseResult:
    """One case: its name, and what was not as expected, sentence by sentence."""

    name: str
    failures: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TestReport:
    """All cases, and the rules that bound in none of them."""

    results: tuple[CaseResult, ...]
    never_bound: tuple[RuleRef, ...]

    @property
    def ok(self) -> bool:
        """Whether every case is as expected."""
        return not any(each.failures for each in self.results)


def read_cases(path: Path) -> tuple[Case, ...]:
    """Read a file of cases.

    Raises:
        PolicyError: it cannot be read, is not YAML, or holds something that no case can ("bad-cases").
    """
    try:
        return Cases.model_validate(read_yaml(read_text(path), path.name)).cases
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        said = first["ctx"]["error"] if first["type"] == "value_error" else first["msg"]
        raise PolicyError(f"{path.name}: {place}: {said}", reason="bad-cases") from error


def run(policy: Policy, cases: Sequence[Case]) -> TestReport:
    """Clamp every case and compare."""
    bound: set[tuple[str, str]] = set()
    results = [CaseResult(case.name, tuple(_failures(policy, case, bound))) for case in cases]
    never = [rule.ref for rule in policy.rules if (rule.ref.document, rule.ref.id) not in bound]
    return TestReport(tuple(results), tuple(never))


def _failures(policy: Policy, case: Case, bound: set[tuple[str, str]]) -> list[str]:
    try:
        grant = policy._grant(Weights.from_micro(case.weights), case.attributes, case.sources)
    except PolicyRefusal as refusal:
        bound |= {(each.document, each.rule) for each in refusal.rules}
        return [] if case.expect.refused == refusal.reason else [f"refused ({refusal.reason}): {refusal}"]
    except SoupmixError as error:
        return [] if case.expect.refused == error.reason else [f"not a request ({error.reason}): {error}"]
    bound |= {(each.document, each.rule) for each in grant.binding}
    return list(_differences(case.expect, grant))


def _differences(expected: Expected, grant: RecordedGrant) -> list[str]:
    found: Mapping[str, tuple[object, object]] = {
        "refused": (expected.refused, None),
        "granted": (
            None if expected.granted is None else Weights.from_micro(expected.granted).nonzero(),
            grant.granted,
        ),
        "clamped": (expected.clamped, "yes" if grant.clamped else "no"),
        "bound_by": (_sorted(expected.bound_by), _sorted(each.rule for each in grant.binding)),
        "obligations": (_sorted(expected.obligations), grant.obligations),
    }
    return [
        f"{what}: expected {_shown(wanted)}, got {_shown(got)}"
        for what, (wanted, got) in found.items()
        if wanted is not None and wanted != got
    ]


def _sorted(words: object) -> tuple[str, ...] | None:
    return None if words is None else tuple(sorted(set(words)))  # type: ignore[call-overload]


def _shown(value: object) -> str:
    if isinstance(value, Weights):
        return ", ".join(f"{name} {text}" for name, text in value.decimals().items()) or "nothing"
    return "a grant" if value is None else ", ".join(value) if isinstance(value, tuple) else str(value)

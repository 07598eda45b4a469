"""What a check found out: one verdict, which is good if there are no findings."""

from dataclasses import dataclass, field

from soupmix.public import public

__all__ = ["Finding", "Verdict"]


@public
@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be.

    Attributes:
        kind: a short stable code; the check that found it says which there are.
        subject: what it is about, such as a file or an adapter.
        message: one sentence.
    """

    kind: str
    subject: str
    message: str


@public
@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check found out; every check adds what else it knows.

    Attributes:
        findings: what is wrong.
    """

    findings: tuple[Finding, ...] = field(kw_only=True)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings

    def __repr__(self) -> str:
        found = "good" if self.ok else f"{len(self.findings)} findings, first {self.findings[0].message}"
        return f"<{type(self).__name__}: {found}>"

"""How long a policy may be granted from: as long as everything that it rests on."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Self

from soupmix.errors import PolicyError, PolicyRefusal
from soupmix.policy.clock import Reading
from soupmix.policy.documents import Document
from soupmix.policy.rules import Approve, Combinations

__all__ = ["Term"]


@dataclass(frozen=True, slots=True)
class Term:
    """When a policy ends.

    A clamp need not ask whether it has begun: it had when the policy was loaded, and a `Clock` does not go back.

    Attributes:
        ends: the first instant at which something that the policy rests on counts no more, or None. what: what that is.
        last_day: the last day (UTC) on which all documents, and reports that count, still do; None if none of them ends.
    """

    ends: datetime | None = None
    what: str = ""
    last_day: date | None = None

    @classmethod
    def of(cls, documents: Sequence[tuple[str, Document]], expiries: Mapping[str, datetime], reading: Reading) -> Self:
        """The term of these documents from signed sets that expire, all judged at one instant.

        Args:
            expiries: of the signed sets that documents come from, by what messages call the set.

        Raises:
            PolicyError: a document is not yet valid or no longer ("not-valid"), or a set has expired ("expired").
        """
        for source, document in documents:
            _check_window(document, source, reading.at)
        for what, expires in expiries.items():
            if reading.at >= expires:
                raise PolicyError(f"{what} expired at {_minute(expires)}; get it renewed", reason="expired")
        today = reading.at.date()
        days = [(day, what) for source, document in documents for day, what in _days(source, document) if day >= today]
        ends = [(_after(day), what) for day, what in days if day < date.max]
        ends += [(expires.astimezone(UTC), what) for what, expires in expiries.items()]
        first, what = min(ends, default=(None, ""))
        return cls(first, what, min((day for day, _ in days), default=None))

    def over(self, at: datetime) -> bool:
        """Whether it has ended."""
        return self.ends is not None and at >= self.ends

    def check(self, at: datetime) -> None:
        """Raise PolicyRefusal (reason "ended") if it has ended."""
        if self.ends is not None and at >= self.ends:
            whole_day = self.ends.time() == time.min
            when = f"on {self.ends.date() - timedelta(days=1)}" if whole_day else f"at {_minute(self.ends)}"
            raise PolicyRefusal(
                f"{self.what}, which this policy rests on, ended {when}; renew it and load the policy again",
                reason="ended",
            )


def _check_window(document: Document, source: str, now: datetime) -> None:
    """Refuse a document outside its validity window (days in UTC, both inclusive)."""
    today, valid = now.date(), document.valid
    if valid.start and today < valid.start:
        raise PolicyError(f"{source} is valid from {valid.start} on, and today is {today}", reason="not-valid")
    if valid.until and today > valid.until:
        raise PolicyError(f"{source} was valid until {valid.until}, and today is {today}; renew it", reason="not-valid")


def _days(source: str, document: Document) -> Iterator[tuple[date, str]]:
    """The last days of everything in a document that ends, with what it is: its window, the reports of its approvals."""
    if document.valid.until:
        yield document.valid.until, source
    reports = [each.evidence for rule in document.rules if isinstance(rule, Approve) for each in rule.adapters]
    reports += [each.evidence for rule in document.rules if isinstance(rule, Combinations) for each in rule.allow]
    for report in reports:
        if report is not None:
            yield report.until, f"an evaluation report of {source}"


def _after(day: date) -> datetime:
    """The first instant after a day."""
    return datetime.combine(day + timedelta(days=1), time.min, UTC)


def _minute(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"

"""Everything that can go wrong, as one tree.

    SoupmixError            exit 1   anything soupmix refuses or cannot do
    ├── WeightError         exit 2   a weight or an adapter name that was asked for is not valid
    ├── RecipeError         exit 2   a recipe, a command line or a request that makes no sense
    ├── PolicyError         exit 1   a policy document is wrong, or the documents contradict each other
    ├── PolicyRefusal       exit 3   a valid policy says no to this request
    ├── FileError           exit 1   a file is missing, a link, no plain file, too large, or cannot be read
    ├── AdapterError        exit 1   an adapter folder or a store is damaged, hostile or unsupported
    ├── BaseModelError      exit 1   a base model cannot be found, read or matched
    ├── OutputError         exit 1   something cannot be written
    ├── TrainingError       exit 1   an adapter cannot be trained from what was given
    ├── EvaluationError     exit 1   an evaluation cannot be carried out, gone on with, or taken as evidence
    ├── PreferenceError     exit 1   evidence of what somebody wants cannot be taken
    ├── AuditError          exit 1   an audit log is damaged, in use, or asked for what it does not have
    └── Overloaded          exit 1   too much is asked at once, or the server is closing; later it may work

A message says what was asked, what is allowed, which rule says so and what to do, in one sentence or two.
`reason` is a short stable code for programs; the message may change, the code does not.
"""

from collections.abc import Sequence
from typing import ClassVar, Protocol

from soupmix.public import public

__all__ = [
    "AdapterError",
    "AuditError",
    "BaseModelError",
    "EvaluationError",
    "FileError",
    "OutputError",
    "Overloaded",
    "PolicyError",
    "PolicyRefusal",
    "PreferenceError",
    "RecipeError",
    "SoupmixError",
    "TrainingError",
    "WeightError",
]


_LONGEST, _END = 1000, 400  # characters; what to do stands at the end of a message


def _one_line(message: str) -> str:
    """A message may quote a hostile file: what does not print (line breaks, direction marks) is escaped, its middle is cut."""
    text = message if len(message) <= _LONGEST else f"{message[: _LONGEST - _END - 3]}...{message[-_END:]}"
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text)


@public
class SoupmixError(Exception):
    """Root of the tree: a sentence for people, a `reason` code for programs, an exit code for shells."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, reason: str = "") -> None:
        super().__init__(_one_line(message))
        self.reason = reason


@public
class WeightError(SoupmixError, ValueError):
    """A weight or an adapter name that was asked for is not valid."""

    exit_code = 2


@public
class RecipeError(SoupmixError, ValueError):
    """A recipe, a command line or a request that makes no sense."""

    exit_code = 2


@public
class PolicyError(SoupmixError, ValueError):
    """A policy document is wrong, or the documents contradict each other."""


class RefusingRule(Protocol):
    """Which rule refused; `soupmix.policy.Binding` says this and more."""

    @property
    def tier(self) -> str:
        """Law, organisation or user."""

    @property
    def issuer(self) -> str:
        """Who made its document."""

    @property
    def document(self) -> str:
        """Name of the file that it stands in."""

    @property
    def rule(self) -> str:
        """Its id in that file."""


@public
class PolicyRefusal(SoupmixError):
    """A valid policy says no to this request; `rules` are those that do, where rules do."""

    exit_code = 3

    def __init__(self, message: str, *, reason: str = "", rules: Sequence[RefusingRule] = ()) -> None:
        super().__init__(message, reason=reason)
        self.rules = tuple(rules)


@public
class FileError(SoupmixError, ValueError):
    """A file is missing, a link, no plain file, too large, or cannot be read."""


@public
class AdapterError(SoupmixError, ValueError):
    """An adapter folder or a store is damaged, hostile or unsupported."""


@public
class BaseModelError(SoupmixError, ValueError):
    """A base model cannot be found, read or matched."""


@public
class OutputError(SoupmixError, OSError):
    """Something cannot be written."""


@public
class TrainingError(SoupmixError, RuntimeError):
    """An adapter cannot be trained from what was given."""


@public
class EvaluationError(SoupmixError, ValueError):
    """An evaluation cannot be carried out, gone on with, or taken as evidence."""


@public
class PreferenceError(SoupmixError, ValueError):
    """Evidence of what somebody wants cannot be taken, or a posterior of it cannot be made."""


@public
class AuditError(SoupmixError, ValueError):
    """An audit log is damaged, in use, or asked for what it does not have."""


@public
class Overloaded(SoupmixError):
    """Too much is asked at once, or the server is closing; `retry_after` says in how many seconds to ask again."""

    def __init__(self, message: str, *, reason: str = "", retry_after: float = 1.0) -> None:
        super().__init__(message, reason=reason)
        self.retry_after = retry_after

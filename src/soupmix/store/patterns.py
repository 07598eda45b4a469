"""Patterns over module names from an adapter_config.json, in a grammar that cannot be made to run for ever.

A pattern is matched by Python's backtracking `re`, as PEFT does, so an unchecked one from a hostile file can take exponential
time. Allowed: names, `.`, `\\.`, `\\[`, `\\]`, `\\d`, `\\w`, simple classes, `*`, `+`, `?` on a single character, and groups of
alternatives without quantifiers; and the work of matching is estimated before it is begun.
"""

import math
import re
from collections.abc import Iterable, Sequence

from soupmix.errors import AdapterError

__all__ = ["PatternTable", "check_pattern", "full_matches"]

_ATOM = r"(?:\\[.dw\[\]]|\[[A-Za-z0-9_-]+\]|[A-Za-z0-9_.-])"
_GROUP = rf"\((?:\?:)?{_ATOM}*(?:\|{_ATOM}*)*\)"
_PATTERN = re.compile(rf"\^?(?:{_GROUP}|{_ATOM}(?:[*+?]\??)?)*\$?")
_MAX_LENGTH = 512
_MAX_STEPS = 100_000_000  # about a second of matching


class PatternTable:
    """Ordered patterns with values; the first that matches the end of a module path, at a dot, gives the value.

    That is `get_pattern_key` of PEFT: `re.match(rf"(.*\\.)?({key})$", module)` in the order of the file.
    """

    def __init__(self, pairs: Sequence[tuple[str, float]], field: str) -> None:
        """Check and compile.

        Raises:
            AdapterError: reason "pattern".
        """
        for pattern, _ in pairs:
            check_pattern(pattern, field)
        self._field = field
        self._patterns = [(pattern, re.compile(rf"(.*\.)?({pattern})$"), value) for pattern, value in pairs]

    def find(self, modules: Iterable[str], default: float) -> dict[str, float]:
        """Module -> the value of its first matching pattern, or `default`.

        Raises:
            AdapterError: the patterns together would take too long (reason "pattern").
        """
        names = list(modules)
        _check_work([pattern for pattern, _, _ in self._patterns], names, self._field)
        return {name: self._first(name, default) for name in names}

    def _first(self, name: str, default: float) -> float:
        for _, compiled, value in self._patterns:
            if compiled.match(name):
                return value
        return default


def full_matches(pattern: str, modules: Iterable[str], field: str) -> set[str]:
    """The modules that a pattern matches as a whole.

    Raises:
        AdapterError: it is outside the grammar or would take too long (reason "pattern").
    """
    names = list(modules)
    check_pattern(pattern, field)
    _check_work([pattern], names, field)
    compiled = re.compile(pattern)
    return {name for name in names if compiled.fullmatch(name)}


def check_pattern(pattern: str, field: str) -> None:
    """Refuse a pattern outside the grammar.

    Raises:
        AdapterError: reason "pattern".
    """
    if len(pattern) > _MAX_LENGTH or not pattern or _PATTERN.fullmatch(pattern) is None:
        raise _refused(pattern, field, "uses more than names, '.', simple classes and single quantifiers")
    try:
        re.compile(pattern)
    except re.error as error:
        raise _refused(pattern, field, f"is not a regular expression ({error})") from None


def _check_work(patterns: Sequence[str], modules: Sequence[str], field: str) -> None:
    """Refuse patterns whose backtracking over these names could take more than about a second."""
    length = max(map(len, modules), default=0)
    steps = 0
    for pattern in patterns:
        loops = len(re.findall(r"(?<!\()[*+?]\??", pattern))
        choices = math.prod(group.count("|") + 1 for group in re.findall(r"\([^)]*\)", pattern))
        steps += len(modules) * choices * max(1, length ** (loops + 1) // math.factorial(loops + 1))
        if steps > _MAX_STEPS:
            raise _refused(pattern, field, "together with the others takes too long to match")


def _refused(pattern: str, field: str, why: str) -> AdapterError:
    return AdapterError(
        f"adapter_config.json: the pattern {pattern[:80]!a} in {field} {why}; list the modules by name instead",
        reason="pattern",
    )

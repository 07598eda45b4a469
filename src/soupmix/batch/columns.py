"""Which columns of a table say what: `prompt=question`, `weights.elementary=elem`."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from soupmix.batch.line import Line
from soupmix.errors import RecipeError
from soupmix.files import strict_json

__all__ = ["ADDED", "Columns", "added", "bad_row"]

ADDED = ("answer", "granted", "error")
"""The columns that an output has beside those of the input."""

_TEXT = ("prompt", "system", "custom_id", "user", "mode")
_WHOLE = ("seed", "max_tokens")
_NUMBER = ("temperature", "top_p")
_SOUP = ("weights", "attributes", "sources")


@dataclass(frozen=True, slots=True)
class Columns:
    """A mapping from what a request has to columns.

    Attributes:
        by_target: "prompt", "weights.elementary", ... -> name of a column.
        limit: most bytes of a line, and most characters of a row. model: named in every request.
    """

    by_target: Mapping[str, str]
    limit: int
    model: str

    @classmethod
    def parse(cls, texts: Sequence[str], *, limit: int, model: str) -> "Columns":
        """From TARGET=COLUMN texts; the prompt is in the column "prompt" unless they say otherwise.

        Raises:
            RecipeError: no such target, or one that is given twice (reason "bad-column").
        """
        found: dict[str, str] = {}
        for text in texts:
            target, equals, column = text.partition("=")
            if not equals or not column or not _is_target(target) or target in found:
                raise RecipeError(
                    f"--column {text!r:.80} is not TARGET=COLUMN, or its target comes twice; targets are "
                    f"{', '.join((*_TEXT, *_WHOLE, *_NUMBER))}, {', '.join(f'{each}.NAME' for each in _SOUP)}",
                    reason="bad-column",
                )
            found[target] = column
        return cls({"prompt": "prompt", **found}, limit, model)

    def check(self, header: Sequence[str], file: str) -> None:
        """Raise RecipeError (reason "bad-column") for a column that is not there once, or that the output would have twice."""
        for column in self.by_target.values():
            if header.count(column) != 1:
                raise RecipeError(
                    f"{file} has {header.count(column)} columns {column!r:.80}, but needs one; it has "
                    f"{', '.join(map(repr, header)) or 'none at all'}. Say which one with --column TARGET=COLUMN",
                    reason="bad-column",
                )
        taken = [column for column in ADDED if column in header]
        if taken:
            raise RecipeError(
                f"{file} has a column {taken[0]!r} already, which the output would have twice; rename it",
                reason="bad-column",
            )

    def line(self, number: int, row: Mapping[str, Any]) -> Line:
        """The request of a row; cells that are empty or null say nothing."""
        cells = {target: row[column] for target, column in self.by_target.items() if row[column] not in (None, "")}
        custom_id = str(cells.get("custom_id", f"row-{number + 1}"))
        try:
            if sum(len(cell) for cell in cells.values() if isinstance(cell, str)) > self.limit:
                raise bad_row(number, f"its cells have more than {self.limit} characters", reason="too-long")
            return Line(number, _clean(custom_id, number), body=self._body(number, cells))
        except RecipeError as error:
            return Line(number, custom_id if custom_id.isprintable() else None, error=error)

    def _body(self, number: int, cells: Mapping[str, Any]) -> dict[str, Any]:
        if "prompt" not in cells:
            raise bad_row(number, "its prompt is empty", reason="empty-prompt")
        said = [(role, cells[target]) for role, target in (("system", "system"), ("user", "prompt")) if target in cells]
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": role, "content": _clean(str(cell), number)} for role, cell in said],
        }
        if "user" in cells:
            body["user"] = _clean(str(cells["user"]), number)
        body |= {each: _number(cells[each], each, number) for each in (*_WHOLE, *_NUMBER) if each in cells}
        soup: dict[str, Any] = {"mode": _plain(cells["mode"], number)} if "mode" in cells else {}
        for target, cell in cells.items():
            group, dot, name = target.partition(".")
            if dot:
                soup.setdefault(group, {})[name] = _plain(cell, number)
        return {**body, "soup": soup} if soup else body


def added(result: Mapping[str, Any]) -> tuple[str | None, str | None, str | None]:
    """(answer, granted, error) of a line's result, as text; None for what there is not."""
    body, error = result["response"]["body"], result["error"]
    if error is not None:
        return None, None, f"{error['code']}: {error['message']}"
    granted = ",".join(f"{name}={weight}" for name, weight in body["soup"]["granted"].items())
    return body["choices"][0]["message"]["content"], granted, None


def bad_row(number: int, why: str, *, reason: str = "bad-row") -> RecipeError:
    """What is wrong with a row."""
    return RecipeError(f"row {number + 1}: {why}", reason=reason)


def _is_target(text: str) -> bool:
    group, dot, name = text.partition(".")
    return text in (*_TEXT, *_WHOLE, *_NUMBER) or (group in _SOUP and bool(dot and name))


def _clean(text: str, number: int) -> str:
    try:
        text.encode()
    except UnicodeError:
        raise bad_row(number, "it is not text in UTF-8") from None
    return text


def _plain(cell: object, number: int) -> object:
    """A cell as JSON could say it."""
    return _clean(cell, number) if isinstance(cell, str) else cell if isinstance(cell, int | float) else str(cell)


def _number(cell: object, target: str, number: int) -> int | float:
    try:
        found = strict_json(cell) if isinstance(cell, str) else cell
    except ValueError:
        found = None
    if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
        raise bad_row(number, f"its {target} is {cell!r:.40}, which is no number")
    return int(found) if target in _WHOLE and found == int(found) else found

"""OpenAI's batch files: one JSON object per line, {"custom_id", "method", "url", "body"}."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

from pydantic import Field, ValidationError

from soupmix.batch.columns import Columns
from soupmix.batch.line import Line, bounded_lines
from soupmix.errors import RecipeError
from soupmix.files import compact_json, strict_json
from soupmix.openai.sent import Sent

__all__ = ["JsonLines", "write_results"]

_CHUNK = 1 << 16


class _Envelope(Sent):
    custom_id: Annotated[str, Field(min_length=1, max_length=512)]
    method: Literal["POST"]
    url: Literal["/v1/chat/completions", "/v1/completions"]
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class JsonLines:
    """A JSONL file; every line of it has a result, blank and damaged ones too. Of the columns only the limit counts."""

    path: Path
    columns: Columns

    def count(self) -> int:
        """Line feeds, and one more if the last line has none."""
        lines, last = 0, b"\n"
        with self.path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                lines, last = lines + chunk.count(b"\n"), chunk[-1:]
        return lines + (last != b"\n")

    def lines(self, start: int = 0) -> Iterator[Line]:
        """The lines from number `start` on."""
        with self.path.open("rb") as file:
            for number, raw in enumerate(bounded_lines(file, self.columns.limit)):
                if number >= start:
                    yield self._line(number, raw)

    def write(self, file: BinaryIO, results: Iterator[Mapping[str, Any]]) -> None:
        """Write OpenAI's output lines."""
        write_results(file, results)

    def _line(self, number: int, raw: bytes | None) -> Line:
        if raw is None:
            return Line(
                number,
                error=_bad(number, f"it has more than the {self.columns.limit} bytes of a line", reason="too-long"),
            )
        try:
            found = strict_json(raw)
            json.dumps(found, ensure_ascii=False).encode()  # half a surrogate pair is no text
        except UnicodeError:
            return Line(number, error=_bad(number, "it is not text in UTF-8"))
        except (ValueError, RecursionError) as error:
            return Line(number, error=_bad(number, f"it is not JSON: {error}" if raw.strip() else "it is blank"))
        if not isinstance(found, dict):
            return Line(number, error=_bad(number, "it is no JSON object"))
        try:
            envelope = _Envelope.model_validate(found)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(str(each)[:80] for each in first["loc"])
            return Line(number, _custom_id(found), error=_bad(number, f"{place}: {first['msg']}"))
        return Line(number, envelope.custom_id, envelope.url, envelope.body)


def write_results(file: BinaryIO, results: Iterator[Mapping[str, Any]]) -> None:
    """Write OpenAI's output lines, whatever the input was."""
    for result in results:
        file.write(compact_json(result) + b"\n")


def _bad(number: int, why: str, *, reason: str = "bad-line") -> RecipeError:
    return RecipeError(
        f'line {number + 1}: {why}; a line is {{"custom_id", "method": "POST", "url", "body"}}', reason=reason
    )


def _custom_id(found: Mapping[str, Any]) -> str | None:
    """The id of a line that is wrong otherwise, so that its result can be found."""
    said = found.get("custom_id")
    return said if isinstance(said, str) and len(said) <= 512 else None

"""Preference data of anybody's, in the formats of trl, one JSON object a line: hostile until it is read.

{"prompt", "chosen", "rejected"} or {"prompt", "completion"}, each a text or a list of messages; where `chosen` and `rejected`
are whole conversations, what they begin with alike is the prompt. Other fields are not read.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from soupmix.errors import TrainingError
from soupmix.files import strict_json
from soupmix.sealed import read_sealed
from soupmix.train.examples import Asked, Example

__all__ = ["GivenPairs", "read_pairs"]

_LARGEST = 64 << 20  # bytes
_MOST_LINES = 50_000
_MOST_MESSAGES = 64
_LONGEST = 32_000  # characters of a text
_ROLES = ("system", "user", "assistant")
_FORMATS = '{"prompt", "chosen", "rejected"} or {"prompt", "completion"}'


@dataclass(frozen=True, slots=True)
class GivenPairs:
    """The examples of a file, in its order, with the file's name and hex SHA-256."""

    name: str
    sha256: str
    examples: tuple[Example, ...]

    @property
    def are_pairs(self) -> bool:
        """Whether every example has an answer that is not wanted."""
        return all(each.rejected for each in self.examples)


def read_pairs(path: Path) -> GivenPairs:
    """Read a JSONL file of preference data; blank lines do not count.

    Raises:
        TrainingError: the file cannot be read (reasons of `soupmix.sealed`), or a line is not such an object or holds too
            much (reason "pairs"); the message names the line.
    """
    raw, digest = read_sealed(path, cap=_LARGEST, error=TrainingError)
    examples = tuple(_examples(path.name, raw))
    if not examples:
        raise TrainingError(f"{path} holds no line; each must be {_FORMATS}", reason="pairs")
    return GivenPairs(path.name, digest, examples)


def _examples(name: str, raw: bytes) -> Iterator[Example]:
    for number, line in enumerate(BytesIO(raw), start=1):
        place = f"line {number} of {name}"
        if number > _MOST_LINES:
            raise TrainingError(f"{place}: more than {_MOST_LINES} lines are not read; give fewer", reason="pairs")
        if line.strip():
            try:
                yield _example(strict_json(line), place)
            except UnicodeError:
                raise TrainingError(f"{place}: it is not text in UTF-8", reason="pairs") from None
            except (ValueError, RecursionError) as error:
                raise TrainingError(f"{place}: {error}; a line must be {_FORMATS}", reason="pairs") from None


def _example(row: Any, place: str) -> Example:
    if not isinstance(row, dict):
        raise ValueError("it is no JSON object")
    has_pair, has_completion = ("chosen" in row or "rejected" in row), "completion" in row
    if has_pair == has_completion:
        raise ValueError(
            "it has both a pair and a completion" if has_pair else "it has neither a pair nor a completion"
        )
    if has_completion:
        asked, completion = _asked_and_answers(row, "completion")
        return Example(asked, completion, place=place)
    asked, chosen, rejected = _asked_and_answers(row, "chosen", "rejected")
    if chosen == rejected:
        raise ValueError("chosen and rejected are the same")
    return Example(asked, chosen, rejected, place=place)


def _asked_and_answers(row: dict[str, Any], *fields: str) -> tuple[Any, ...]:
    """What was asked, and the text of each answer."""
    answers = [_said(row, field) for field in fields]
    prompt = _said(row, "prompt") if "prompt" in row else None
    talks = [each for each in answers if not isinstance(each, str)]
    if not talks:
        if prompt is None:
            raise ValueError("it has no prompt")
        return (_checked(prompt), *answers)
    if len(talks) < len(answers):
        raise ValueError(f"{' and '.join(fields)} are a text and a list; give both in one form")
    begun = _begun_alike(talks)
    asked = _prompt_of(prompt, begun)
    return (asked, *(_answer(talk[len(begun) :], field) for talk, field in zip(talks, fields, strict=True)))


def _begun_alike(talks: list[Any]) -> Asked:
    """Messages that all begin with, without the last of any, which is an answer."""
    shortest = min(map(len, talks)) - 1
    alike = next((n for n in range(shortest) if any(talk[n] != talks[0][n] for talk in talks)), shortest)
    begun: Asked = talks[0][:alike]
    return begun


def _prompt_of(prompt: Asked | None, begun: Asked) -> Asked:
    """What was asked, where answers are conversations; they may repeat the prompt."""
    if prompt is None:
        if not begun:
            raise ValueError("it has no prompt, and the answers do not begin with one")
        return _checked(begun)
    if not begun or begun == prompt:
        return _checked(prompt)
    last = begun[-1]
    if isinstance(prompt, str) and not isinstance(last, str) and (last["role"], last["content"]) == ("user", prompt):
        return _checked(begun)
    raise ValueError("its answers are conversations that do not begin with its prompt")


def _checked(asked: Asked) -> Asked:
    if not isinstance(asked, str) and asked[-1]["role"] != "user":
        raise ValueError(f"its prompt ends with a message of the {asked[-1]['role']}, not of the user")
    return asked


def _answer(talk: Asked, field: str) -> str:
    if len(talk) != 1 or isinstance(talk, str) or talk[0]["role"] != "assistant":
        raise ValueError(f"{field} must be one message of the assistant, behind what was asked")
    return talk[0]["content"]


def _said(row: dict[str, Any], field: str) -> Asked:
    """A text, or messages, of a field."""
    value = row.get(field)
    if isinstance(value, str):
        return _text(value, field)
    if not isinstance(value, list) or not 0 < len(value) <= _MOST_MESSAGES:
        raise ValueError(f"{field} must be a text or a list of 1 to {_MOST_MESSAGES} messages")
    return tuple(_message(each, field) for each in value)


def _message(said: Any, field: str) -> dict[str, str]:
    if not isinstance(said, dict) or said.get("role") not in _ROLES:
        raise ValueError(f'a message of {field} must be {{"role": one of {", ".join(_ROLES)}, "content": TEXT}}')
    more = sorted(key for key, value in said.items() if key not in ("role", "content") and value is not None)
    if more:
        raise ValueError(f"a message of {field} has {more[0][:80]!r}, which is not read; leave it out")
    return {"role": said["role"], "content": _text(said.get("content"), f"a message of {field}")}


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str) or not value.strip() or len(value) > _LONGEST:
        raise ValueError(f"{what} must be a text of 1 to {_LONGEST} characters")
    value.encode()  # half a surrogate pair is no text
    return value

"""What the journal of a resumed batch holds, checked: that somebody wrote it there does not make it so.

Every line is read and granted again, by the policy of now, and must have the result that was recorded: the same weights, rules,
identities and refusals. What the model said cannot be checked without asking it again; it can be of its form only.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from soupmix.batch.inputs import InputFile
from soupmix.batch.journal import Journal
from soupmix.batch.line import Answered, Begun, Line, LineResult
from soupmix.errors import BaseModelError, PolicyRefusal, RecipeError, SoupmixError, WeightError
from soupmix.files import compact_json, strict_json
from soupmix.openai.forms import AnswerSoFar

__all__ = ["check_held"]

_OF_THE_ENGINE: Final = ("not-finite", "step-failed", "cannot-decode", "template-limit")
"""Why a line that the policy grants may have no answer; what a chat template asks for differs from run to run."""

_Record = Callable[[LineResult], Mapping[str, Any]]


def check_held(source: InputFile, journal: Journal, preview: Callable[[Line], Begun], record: _Record) -> None:
    """Grant every line that has a result again, and hold the result to it.

    Args:
        preview: what the policy makes of a line, recording nothing. record: a result as an output line.

    Raises:
        RecipeError: a result is not what this policy gives ("batch-changed").
        OutputError: the file changes meanwhile ("changed-meanwhile").
    """
    if not journal.done:
        return
    for data, line in zip(journal.results(), source.lines(), strict=False):
        try:
            held = strict_json(data)
            expected = _expected(line, held, preview, record)
        except SoupmixError:
            raise
        except (ValueError, KeyError, TypeError, RecursionError):
            raise _changed(journal.path, line, "it is no result") from None
        if (place := _difference(expected, held)) is not None:
            raise _changed(journal.path, line, f"{place} is not what is granted now")


def _expected(line: Line, held: Any, preview: Callable[[Line], Begun], record: _Record) -> Any:
    """The result of a line, with what only the engine knows as it is held. Raises what a mapping of another form raises."""
    try:
        begun = preview(line)
    except (WeightError, RecipeError, PolicyRefusal) as error:
        return _plain(record(LineResult(line, error)))
    except BaseModelError as error:
        if error.reason != "template-limit" or held["error"] is None:
            raise
        return _plain(record(LineResult(line, error)))
    said = held["error"]
    if said is not None and said["code"] in _OF_THE_ENGINE:
        return _plain(record(LineResult(line, SoupmixError(said["message"], reason=said["code"]))))
    empty = tuple(AnswerSoFar() for _ in begun.requests)
    expected, body = _plain(record(LineResult(line, Answered(begun, empty)))), held["response"]["body"]
    return _filled(expected, body["choices"], body["usage"])


def _filled(expected: Any, choices: Any, usage: Any) -> Any:
    """An expected result with answers of the same form put in."""
    body = expected["response"]["body"]
    if len(choices) != len(body["choices"]) or usage.keys() != body["usage"].keys():
        raise ValueError("other answers than were asked for")
    if not all(type(count) is int for count in usage.values()):
        raise TypeError("counts that are none")
    for choice, empty in zip(choices, body["choices"], strict=True):
        texts = choice.get("message", choice), empty.get("message", empty)
        if choice.keys() != empty.keys() or texts[0].keys() != texts[1].keys():
            raise KeyError("a choice of another form")
        key = "content" if "message" in empty else "text"
        if not isinstance(texts[0][key], str) or choice["finish_reason"] not in ("stop", "length"):
            raise TypeError("a choice of another form")
        texts[1][key] = texts[0][key]
        empty |= {each: choice[each] for each in ("finish_reason", "logprobs")}
    body["usage"] = usage
    return expected


def _plain(result: Mapping[str, Any]) -> Any:
    return json.loads(compact_json(dict(result)))


def _difference(expected: Any, held: Any, place: str = "the result") -> str | None:
    """Where two results differ first, as a path; None if they do not."""
    if isinstance(expected, dict) and isinstance(held, dict) and expected.keys() == held.keys():
        inner = (_difference(value, held[key], key) for key, value in expected.items())
        return next((found for found in inner if found is not None), None)
    return None if compact_json({"": expected}) == compact_json({"": held}) else place


def _changed(path: Path, line: Line, why: str) -> RecipeError:
    return RecipeError(
        f"{path} holds a result for line {line.number + 1} that this batch would not have: {why}; somebody changed the file, "
        "or something that the policy rests on has ended: pass --force to begin anew",
        reason="batch-changed",
    )

"""Reading a document strictly: YAML in which every scalar is text, and errors that say file, place and remedy."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from soupmix.errors import PolicyError
from soupmix.policy import documents, obligations, rules
from soupmix.policy.documents import Document
from soupmix.strict_yaml import TextLoader, YamlError, read_strict

__all__ = ["parse_document", "read_text", "read_yaml", "rule_lines"]

_LARGEST_FILE: Final = 1 << 20
_MOST_TOLD: Final = 8  # mistakes of a document; a message is not a page
_OBLIGATIONS: Final[dict[str, type[BaseModel]]] = {
    "disclose": obligations.Disclose,
    "log": obligations.Log,
    "offer": obligations.Offer,
    "retain": obligations.Retain,
}
_PARTS: Final[dict[str, type[BaseModel]]] = {
    "scope": rules.Scope,
    "valid": documents.Valid,
    "adapters": rules.Approved,
    "allow": rules.Combination,
    "evidence": rules.EvidenceRef,
}


def read_text(path: Path) -> str:
    """The text of a policy file.

    Raises:
        PolicyError: it cannot be read, is larger than 1 MiB, or is not UTF-8.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST_FILE + 1)
        if len(data) > _LARGEST_FILE:
            raise PolicyError(f"{path} is larger than 1 MiB, which no policy document needs", reason="unreadable")
        return data.decode("utf-8")
    except OSError as error:
        raise PolicyError(f"cannot read policy {path}: {error.strerror or error}", reason="unreadable") from error
    except UnicodeDecodeError as error:
        raise PolicyError(f"policy {path} is not UTF-8 text", reason="unreadable") from error


def read_yaml(text: str, source: str) -> object:
    """YAML text in which every scalar stays text. Raises PolicyError (reason "bad-yaml"), naming file and line."""
    try:
        return read_strict(text, TextLoader)
    except YamlError as error:
        place = ": not YAML" if error.line is None else f" line {error.line}"
        raise PolicyError(f"{source}{place}: {error}", reason="bad-yaml") from error


def parse_document(text: str, source: str) -> Document:
    """One document from YAML text.

    Args:
        text: the YAML.
        source: the file name, for messages.

    Raises:
        PolicyError: not YAML (reason "bad-yaml"), or not a policy document (reason "bad-document");
            the message names the file and the place in it.
    """
    content = read_yaml(text, source)
    if not isinstance(content, dict):
        raise PolicyError(
            f"{source}: a policy document is a mapping with tier, issuer, version and rules", reason="bad-document"
        )
    try:
        return Document.model_validate(content)
    except ValidationError as error:
        raise PolicyError(_sentence(error, text, source), reason="bad-document") from error


def rule_lines(text: str, count: int) -> tuple[int, ...]:
    """The lines in which so many rules of a document begin, counted from 1; its text was parsed before."""
    tree = yaml.compose(text, TextLoader)
    return tuple(_line(tree, ("rules", index)) or 1 for index in range(count))


def _sentence(error: ValidationError, text: str, source: str) -> str:
    """All mistakes of a document, each with the line of the part that it is in."""
    tree = yaml.compose(text, TextLoader)
    told = [(_line(tree, detail["loc"]), _explained(detail)) for detail in error.errors()]
    if len(told) == 1:
        line, what = told[0]
        return f"{source}{f' line {line}' if line else ''}: {what}"
    listed = "; ".join(f"line {line or 1}: {what}" for line, what in told[:_MOST_TOLD])
    more = f"; and {len(told) - _MOST_TOLD} more" if len(told) > _MOST_TOLD else ""
    return f"{source}: {len(told)} mistakes: {listed}{more}"


def _line(node: yaml.Node | None, loc: Sequence[int | str]) -> int | None:
    """Where the innermost part begins that a path leads to, counted from 1; None for the document as a whole.

    A path also has the words by which pydantic tells kinds of rules apart, which are no keys: they are passed by.
    """
    line = None
    for step in loc:
        inner: yaml.Node | None = None
        if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            inner = node.value[step]
        elif isinstance(node, yaml.MappingNode):
            pairs = {key.value: (key, value) for key, value in node.value}
            if step in pairs:
                line, inner = pairs[step][0].start_mark.line + 1, pairs[step][1]
        if inner is not None:
            node = inner
            if isinstance(step, int):
                line = inner.start_mark.line + 1
    return line


def _explained(detail: ErrorDetails) -> str:
    path, model = _locate(detail["loc"])
    place = f"{path}: " if path else ""
    parent, _, key = path.rpartition(".")
    where = f"{parent}: " if parent else ""
    match detail["type"]:
        case "extra_forbidden":
            allowed = sorted(field.alias or name for name, field in model.model_fields.items())
            return f"{where}unknown key {key!r:.80}; allowed are {', '.join(allowed)}"
        case "missing":
            return f"{where}key {key!r} is missing"
        case "union_tag_not_found":
            word, kinds = _kinds(detail["loc"])
            return f"{place}say what it is with '{word}:', one of {', '.join(kinds)}"
        case "union_tag_invalid":
            word, kinds = _kinds(detail["loc"])
            named = "rule" if word == "rule" else "obligation"
            return f"{place}unknown {named} {detail['input'].get(word)!r:.80}; known are {', '.join(kinds)}"
        case "tuple_type":
            return f"{place}must be a list"
        case "model_type" | "model_attributes_type":
            return f"{place}must be a mapping"
        case "value_error":
            return f"{place}{detail['ctx']['error']}"
        case _:
            return f"{place}{detail['msg'][0].lower()}{detail['msg'][1:]}"


def _kinds(loc: Sequence[int | str]) -> tuple[str, Mapping[str, type[BaseModel]]]:
    """The key that says what a part is, and the kinds there are."""
    return ("oblige", _OBLIGATIONS) if loc and loc[0] == "obligations" else ("rule", rules.RULES)


def _locate(loc: Sequence[int | str]) -> tuple[str, type[BaseModel]]:
    """The path as people read it (without pydantic's union tags), and the model that holds its last key."""
    path, model, last = "", Document, ""
    owner: type[BaseModel] = model
    for depth, step in enumerate(loc):
        if depth == 2 and loc[0] in ("rules", "obligations"):
            owner = _kinds(loc)[1][str(step)]
            continue
        if isinstance(step, int):
            path += f"[{step}]"
        else:
            path += f".{step}" if path else step
        if depth < len(loc) - 1 and step in _PARTS:
            owner = _PARTS[str(step)]
        last = str(step)
    return path or last, owner

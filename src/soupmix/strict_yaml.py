"""YAML without its traps: no aliases, anchors, tags, merge keys or duplicate keys, and a bound on how much it holds."""

import re
from collections.abc import Hashable
from typing import Any, Final

import yaml

__all__ = ["PlainLoader", "TextLoader", "YamlError", "read_strict"]

_MOST_NODES: Final = 50_000


class YamlError(ValueError):
    """What is wrong with a text, in words.

    Attributes:
        line: of the text, from 1; None if it is wrong as a whole.
    """

    def __init__(self, why: str, line: int | None = None) -> None:
        super().__init__(why)
        self.line = line


def read_strict(text: str | bytes, loader: "type[TextLoader]") -> Any:
    """What a text says. Raises `YamlError`."""
    try:
        return yaml.load(text, loader)
    except yaml.MarkedYAMLError as error:
        line = None if error.problem_mark is None else error.problem_mark.line + 1
        raise YamlError(str(error.problem or error.context), line) from None
    except yaml.reader.ReaderError as error:
        if error.encoding != "unicode":
            raise YamlError("it is not UTF-8 text") from None
        raise YamlError(f"it holds U+{int(error.character):04X}, which no text needs") from None
    except (yaml.YAMLError, ValueError) as error:
        raise YamlError(" ".join(str(error).split())) from None
    except RecursionError:
        raise YamlError("nested too deeply") from None


class TextLoader(yaml.SafeLoader):
    """Every scalar is text: 0.3 stays "0.3", no stays "no"."""

    _nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Refuse what is not a plain tree of at most 50,000 values, before anything is made of it."""
        event = self.peek_event()  # type: ignore[no-untyped-call]
        self._nodes += 1
        if self._nodes > _MOST_NODES:
            raise _refused(f"holds more than {_MOST_NODES} values", event)
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise _refused("anchors and aliases are not allowed", event)
        if getattr(event, "tag", None):
            raise _refused("tags are not allowed", event)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Refuse a key that is given twice, or that is not a word."""
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _refused("a key must be a word", key)
            if key.value in seen:
                raise _refused(f"key {key.value[:80]!r} is given twice", key)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


class PlainLoader(TextLoader):
    """Scalars are null, true, false, plain decimal numbers, and text; 1_0, 0x1, 017, 1:30, yes and .inf are text."""


def _refused(problem: str, at: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=at.start_mark)


TextLoader.yaml_implicit_resolvers = {}
PlainLoader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("null", r"null|~|", ["n", "~", ""]),
    ("bool", r"true|false", list("tf")),
    ("int", r"-?(?:0|[1-9][0-9]*)", list("-0123456789")),
    ("float", r"-?(?:0|[1-9][0-9]*)\.[0-9]+(?:e[+-]?[0-9]{1,3})?", list("-0123456789")),
):
    _whole = re.compile(rf"(?:{_pattern})\Z", re.ASCII)
    PlainLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _whole, _first)

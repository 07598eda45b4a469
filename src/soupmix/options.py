"""What a method can be asked for besides weights: typed, with a default, and an error where a method does not have it.

Values are plain data, as JSON and YAML have it, and what comes out of `checked` is in one normal form, so that it can be part of
an identity.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final, Literal

from soupmix.errors import PolicyRefusal, RecipeError

__all__ = [
    "EVERY",
    "LAYERS",
    "Option",
    "Options",
    "check_inside",
    "check_shares",
    "checked",
    "layer_of",
    "number",
    "share_at",
    "spelled",
]

Options = Mapping[str, Any]
"""Name of an option -> its value."""

LAYERS: Final = "layers"
"""The option that every method has: the part of an adapter's weight that a layer takes, by its place and its name."""

EVERY: Final = "*"
"""What stands for every adapter in `LAYERS`."""

_MOST_RULES, _MOST_POINTS = 64, 1024
_FILTER: Final = re.compile(r"[A-Za-z0-9_.-]{0,200}")  # of which paths are made, and nothing that a card would render


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One thing that a method can be asked for.

    Attributes:
        name: as recipes have it; on the command line with dashes. help: what it does, in a few words.
        kind: "share" is a number from `low` to 1, "whole" a whole number from `low` on, "flag" is true or false, "choice" one of
            `choices`.
        default: the value where none is given. low: see `kind`. is_open: whether a share of just `low` is none.
    """

    name: str
    help: str
    kind: Literal["share", "whole", "flag", "choice"]
    default: float | str | bool | None
    low: float = 0
    is_open: bool = False
    choices: tuple[str, ...] = ()

    def read(self, value: Any) -> Any:
        """The value in its normal form. Raises ValueError, which says what is allowed."""
        if value is None and self.default is None:
            return None
        if self.kind == "flag" and isinstance(value, bool):
            return value
        if self.kind == "choice" and isinstance(value, str) and value in self.choices:
            return value
        if self.kind == "whole" and isinstance(value, int) and not isinstance(value, bool):
            if self.low <= value < 1 << 63:
                return value
        elif self.kind == "share" and (share := number(value)) is not None:
            above = self.low < share if self.is_open else self.low <= share
            if above and share <= 1:
                return share
        raise ValueError(f"{self.name} is {self.allowed()}, and {value!r:.80} was given")

    def allowed(self) -> str:
        """What may be given, in words."""
        match self.kind:
            case "flag":
                return "true or false"
            case "choice":
                return f"one of {', '.join(self.choices)}"
            case "whole":
                return f"a whole number, {self.low:g} or more"
            case "share":
                return (
                    f"a number above {self.low:g} and up to 1" if self.is_open else f"a number from {self.low:g} to 1"
                )


def checked(method: str, options: Iterable[Option], given: Options) -> dict[str, Any]:
    """All options of a method with their values, in the order of their names, in one normal form.

    Args:
        method: its name, for sentences. options: that it has, besides `LAYERS`. given: what was asked for; the others have their
            defaults, and `LAYERS` is left out where nothing is asked for.

    Raises:
        RecipeError: the method has no such option ("unknown-option"), or not such a value of it ("bad-option").
    """
    known = {option.name: option for option in options}
    found: dict[str, Any] = {}
    for name, value in given.items():
        if name not in known and name != LAYERS:
            raise RecipeError(_unknown(method, name, known), reason="unknown-option")
        try:
            found[name] = _layers(value) if name == LAYERS else known[name].read(value)
        except ValueError as error:
            raise RecipeError(f"method {method}: {error}", reason="bad-option") from None
    found = {name: option.default for name, option in known.items()} | found
    return {name: found[name] for name in sorted(found) if name != LAYERS or found[name]}


def check_inside(method: str, options: Iterable[Option], found: Options, inside: Iterable[Option]) -> None:
    """Refuse what a method has options for and the one that it merges by, its `inner`, has not; a default asks for nothing.

    Raises:
        RecipeError: such an option has another value than its default ("unknown-option").
    """
    known = {option.name for option in inside} | {"inner"}
    idle = [each.name for each in options if each.name not in known and found[each.name] != each.default]
    if idle:
        raise RecipeError(
            f"method {method} merges by {found['inner']} inside, which has no option {', '.join(idle)}; leave it out, or ask for "
            "another `inner`",
            reason="unknown-option",
        )


def spelled(method: str, options: Options) -> str:
    """A method with its options as one text, the same for the same; a method without any is its name."""
    return f"{method} {json.dumps(dict(options), sort_keys=True, separators=(',', ':'))}" if options else method


def share_at(options: Options, adapter: str, path: str, depth: int) -> float:
    """The part of its weight, 0 to 1, that an adapter has in a layer.

    The first rule of the adapter whose filter is in the path of the module counts, else the first of "*"; without one it is 1. A
    rule with several values has them spread evenly over the layers, straight lines between them.

    Args:
        options: as `checked` gave them. path: of the module. depth: number of layers, up to the last one that an adapter changes.
    """
    rules = options.get(LAYERS, {})
    for rule in (*rules.get(adapter, ()), *rules.get(EVERY, ())):
        if rule.get("filter", "") in path:
            value = rule["value"]
            return _between(value, layer_of(path), depth) if isinstance(value, list) else float(value)
    return 1.0


def layer_of(path: str) -> int:
    """Number of the layer that a module path is in; 0 for one outside of layers."""
    return next((int(part) for part in path.split(".") if part.isdecimal()), 0)


def number(value: Any) -> float | None:
    """A finite number as such, from digits with a point too, which strict YAML leaves as text (".5"); None for anything else."""
    if isinstance(value, str) and re.fullmatch(r"\d{0,20}\.\d{1,20}", value, re.ASCII):
        return float(value)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and abs(value) < 1e300 else None


def _between(values: list[float], layer: int, depth: int) -> float:
    place = layer / max(depth - 1, 1) * (len(values) - 1)
    low = min(int(place), len(values) - 1)
    high = min(low + 1, len(values) - 1)
    return values[low] + (place - low) * (values[high] - values[low])


def _unknown(method: str, name: str, known: Iterable[str]) -> str:
    names = sorted({*known, LAYERS})
    near = get_close_matches(str(name), names, n=1)
    guess = f", did you mean {near[0]}?" if near else ";"
    return f"method {method} has no option {str(name)[:80]!a}{guess} it has {', '.join(names)}"


def _layers(value: Any) -> dict[str, list[dict[str, Any]]]:
    if not isinstance(value, Mapping) or not all(isinstance(rules, list | tuple) for rules in value.values()):
        raise ValueError(
            "layers is a mapping from adapters, or '*', to lists of rules, such as friendly: [{filter: mlp, value: 0.5}]"
        )
    if sum(map(len, value.values())) > _MOST_RULES:
        raise ValueError(f"layers has at most {_MOST_RULES} rules")
    return {str(name): [_rule(each) for each in rules] for name, rules in sorted(value.items()) if rules}


def _rule(rule: Any) -> dict[str, Any]:
    if not isinstance(rule, Mapping) or not {"value"} <= set(rule) <= {"filter", "value"}:
        raise ValueError(
            "a rule of layers has a value and, unless it is for all modules, a filter: {filter: mlp, value: 0.5}"
        )
    text, value = rule.get("filter", ""), rule["value"]
    if not isinstance(text, str) or not _FILTER.fullmatch(text):
        raise ValueError("the filter of a rule of layers is a part of a module's path, such as mlp or self_attn.q_proj")
    if isinstance(value, list | tuple):
        if not 1 <= len(value) <= _MOST_POINTS:
            raise ValueError(f"a rule of layers has from 1 to {_MOST_POINTS} values")
        return {"filter": text, "value": [_part(each) for each in value]}
    return {"filter": text, "value": _part(value)}


def _part(value: Any) -> float:
    found = number(value)
    if found is None or not 0 <= found <= 1:
        raise ValueError(
            f"the values of layers are parts of a weight, from 0 to 1, and {value!r:.80} was given: ask for the largest as the "
            "weight, which policies bound, and for parts of it here"
        )
    return found


def check_shares(name: str, options: Options, *, is_open: bool) -> None:
    """Refuse `normalize` where policy documents bound the weights: entries on which few agree are made larger, so that these act
    above their weights there. Methods whose coefficients are known are shortened instead (see `soupmix.merge.bound`).

    Args:
        name: of the method. options: as asked for. is_open: whether there are no documents.

    Raises:
        PolicyRefusal: it is asked for, and there are documents ("above-weight").
    """
    if options.get("normalize") and not is_open:
        raise PolicyRefusal(
            f"method {name} was asked to normalize, by which an adapter acts above the weight that it was granted wherever "
            f"others disagree with it, and policy documents bound these weights: leave normalize out",
            reason="above-weight",
        )

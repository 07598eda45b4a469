"""What an adapter_config.json says is adapted. The factors beside it decide that; the two are only compared."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from soupmix.errors import AdapterError
from soupmix.store.patterns import full_matches

__all__ = ["TARGET_FIELDS", "Targets", "parse_targets"]

TARGET_FIELDS = ("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "target_parameters")
_INDEX = r"\.(?P<index>\d+)\."
_ANY_LAYERS = re.compile(rf".*?\.[^.]*{_INDEX}")  # the first number of a path is that of its layer
_WORD = re.compile(r"\w+", re.ASCII)
_MOST_LISTS = 16  # of layers in one model; each takes every path a search


@dataclass(frozen=True, slots=True)
class Targets:
    """The fields of PEFT's `check_target_module_exists`.

    Attributes:
        names: of modules, or one regular expression, or None: "all-linear", or nothing is said.
        excluded: names, or one regular expression.
        layers: numbers of the layers; empty for all.
        patterns: what the lists of layers are called; empty for any name.
        parameters: ends of names of parameters that are adapted without their module being one that PEFT knows, such as all
            experts of a layer at once.
    """

    names: tuple[str, ...] | str | None
    excluded: tuple[str, ...] | str
    layers: tuple[int, ...]
    patterns: tuple[str, ...]
    parameters: tuple[str, ...] = ()

    def has_parameter(self, name: str) -> bool:
        """Whether a parameter of this name is meant, as `BaseTuner._inject_parameters` of PEFT finds it."""
        return any(name == each or name.endswith(f".{each}") for each in self.parameters)

    def among(self, modules: Iterable[str]) -> set[str] | None:
        """The modules that PEFT would adapt under this config; None if nothing says, or a pattern is not safe to match."""
        names = list(modules)
        if self.names is None:
            return None
        try:
            chosen = _matching(self.names, names, "target_modules")
            return self._in_layers(chosen) - _matching(self.excluded, names, "exclude_modules")
        except AdapterError:
            return None

    def compared(self, adapted: Mapping[str, str], base: Iterable[str]) -> Iterator[tuple[str, str]]:
        """Kind and sentence of everything in which the factors and the config differ.

        Args:
            adapted: path as the file has it -> path in the base, of every module with factors. base: paths of the base.
        """
        said, there = self.among(adapted), self.among(base)
        if self.names is not None and (said is None or there is None):
            yield "unchecked", "what adapter_config.json targets is a pattern too complex to match: it was not compared"
        if said is not None and (less := sorted(set(adapted) - said)):
            yield (
                "not-targeted",
                f"there are factors for {_some(less)}, which adapter_config.json does not target, so PEFT would leave it out",
            )
        if there is not None and (more := sorted(there - set(adapted.values()))):
            yield (
                "no-factors",
                f"adapter_config.json targets {_some(more)}, for which there are no factors: no change there",
            )

    def _in_layers(self, modules: set[str]) -> set[str]:
        if not self.layers or isinstance(self.names, str):
            return modules
        wanted, named, lists = set(self.layers), set(self.names or ()), self._lists()
        return {module for module in modules if module in named or _layer(module, lists) in wanted}

    def _lists(self) -> list[re.Pattern[str]]:
        """What finds the number of a layer in a path, the first that matches."""
        if len(self.patterns) > _MOST_LISTS or not all(map(_WORD.fullmatch, self.patterns)):
            raise AdapterError(
                f"layers_pattern is not at most {_MOST_LISTS} names, which begin with {self.patterns[0][:80]!a}",
                reason="pattern",
            )
        return [re.compile(rf"(?:^|.*?\.){each}{_INDEX}") for each in self.patterns] or [_ANY_LAYERS]


def parse_targets(config: Mapping[str, Any], where: str) -> Targets:
    """The targets of a config.

    Raises:
        AdapterError: a field is of the wrong kind (reason "bad-config").
    """
    names = config.get("target_modules")
    return Targets(
        None if names == "all-linear" else _names(names, "target_modules", where) or None,
        _names(config.get("exclude_modules"), "exclude_modules", where),
        _numbers(config.get("layers_to_transform"), where),
        _listed(_names(config.get("layers_pattern"), "layers_pattern", where)),
        _listed(_names(config.get("target_parameters"), "target_parameters", where)),
    )


def _layer(module: str, lists: Iterable[re.Pattern[str]]) -> int | None:
    found = next(filter(None, (each.match(module) for each in lists)), None)
    return int(found["index"]) if found else None


def _some(modules: list[str]) -> str:
    return modules[0] if len(modules) == 1 else f"{modules[0]} and {len(modules) - 1} more"


def _matching(wanted: tuple[str, ...] | str, modules: list[str], field: str) -> set[str]:
    if not wanted:
        return set()
    if isinstance(wanted, str):
        return full_matches(wanted, modules, field)
    known = set(wanted)
    return {name for name in modules if any(end in known for end in _endings(name))}


def _endings(name: str) -> Iterable[str]:
    parts = name.split(".")
    return (".".join(parts[start:]) for start in range(len(parts)))


def _names(value: Any, field: str, where: str) -> tuple[str, ...] | str:
    if _is_off(value):
        return ()
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        raise AdapterError(f"{where}: {field} must be a list of names or one pattern", reason="bad-config")
    return tuple(sorted(set(value)))


def _is_off(value: Any) -> bool:
    """Whether nothing is said; 0 is the number of a layer."""
    return value is None or value is False or value in ("", [], {})


def _listed(names: tuple[str, ...] | str) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) and names else tuple(names)


def _numbers(value: Any, where: str) -> tuple[int, ...]:
    listed = value if isinstance(value, list) else [] if _is_off(value) else [value]
    if not all(type(item) is int for item in listed):
        raise AdapterError(f"{where}: layers_to_transform must be a number or a list of numbers", reason="bad-config")
    return tuple(listed)

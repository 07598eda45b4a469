"""adapter_config.json of any PEFT method through an allow-list: numbers and words that decide what is computed, within bounds.

What is adapted, the tensors say; so no pattern over names, no list of modules and no class that a config names is ever used.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from soupmix.base.asides import drop_asides
from soupmix.errors import AdapterError
from soupmix.store.folder import json_object
from soupmix.store.patterns import PatternTable

__all__ = ["METHODS", "TunerSettings", "parse_settings"]

METHODS: Final = (
    "LORA", "ADALORA", "C3A", "DEFT", "DELORA", "FOURIERFT", "GLORA", "GRALORA", "HIRA", "HRA", "IA3", "LOHA", "LOKR", "MISS",
    "OFT", "PEANUT", "PVERA", "RANDLORA", "ROAD", "VERA", "WAVEFT",
)  # fmt: skip
"""The `peft_type`s whose merged weights our tests hold to PEFT's unmerged layers."""

_MOST: Final = {"num_cayley_neumann_terms": 64}  # terms of a series
_MOST_COUNT, _MOST_NUMBER, _MOST_PATTERNS = 1 << 16, 1e6, 4096
_SEED: Final = re.compile(r"(?:\w+_)?(?:seed|key)", re.ASCII)
_WORD: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
# What is adapted (the tensors say it), how it was trained, and what is for people.
_UNREAD: Final = {
    "auto_mapping", "base_model_name_or_path", "beta1", "beta2", "bias", "d_initial", "deltaT", "eva_config", "exclude_modules",
    "fan_in_fan_out", "feedforward_modules", "inference_mode", "layers_pattern", "layers_to_transform", "megatron_core",
    "modules_to_save", "orth_reg_weight", "peft_type", "peft_version", "revision", "runtime_config", "target_modules", "target_r",
    "task_type", "tfinal", "tinit", "total_step",
}  # fmt: skip
# Where training starts. PiSSA and OLoRA take what they start with away from the base, which is known again from the base; what
# others change of it is in no file.
_STARTS: Final = ("eva", "gaussian", "kaiming_uniform", "lycoris", "mica", "orthogonal", "xavier_uniform")
_RESIDUAL: Final = ("pissa", "olora")


@dataclass(frozen=True, slots=True)
class TunerSettings:
    """What a config says, as far as it decides what is computed.

    Attributes:
        method: its `peft_type`. values: arguments of PEFT's config class, without what is adapted.
        residual: "pissa" or "olora" where training began with a part of the base taken away, else None.
    """

    method: str
    values: Mapping[str, Any]
    residual: str | None

    def check_patterns(self, modules: Iterable[str]) -> None:
        """Refuse patterns over names that would take too long on these. Raises `AdapterError` ("pattern")."""
        for field in ("rank_pattern", "alpha_pattern"):
            if self.method != "ADALORA":
                PatternTable([(key, 0.0) for key in self.values.get(field, {})], field).find(modules, 0.0)


def parse_settings(raw: bytes, where: str) -> TunerSettings:
    """Read the adapter_config.json of a method among `METHODS`.

    Raises:
        AdapterError: reason "bad-config" (not strict JSON, a wrong type or value), "unsupported" (a method or a feature that
            cannot be extracted, by name) or "unknown-field".
    """
    config = json_object(raw, where, "bad-config")
    method = config.get("peft_type")
    if not isinstance(method, str) or method not in METHODS:
        raise AdapterError(
            f"{where} says peft_type = {_shown(method)}; soupmix extracts {', '.join(METHODS)} and full fine-tunes",
            reason="unsupported",
        )
    defaults = _defaults(method, where)
    values = {}
    for name, value in config.items():
        if name in _UNREAD or name.endswith("dropout"):
            continue
        if name not in defaults:
            _check_off(name, value, method, where)
        elif value not in (None, "", [], {}):
            values[name] = _value(name, value, defaults[name], method, where)
    residual = _start(values, where)
    if method == "OFT":
        _check_oft(config, where)
    return TunerSettings(method, values, residual)


def _defaults(method: str, where: str) -> Mapping[str, Any]:
    """Name of every field of PEFT's config of a method -> its default; a dict where it makes one."""
    drop_asides()
    try:
        from peft import PEFT_TYPE_TO_CONFIG_MAPPING
    except ModuleNotFoundError as error:
        raise AdapterError(
            f"extracting from an adapter needs {error.name}, which is not installed: pip install 'soupmix[extract]'",
            reason="no-extract-extra",
        ) from None

    if method not in PEFT_TYPE_TO_CONFIG_MAPPING:
        raise AdapterError(
            f"{where} says peft_type = {method}, which the installed PEFT does not have; install a newer one",
            reason="unsupported",
        )
    return {
        each.name: {} if each.default is dataclasses.MISSING else each.default
        for each in dataclasses.fields(PEFT_TYPE_TO_CONFIG_MAPPING[method])
    }


def _check_off(name: str, value: Any, method: str, where: str) -> None:
    if value is not None and value is not False and value not in ("", [], {}):
        raise AdapterError(
            f"{where} has the field {name[:60]!a}, which PEFT's {method} does not have, so soupmix will not ignore it",
            reason="unknown-field",
        )


def _value(name: str, value: Any, default: Any, method: str, where: str) -> Any:
    if name in ("rank_pattern", "alpha_pattern"):
        return _pattern(name, value, method, where)
    if _is_start(name, value):
        return value
    if isinstance(value, list | dict):
        raise AdapterError(f"{where} uses {name!r}, which soupmix cannot extract", reason="unsupported")
    if isinstance(default, bool) or isinstance(value, bool):
        good = isinstance(default, bool | None) and isinstance(value, bool)
    elif isinstance(value, str):
        good = isinstance(default, str) and _WORD.fullmatch(value) is not None
    else:
        good = not isinstance(default, str) and _is_bounded(name, value)
    if not good:
        raise AdapterError(
            f"{where}: {name} = {_shown(value)} is out of bounds or no value for it", reason="bad-config"
        )
    return value


def _is_bounded(name: str, value: float) -> bool:
    if isinstance(value, float) or name.endswith("alpha"):
        return abs(value) < _MOST_NUMBER
    if _SEED.fullmatch(name):
        return 0 <= value < 1 << 63
    return -1 <= value <= _MOST.get(name, _MOST_COUNT)


def _pattern(name: str, value: Any, method: str, where: str) -> dict[str, Any]:
    if isinstance(value, dict) and len(value) <= _MOST_PATTERNS:
        if method == "ADALORA":
            good = all(isinstance(each, list) and all(isinstance(one, bool) for one in each) for each in value.values())
        elif name == "rank_pattern":
            good = all(type(each) is int and 1 <= each <= _MOST_COUNT for each in value.values())
        else:
            good = all(type(each) in (int, float) and 0 < each < _MOST_NUMBER for each in value.values())
        if good:
            return value
    raise AdapterError(
        f"{where}: {name} does not give a rank or an alpha to at most {_MOST_PATTERNS} names", reason="bad-config"
    )


def _is_start(name: str, value: Any) -> bool:
    """Whether a field names how training began; numbers only say how widely something was drawn."""
    return name.startswith("init_") and (isinstance(value, bool) or not isinstance(value, int | float))


def _start(values: dict[str, Any], where: str) -> str | None:
    """Take out where training began; the name of it if that changed the base."""
    residual = None
    for name in [each for each in values if _is_start(each, values[each])]:
        start = values.pop(name)
        if start in _RESIDUAL:
            residual = str(start)
        elif not isinstance(start, bool) and start not in _STARTS:
            raise AdapterError(
                f"{where} says {name} = {_shown(start)}: training began with a changed base, and what was changed is in no "
                "file; let PEFT convert the adapter (save_pretrained with path_initial_model_for_weight_conversion)",
                reason="changed-base",
            )
    return residual


def _check_oft(config: Mapping[str, Any], where: str) -> None:
    """PEFT before 0.18 computed OFT by other formulas, and its files say no version."""
    version = re.match(r"(\d{1,4})\.(\d{1,4})", str(config.get("peft_version"))[:20])
    if version is None or (int(version[1]), int(version[2])) < (0, 18):
        raise AdapterError(
            f"{where} was written by PEFT before 0.18, which computed OFT by another formula; train it with a newer PEFT",
            reason="unsupported",
        )


def _shown(value: Any) -> str:
    """A value as a message may show it; a list may be nested as deep as it likes and is not looked into."""
    return "a list or object" if isinstance(value, list | dict) else ascii(value)[:60]

"""adapter_config.json through a strict allow-list: what soupmix understands, or what certainly changes nothing.

Its patterns over module names have a grammar that cannot be made to run for ever. A pattern is matched by Python's
backtracking `re`, as PEFT does, so an unchecked one from a hostile file can take exponential time. Allowed: names, `.`, `\\.`,
`\\d`, `\\w`, simple classes, `*`, `+`, `?` on a single character, and groups of alternatives without quantifiers; and the work
of matching is estimated before it is begun.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from soupmix.errors import AdapterError
from soupmix.files import strict_json

__all__ = ["LoraSettings", "PatternTable", "check_pattern", "parse_config"]

_MAX_RANK = 4096
_MAX_PATTERNS = 4096  # more than the linear layers of any model so far
_NOTHING: tuple[Any, ...] = (None, False, "", [], {})
# Fields that would change what the adapter computes: accepted only while they say "off".
_OFF = (
    "alora_invocation_tokens", "arrow_config", "auto_mapping", "corda_config", "ensure_weight_tying", "eva_config",
    "exclude_modules", "fan_in_fan_out", "kasa_config", "layer_replication", "layers_pattern", "layers_to_transform",
    "loftq_config", "lora_bias", "lora_ga_config", "megatron_config", "modules_to_save", "monteclora_config",
    "target_parameters", "trainable_token_indices", "use_bdlora", "use_dora", "use_qalora", "velora_config",
)  # fmt: skip
_ALLOWED: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "task_type": (None, "CAUSAL_LM"),
    "bias": ("none",),
    # Starting points that leave the base as it is; PiSSA, OLoRA, CorDA and LoftQ train against a changed base.
    "init_lora_weights": (True, False, "gaussian", "orthogonal"),
    "inference_mode": (True, False),
    "megatron_core": (None, "megatron.core"),
    "runtime_config": (None, {}, {"ephemeral_gpu_offload": False}),
    "use_rslora": (True, False),
}
_TEXT = ("base_model_name_or_path", "revision", "peft_version")
_NUMBERS = ("lora_dropout", "qalora_group_size")
_OWN = ("r", "lora_alpha", "rank_pattern", "alpha_pattern", "target_modules")
_ATOM = r"(?:\\[.dw]|\[[A-Za-z0-9_-]+\]|[A-Za-z0-9_.-])"
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
        check_work([pattern for pattern, _, _ in self._patterns], names, self._field)
        return {name: self._first(name, default) for name in names}

    def _first(self, name: str, default: float) -> float:
        for _, compiled, value in self._patterns:
            if compiled.match(name):
                return value
        return default


@dataclass(frozen=True, slots=True)
class LoraSettings:
    """What an adapter_config.json says, as far as it matters.

    Attributes:
        rank, alpha: of the modules that no pattern names. rslora: scaling alpha / sqrt(rank) (arXiv 2312.03732)
            instead of alpha / rank.
        ranks, alphas: the exceptions, in the order of the file. (PEFT saves them in alphabetical order, so where two
            patterns match one module, PEFT itself may read its file differently from how it trained.)
        targets: names, or one regular expression, or None for every linear layer.
        base: what the file says the base is; for people, never looked up.
    """

    rank: int
    alpha: float
    rslora: bool
    ranks: PatternTable
    alphas: PatternTable
    targets: tuple[str, ...] | str | None
    base: str | None

    def layout(self, modules: Iterable[str]) -> Mapping[str, tuple[int, float]]:
        """Module -> (rank, scaling)."""
        names = list(modules)
        ranks, alphas = self.ranks.find(names, self.rank), self.alphas.find(names, self.alpha)
        return {name: (int(ranks[name]), self._scaling(int(ranks[name]), alphas[name])) for name in names}

    def targeted(self, modules: Iterable[str]) -> set[str]:
        """The modules that PEFT would adapt under this config."""
        names = list(modules)
        if self.targets is None:
            return set(names)
        if isinstance(self.targets, str):
            check_work([self.targets], names, "target_modules")
            pattern = re.compile(self.targets)
            return {name for name in names if pattern.fullmatch(name)}
        wanted = set(self.targets)
        return {name for name in names if any(end in wanted for end in _endings(name))}

    def _scaling(self, rank: int, alpha: float) -> float:
        return alpha / math.sqrt(rank) if self.rslora else alpha / rank


def _endings(name: str) -> Iterable[str]:
    parts = name.split(".")
    return (".".join(parts[start:]) for start in range(len(parts)))


def parse_config(raw: bytes, where: str) -> LoraSettings:
    """Read an adapter_config.json as PEFT writes it.

    Raises:
        AdapterError: reason "bad-config" (not strict JSON, a wrong type or value), "unsupported" (a feature that
            soupmix does not have, by name), "unknown-field" or "pattern".
    """
    try:
        config = strict_json(raw)
    except (ValueError, RecursionError) as error:
        raise AdapterError(f"{where} is not strict JSON: {error}", reason="bad-config") from None
    if not isinstance(config, dict):
        raise AdapterError(f"{where} is not a JSON object", reason="bad-config")
    for field, value in config.items():
        _check_field(field, value, where)
    for field in ("peft_type", "r", "lora_alpha", "target_modules"):
        if field not in config:
            raise AdapterError(f"{where} lacks {field!r}", reason="bad-config")
    return LoraSettings(
        rank=_rank(config["r"], "r", where),
        alpha=_alpha(config["lora_alpha"], "lora_alpha", where),
        rslora=config.get("use_rslora", False),
        ranks=_table(config, "rank_pattern", _rank, where),
        alphas=_table(config, "alpha_pattern", _alpha, where),
        targets=_targets(config["target_modules"], where),
        base=config.get("base_model_name_or_path"),
    )


def _check_field(field: str, value: Any, where: str) -> None:
    if field in _OFF:
        if not _among(value, _NOTHING):
            raise AdapterError(f"{where} uses {field!r}, which soupmix does not support", reason="unsupported")
    elif field in _ALLOWED:
        if not _among(value, _ALLOWED[field]):
            allowed = " or ".join(repr(item) for item in _ALLOWED[field])
            raise AdapterError(
                f"{where} says {field} = {_shown(value)}; soupmix supports {allowed}", reason="unsupported"
            )
    elif field in _TEXT:
        if value is not None and not isinstance(value, str):
            raise AdapterError(f"{where}: {field} must be text", reason="bad-config")
    elif field in _NUMBERS:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise AdapterError(f"{where}: {field} must be a number", reason="bad-config")
    elif field not in _OWN:
        raise AdapterError(
            f"{where} has the field {field[:60]!a}, which soupmix does not know and so will not ignore",
            reason="unknown-field",
        )


def _shown(value: Any) -> str:
    """A value as a message may show it; a list may be nested as deep as it likes and is not looked into."""
    return "a list or object" if isinstance(value, list | dict) else ascii(str(value)[:60])


def _among(value: Any, allowed: tuple[Any, ...]) -> bool:
    return any(type(value) is type(item) and value == item for item in allowed)


def _rank(value: Any, field: str, where: str) -> int:
    if type(value) is not int or not 1 <= value <= _MAX_RANK:
        raise AdapterError(f"{where}: {field} must be a whole number from 1 to {_MAX_RANK}", reason="bad-config")
    return value


def _alpha(value: Any, field: str, where: str) -> float:
    if type(value) not in (int, float) or not 0 < value < 1e6:
        raise AdapterError(f"{where}: {field} must be a number above 0 and below a million", reason="bad-config")
    return float(value)


def _table(config: Mapping[str, Any], field: str, check: Any, where: str) -> PatternTable:
    value = config.get(field)
    if value is not None and not isinstance(value, dict):
        raise AdapterError(f"{where}: {field} must be an object", reason="bad-config")
    if value is not None and len(value) > _MAX_PATTERNS:
        raise AdapterError(
            f"{where}: {field} has {len(value)} patterns, at most {_MAX_PATTERNS} are allowed", reason="pattern"
        )
    return PatternTable(
        [(key, check(item, f"{field}[{key[:60]!a}]", where)) for key, item in (value or {}).items()], field
    )


def _targets(value: Any, where: str) -> tuple[str, ...] | str | None:
    if value == "all-linear":
        return None
    if isinstance(value, str):
        check_pattern(value, "target_modules")
        return value
    if not isinstance(value, list) or not value or not all(isinstance(item, str) and item for item in value):
        raise AdapterError(f"{where}: target_modules must be a list of names or one pattern", reason="bad-config")
    return tuple(sorted(set(value)))


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


def check_work(patterns: Sequence[str], modules: Sequence[str], field: str) -> None:
    """Refuse patterns whose backtracking over these names could take more than about a second.

    Raises:
        AdapterError: reason "pattern".
    """
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

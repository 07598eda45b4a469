"""adapter_config.json: what soupmix understands, what certainly changes nothing, and a sentence for everything else.

The factors in the file beside say what is adapted; a config only says how they are scaled. A field that is null, false, empty or
zero is off, known or not. Any other field must be known, since a feature that is ignored is an adapter misread.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from soupmix.errors import AdapterError
from soupmix.store.adapter import LayerForm
from soupmix.store.folder import json_object
from soupmix.store.patterns import PatternTable
from soupmix.store.targets import TARGET_FIELDS, Targets, parse_targets

__all__ = [
    "EXTRACT",
    "MAX_RANK",
    "STORE_FORM",
    "LoraSettings",
    "StoreForm",
    "WholeSettings",
    "check_alpha",
    "parse_config",
]

MAX_RANK = 1 << 16
"""Most columns of a factor, so that a sum of adapters can be one itself; the size of their file bounds what they cost."""
_MAX_PATTERNS = 4096  # more than the linear layers of any model so far
_NEUTRAL: tuple[Any, ...] = (None, False, "", [], {}, 0, 0.0)
# What says how an adapter was made, or how it is to be run, and nothing of what it is when it is finished.
_FREE = frozenset({
    "auto_mapping", "corda_config", "ensure_weight_tying", "eva_config", "fan_in_fan_out", "inference_mode",
    "loftq_config", "lora_dtype", "lora_ga_config", "lorap_emb_lr", "lorap_lr_ratio", "megatron_config",
    "megatron_core", "merge_weights", "runtime_config", "velora_config",
})  # fmt: skip
# What a tuned model has that no factors of linear layers say, and soupmix does not read.
_MORE = frozenset({"kasa_config", "use_bdlora", "use_qalora"})
# What no weights say: copies of layers, several adapters at once, layers that act on some tokens only.
_NO_WEIGHTS = frozenset({"alora_invocation_tokens", "arrow_config", "layer_replication", "monteclora_config"})
_ALLOWED: dict[str, tuple[Any, ...]] = {
    "task_type": ("CAUSAL_LM",), "bias": ("none", "all", "lora_only"), "use_rslora": (True,), "use_dora": (True,),
    "lora_bias": (True,),
}  # fmt: skip
# Starting points that leave the base as it is; PiSSA, OLoRA, CorDA, LoRA-GA and LoftQ train against a changed base.
_BASE_KEPT: tuple[Any, ...] = (True, "gaussian", "orthogonal", "eva")
_TEXT = ("base_model_name_or_path", "revision", "peft_version")
_NUMBERS = ("lora_dropout", "qalora_group_size")
_OWN = frozenset({
    "peft_type", "r", "lora_alpha", "rank_pattern", "alpha_pattern", "modules_to_save", "trainable_token_indices", *TARGET_FIELDS,
})  # fmt: skip
_OF_STORES = frozenset({"base_digest", "kinds"})
# Kinds of PEFT that put tokens, prompts or routing before or between layers: no weight of the base changes.
_PROMPTS = frozenset({
    "ADAPTION_PROMPT", "CPT", "MULTITASK_PROMPT_TUNING", "POLY", "PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING", "XLORA",
})  # fmt: skip
EXTRACT = "`soupmix adapters extract` makes a plain LoRA of the tuned model, and says what is lost"
"""What to do with what is no plain LoRA."""


STORE_FORM = "SOUPMIX"
"""The peft_type of adapters with whole weights as a store holds them, which PEFT refuses by name."""

_MOST_TOKENS = 1 << 20


@dataclass(frozen=True, slots=True)
class WholeSettings:
    """What a config says is changed beside factors of layers; the tensors of the file decide it.

    Attributes:
        saved: names of modules that are saved as they are (`modules_to_save`).
        tokens: name of an embedding, or "" for that of the model -> its rows that were trained (`trainable_token_indices`).
        bias: which biases of the base were trained. lora_bias: whether factors B have biases. dora: whether lengths were trained.
    """

    saved: tuple[str, ...] = ()
    tokens: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    bias: str = "none"
    lora_bias: bool = False
    dora: bool = False

    def __bool__(self) -> bool:
        return self != WholeSettings()


@dataclass(frozen=True, slots=True)
class StoreForm:
    """What a config of a store's own form says: the base whose weights were taken away, and which layers are not linear."""

    base_digest: str
    kinds: Mapping[str, LayerForm]


@dataclass(frozen=True, slots=True)
class LoraSettings:
    """What an adapter_config.json says, as far as it matters.

    Attributes:
        rank, alpha: of the modules that no pattern names. rslora: scaling alpha / sqrt(rank) (arXiv 2312.03732)
            instead of alpha / rank.
        ranks, alphas: the exceptions, in the order of the file. (PEFT saves them in alphabetical order, so where two
            patterns match one module, PEFT itself may read its file differently from how it trained.)
        targets: what is said to be adapted; to be compared, not obeyed.
        base: what the file says the base is; for people, never looked up.
        whole: what is changed beside factors of linear layers. own: what the form of a store says; None of anybody else's.
    """

    rank: int
    alpha: float
    rslora: bool
    ranks: PatternTable
    alphas: PatternTable
    targets: Targets
    base: str | None
    whole: WholeSettings = WholeSettings()
    own: StoreForm | None = None

    def layout(self, modules: Iterable[str]) -> Mapping[str, tuple[int, float]]:
        """Module -> (rank, scaling)."""
        names = list(modules)
        ranks, alphas = self.ranks.find(names, self.rank), self.alphas.find(names, self.alpha)
        return {name: (int(ranks[name]), self.scaling(int(ranks[name]), alphas[name])) for name in names}

    def scaling(self, rank: int, alpha: float) -> float:
        """What a product of factors is multiplied with."""
        return alpha / math.sqrt(rank) if self.rslora else alpha / rank


def parse_config(raw: bytes, where: str) -> LoraSettings:
    """Read an adapter_config.json as PEFT writes it, or a store.

    Raises:
        AdapterError: reason "bad-config" (not strict JSON, a wrong type or value), "unsupported" (a feature that
            soupmix does not have, by name), "unknown-field" or "pattern".
    """
    config = json_object(raw, where, "bad-config")
    _check_type(config, where)
    own = _store_form(config, where)
    for name, value in config.items():
        if own is None or name not in _OF_STORES:
            _check_field(name, value, where)
    for name in ("r", "lora_alpha"):
        if name not in config:
            raise AdapterError(f"{where} lacks {name!r}", reason="bad-config")
    return LoraSettings(
        rank=_rank(config["r"], "r", where),
        alpha=check_alpha(config["lora_alpha"], "lora_alpha", where),
        rslora=bool(config.get("use_rslora")),
        ranks=_table(config, "rank_pattern", _rank, where),
        alphas=_table(config, "alpha_pattern", check_alpha, where),
        targets=parse_targets(config, where),
        base=config.get("base_model_name_or_path") or None,
        whole=_whole(config, where),
        own=own,
    )


def _check_type(config: Mapping[str, Any], where: str) -> None:
    if "peft_type" not in config:
        raise AdapterError(f"{where} lacks 'peft_type'", reason="bad-config")
    kind = config["peft_type"]
    if kind in ("LORA", STORE_FORM):
        return
    if isinstance(kind, str) and kind not in _PROMPTS:
        why = f"which is no plain LoRA: {EXTRACT}"
    else:
        why = "which changes no weights, and soupmix merges changes of weights: train a LoRA adapter instead"
    raise AdapterError(f"{where} says peft_type = {_shown(kind)}, {why}", reason="unsupported")


def _check_field(field: str, value: Any, where: str) -> None:
    if field in _OWN or field in _FREE or _among(value, _NEUTRAL):
        return
    if field == "init_lora_weights":
        if not _among(value, _BASE_KEPT):
            raise AdapterError(
                f"{where} says init_lora_weights = {_shown(value)}, so it was trained against a changed base: {EXTRACT}",
                reason="unsupported",
            )
    elif field in _ALLOWED:
        if not _among(value, _ALLOWED[field]):
            supported = " and ".join(map(repr, _ALLOWED[field]))
            raise AdapterError(
                f"{where} says {field} = {_shown(value)}; soupmix supports {supported}", reason="unsupported"
            )
    elif field in _TEXT:
        if not isinstance(value, str):
            raise AdapterError(f"{where}: {field} must be text", reason="bad-config")
    elif field in _NUMBERS:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise AdapterError(f"{where}: {field} must be a number", reason="bad-config")
    else:
        raise _in_use(field, where)


def _in_use(field: str, where: str) -> AdapterError:
    if field in _MORE:
        return AdapterError(
            f"{where} uses {field!r}, which is more than factors of linear layers: {EXTRACT}", reason="unsupported"
        )
    if field in _NO_WEIGHTS:
        return AdapterError(
            f"{where} uses {field!r}, which no change of weights says: train without it", reason="unsupported"
        )
    return AdapterError(
        f"{where} has the field {field[:60]!a}, which soupmix does not know and so will not ignore; if it only says how the "
        "adapter was trained, take it out of the file",
        reason="unknown-field",
    )


def _store_form(config: Mapping[str, Any], where: str) -> StoreForm | None:
    if config["peft_type"] != STORE_FORM:
        return None
    digest: Any = config.get("base_digest")
    kinds: Any = config.get("kinds")
    good = isinstance(digest, str) and isinstance(kinds, dict)
    if not good or not all(kind in ("embedding", "vector") for kind in kinds.values()):
        raise AdapterError(
            f"{where} is of the form in which stores hold whole weights, without its base_digest or its kinds: add the adapter "
            "that was trained",
            reason="bad-config",
        )
    return StoreForm(digest, dict(kinds))


def _whole(config: Mapping[str, Any], where: str) -> WholeSettings:
    saved = config.get("modules_to_save") or []
    if not isinstance(saved, list) or not all(isinstance(name, str) for name in saved):
        raise AdapterError(f"{where}: modules_to_save must be a list of names", reason="bad-config")
    tokens = config.get("trainable_token_indices") or {}
    named = tokens if isinstance(tokens, dict) else {"": tokens}
    return WholeSettings(
        saved=tuple(sorted(set(saved))),
        tokens={name: _tokens(rows, where) for name, rows in named.items()},
        bias=config.get("bias") or "none",
        lora_bias=bool(config.get("lora_bias")),
        dora=bool(config.get("use_dora")),
    )


def _tokens(rows: Any, where: str) -> tuple[int, ...]:
    good = isinstance(rows, list) and len(rows) <= _MOST_TOKENS
    if not good or not all(type(row) is int and row >= 0 for row in rows) or len(set(rows)) < len(rows):
        raise AdapterError(
            f"{where}: trainable_token_indices must be a list of token ids, each once, or such lists by name of module",
            reason="bad-config",
        )
    return tuple(rows)


def _shown(value: Any) -> str:
    """A value as a message may show it; a list may be nested as deep as it likes and is not looked into."""
    return "a list or object" if isinstance(value, list | dict) else ascii(str(value)[:60])


def _among(value: Any, allowed: tuple[Any, ...]) -> bool:
    return any(type(value) is type(item) and value == item for item in allowed)


def _rank(value: Any, field: str, where: str) -> int:
    if type(value) is not int or not 1 <= value <= MAX_RANK:
        raise AdapterError(f"{where}: {field} must be a whole number from 1 to {MAX_RANK}", reason="bad-config")
    return value


def check_alpha(value: Any, field: str, where: str) -> float:
    """A number that scales an adapter.

    Raises:
        AdapterError: it is none, not above zero, or huge (reason "bad-config").
    """
    if type(value) not in (int, float) or not 0 < value < 1e6:
        raise AdapterError(f"{where}: {field} must be a number above 0 and below a million", reason="bad-config")
    return float(value)


def _table(config: Mapping[str, Any], field: str, check: Any, where: str) -> PatternTable:
    value = config.get(field) or {}
    if not isinstance(value, dict):
        raise AdapterError(f"{where}: {field} must be an object", reason="bad-config")
    if len(value) > _MAX_PATTERNS:
        raise AdapterError(
            f"{where}: {field} has {len(value)} patterns, at most {_MAX_PATTERNS} are allowed", reason="pattern"
        )
    return PatternTable([(key, check(item, f"{field}[{key[:60]!a}]", where)) for key, item in value.items()], field)

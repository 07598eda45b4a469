"""What is read of a model's folder besides its weights: these names and no other, as plain files that are not too large."""

import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from soupmix.base.quantisation import Quantisation, check_quantised, quantisation_of
from soupmix.base.safetensors import TensorInfo
from soupmix.errors import BaseModelError
from soupmix.files import strict_json

__all__ = ["CONFIG", "MOST_TEMPLATE", "check_config", "companions", "config_of", "quantisation"]

CONFIG: Final = "config.json"
_SETTINGS: Final = 16 << 20
MOST_TEMPLATE: Final = 1 << 20
"""Most bytes of a chat template."""
_VOCABULARY: Final = 256 << 20
_LIMITS: Final = {
    CONFIG: 1 << 20,
    "generation_config.json": 1 << 20,
    "tokenizer_config.json": _SETTINGS,
    "special_tokens_map.json": _SETTINGS,
    "added_tokens.json": _SETTINGS,
    "chat_template.json": MOST_TEMPLATE,
    "chat_template.jinja": MOST_TEMPLATE,
    "tokenizer.json": _VOCABULARY,
    "vocab.json": _VOCABULARY,
    "vocab.txt": _VOCABULARY,
    "merges.txt": _VOCABULARY,
    "tokenizer.model": _VOCABULARY,
    "spiece.model": _VOCABULARY,
    "sentencepiece.bpe.model": _VOCABULARY,
}
"""Name -> most bytes. Weights aside, whatever else lies in the folder (code, pickles, adapters, templates) is not seen."""
_ATTENTION: Final = {None, "eager", "sdpa"}
_LAYERS: Final = re.compile(r"(num|n)_(hidden_|decoder_)?layers?|layers|depth")
_SIDE: Final = re.compile(r"\w+_(size|dim|rank)|(num|n)_\w+|d_\w+|n_(embd|inner)")
_MOST_NESTED: Final = 16
_MOST_REPEATED: Final = 1 << 25


def companions(folder: Path) -> tuple[Path, ...]:
    """The files of a Hugging Face folder that are read besides its weights, sorted by name.

    Raises:
        BaseModelError: one is no plain file ("special-file") or too large ("too-large").
    """
    return tuple(path for name in sorted(_LIMITS) if _present(path := folder / name, _LIMITS[name]))


def quantisation(folder: Path) -> Quantisation | None:
    """How the weights of a folder are quantised, as its config.json says; None for plain weights.

    Raises:
        BaseModelError: it is no strict JSON object ("bad-config"), or as `quantisation_of` does.
    """
    return quantisation_of(_config(folder / CONFIG)[0], folder / CONFIG)


def config_of(folder: Path) -> dict[str, Any]:
    """The config.json of a folder. Raises `BaseModelError` if it is no strict JSON object ("bad-config")."""
    return _config(folder / CONFIG)[0]


def check_config(folder: Path, tensors: Mapping[str, TensorInfo]) -> None:
    """Refuse a config.json that asks for code from elsewhere, or for a model that its tensors cannot be.

    Raises:
        BaseModelError: it is no strict JSON object or claims sizes that no tensor has ("bad-config"), names code
            to fetch ("remote-code"), or as `quantisation_of` and `check_quantised` do.
    """
    path = folder / CONFIG
    config, fields = _config(path)
    inner = list(_nested(config))
    if len(inner) * sum(abs(each) for each in inner if isinstance(each, int)) > _MOST_REPEATED:
        raise BaseModelError(
            f"{path} has lists in lists whose numbers are too large, some of which say how often others are repeated; the "
            "folder is damaged or hostile",
            reason="bad-config",
        )
    largest = max((side for info in tensors.values() for side in info.shape), default=0)
    for key, value in fields:
        if "_implementation" in key and value not in _ATTENTION:
            raise BaseModelError(
                f"{path} asks for the code {str(value)[:80]!r} by {key}; soupmix runs no code that a model names: "
                "remove the field",
                reason="remote-code",
            )
        most = len(tensors) if _LAYERS.fullmatch(key) else max(largest, 1 << 20)
        if isinstance(value, int) and (_LAYERS.fullmatch(key) or _SIDE.fullmatch(key)) and value > most:
            raise BaseModelError(
                f"{path} gives {key} = {value}, which fits no tensor of the model; the folder is damaged or hostile",
                reason="bad-config",
            )
    if (found := quantisation_of(config, path)) is not None:
        check_quantised(found, tensors, path)


def _config(path: Path) -> tuple[dict[str, Any], list[tuple[str, Any]]]:
    """A config.json, and every field of it."""
    _present(path, _LIMITS[CONFIG])
    try:
        config = strict_json(path.read_bytes())
        if not isinstance(config, dict):
            raise ValueError("it is not an object")
        return config, list(_fields(config))
    except (OSError, ValueError, RecursionError) as error:
        raise BaseModelError(f"{path} cannot be read: {error}", reason="bad-config") from None


def _present(path: Path, limit: int) -> bool:
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise BaseModelError(f"{path} cannot be read: {error.strerror}", reason="unreadable") from None
    if not stat.S_ISREG(found.st_mode):
        raise BaseModelError(f"{path} is not a plain file, so it cannot be read as one", reason="special-file")
    if found.st_size > limit:
        raise BaseModelError(
            f"{path} has {found.st_size} bytes; of a file of this name at most {limit} are read", reason="too-large"
        )
    return True


def _fields(value: Any, depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Every field of a config and of the configs inside it."""
    if depth > _MOST_NESTED:
        raise ValueError(f"it is nested more than {_MOST_NESTED} deep")
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(inner, dict | list):
                yield key, inner
            yield from _fields(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            yield from _fields(inner, depth + 1)


def _nested(value: Any, lists: int = 0) -> Iterator[Any]:
    """Everything that lies in a list within a list; how deep is checked by `_fields`."""
    if isinstance(value, dict):
        for inner in value.values():
            yield from _nested(inner, lists)
    elif isinstance(value, list):
        for inner in value:
            yield from _nested(inner, lists + 1)
    if lists > 1:
        yield value

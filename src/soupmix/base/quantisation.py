"""What config.json says of how a base is quantised: its name for people, and whether its tensors are what they claim to be.

How a method stores and multiplies weights is the business of transformers and of the packages behind it. Their compiled code
takes sizes from the file, so those are checked here, before anybody else reads them.
"""

import importlib.util
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from soupmix.base.safetensors import TensorInfo
from soupmix.errors import BaseModelError
from soupmix.files import strict_json
from soupmix.public import public

__all__ = ["Quantisation", "check_packages", "check_quantised", "quantisation_of"]

FIELD: Final = "quantization_config"

_TITLES: Final = {
    "aqlm": "AQLM", "auto-round": "AutoRound", "awq": "AWQ", "bitnet": "BitNet", "bitsandbytes": "bitsandbytes",
    "compressed-tensors": "compressed-tensors", "eetq": "EETQ", "fbgemm_fp8": "FBGEMM FP8", "fouroversix": "four over six",
    "fp8": "FP8", "fp_quant": "FP-Quant", "gemma": "Gemma", "gptq": "GPTQ", "higgs": "HIGGS", "hqq": "HQQ",
    "metal": "Metal", "mxfp4": "MXFP4", "mxfp8": "MXFP8", "nvfp4": "NVFP4", "quanto": "Quanto", "quark": "Quark",
    "sinq": "SINQ", "spqr": "SpQR", "torchao": "torchao", "vptq": "VPTQ",
}  # fmt: skip
"""Every method that transformers loads by `quant_method` -> its name for people; GGUF is converted instead."""
_PACKAGES: Final = {
    "awq": ("gptqmodel",),
    "bitsandbytes": ("bitsandbytes",),
    "compressed-tensors": ("compressed_tensors",),
    "gptq": ("gptqmodel", "optimum"),
    "hqq": ("hqq",),
    "quanto": ("optimum.quanto",),
    "torchao": ("torchao",),
}
"""What must be importable; of other methods transformers says it."""
_QUANTIFIER: Final = re.compile(r"[*+{]")
_REPEATED: Final = re.compile(r"\)[*+{?]")
_MOST_QUANTIFIERS, _MOST_PATTERNS, _LONGEST = 2, 128, 512
_CLASS: Final = re.compile(
    r"torch\.dtype|[A-Z]\w*Config|Per(Row|Tensor|Group|Axis|Token|Block)|[A-Z]\w*(Type|Domain|Preference|Format|Algorithm|Layout)"
)
_STATE: Final = re.compile(r"(?P<weight>.+)\.quant_state\.bitsandbytes__(nf4|fp4)")
_MOST_STATE: Final = 1 << 16  # bytes


@public
@dataclass(frozen=True, slots=True)
class Quantisation:
    """How the weights of a base are stored.

    Attributes:
        method: as config.json spells it, for example "bitsandbytes".
        name: for people, for example "bitsandbytes nf4" or "GPTQ, 4 bits".
        settings: the whole field of config.json.
    """

    method: str
    name: str
    settings: Mapping[str, Any]

    def __repr__(self) -> str:
        return f"<Quantisation by {self.name}>"


def quantisation_of(config: Mapping[str, Any], where: Path) -> Quantisation | None:
    """What a config says; None for plain weights.

    Args:
        config: of config.json. where: the file, for errors.

    Raises:
        BaseModelError: it names a method that transformers does not know, which would load made-up numbers
            ("unknown-quantisation"), or says what no such config says ("bad-config").
    """
    inner = config.get("text_config")
    settings, text = config.get(FIELD), inner.get(FIELD) if isinstance(inner, Mapping) else None
    if settings is not None and text is not None and settings != text:
        raise BaseModelError(
            f"{where} says in two ways how the weights are quantised: leave the {FIELD} that is meant",
            reason="bad-config",
        )
    settings = text if settings is None else settings
    if settings is None:
        return None
    if not isinstance(settings, dict):
        raise BaseModelError(f"{where} has a {FIELD} that is not an object", reason="bad-config")
    method = settings.get("quant_method")
    loads = settings.get("load_in_4bit"), settings.get("load_in_8bit")
    if not all(each is None or isinstance(each, bool) for each in loads):
        raise BaseModelError(f"{where}: load_in_4bit and load_in_8bit must be true or false", reason="bad-config")
    if any(loads):
        method = "bitsandbytes"  # as transformers reads it
    if not isinstance(method, str) or method not in _TITLES:
        raise BaseModelError(
            f"{where} says that the weights are quantised by {str(method)[:40]!r}, which soupmix does not know; it knows "
            f"{', '.join(sorted(_TITLES))}: use the model as it was before it was quantised, or another copy of it",
            reason="unknown-quantisation",
        )
    return Quantisation(method, _name(method, settings), settings)


def _name(method: str, settings: Mapping[str, Any]) -> str:
    title = _TITLES[method]
    if method == "bitsandbytes":
        return f"{title} {'int8' if settings.get('load_in_8bit') is True else _word(settings.get('bnb_4bit_quant_type', 'fp4'))}"
    if method == "torchao":
        kind = settings.get("quant_type")
        kind = kind.get("default") if isinstance(kind, dict) else kind
        return f"{title} {_word(kind['_type'])}" if isinstance(kind, dict) and "_type" in kind else title
    if method == "compressed-tensors" and "format" in settings:
        return f"{title} {_word(settings['format'])}"
    bits = settings.get("bits", settings.get("w_bit"))
    return f"{title}, {bits} bits" if type(bits) is int and 0 < bits < 32 else title


def _word(value: object) -> str:
    return re.sub(r"[^\w.-]", "?", str(value)[:40], flags=re.ASCII)


def check_packages(quantisation: Quantisation, name: str) -> None:
    """Raise BaseModelError ("quantiser-missing") if a package that transformers loads such weights by is not installed."""
    missing = [each for each in _PACKAGES.get(quantisation.method, ()) if not _importable(each)]
    if missing:
        wanted = " ".join(each.replace(".", "-").replace("_", "-") for each in missing)
        raise BaseModelError(
            f"base model {name} is quantised ({quantisation.name}), and transformers loads such weights by a package that "
            f"is not installed: run `pip install {wanted}`, or use the model as it was before it was quantised",
            reason="quantiser-missing",
        )


def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def check_quantised(quantisation: Quantisation, tensors: Mapping[str, TensorInfo], where: Path) -> None:
    """Refuse settings that could run for ever or name what is no setting, and tensors that would be read beyond their end.

    Raises:
        BaseModelError: reason "bad-config" or "bad-quantisation".
    """
    _check_settings(quantisation.settings, where)
    if quantisation.method == "bitsandbytes":
        for name, info in tensors.items():
            if match := _STATE.fullmatch(name):
                _check_four_bits(match["weight"], info, tensors)
            elif name.endswith(".SCB"):
                _check_eight_bits(name.removesuffix(".SCB"), info, tensors)


def _check_settings(settings: Mapping[str, Any], where: Path) -> None:
    """Names of modules are matched as patterns by transformers, and torchao makes an object of every `_type`."""
    patterns = 0
    for key, text in _texts(settings):
        count = len(_QUANTIFIER.findall(text))
        patterns += count > 0
        if count > _MOST_QUANTIFIERS or _REPEATED.search(text) or len(text) > _LONGEST or patterns > _MOST_PATTERNS:
            raise BaseModelError(
                f"{where}: {FIELD} holds the pattern {text[:60]!a}, which may take for ever to match, or too many of "
                f"them; at most {_MOST_PATTERNS} with at most {_MOST_QUANTIFIERS} of '*', '+' and '{{' each are read",
                reason="bad-config",
            )
        if key == "_type" and not _CLASS.fullmatch(text):
            raise BaseModelError(f"{where}: {FIELD} asks for {text[:60]!a}, which is no setting", reason="bad-config")


def _texts(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every text in the settings with the field it stands in, and every field's name with "".

    How deep settings are nested was checked with the rest of config.json.
    """
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield "", name
            yield from _texts(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner, key)


def _check_four_bits(weight: str, info: TensorInfo, tensors: Mapping[str, TensorInfo]) -> None:
    """Two values a byte, and one scale for every block of values; scales may be quantised themselves ("nested")."""
    state = _state(weight, info)
    values = math.prod(_naturals(weight, state.get("shape"), 2))
    (block,) = _naturals(weight, [state.get("blocksize")], 1)
    scales = -(-values // block)
    expected = {"": _bytes(-(-values // 2)), ".quant_map": _count(16), ".absmax": _count(scales)}
    if f"{weight}.nested_absmax" in tensors:
        (nested,) = _naturals(weight, [state.get("nested_blocksize")], 1)
        expected[".absmax"] = _bytes(scales)
        expected |= {".nested_absmax": _count(-(-scales // nested)), ".nested_quant_map": _count(256)}
    for suffix, fits in expected.items():
        held = tensors.get(f"{weight}{suffix}")
        if held is None or not fits(held):
            raise _broken(weight, f"{weight}{suffix} does not have the size that its {values} values need")


def _check_eight_bits(module: str, scales: TensorInfo, tensors: Mapping[str, TensorInfo]) -> None:
    held = tensors.get(f"{module}.weight")
    if held is None or held.dtype != "I8" or len(held.shape) != 2 or math.prod(scales.shape) != held.shape[0]:
        raise _broken(f"{module}.weight", f"{module}.SCB does not have one scale for each of its rows")


def _count(number: int) -> "Any":
    return lambda info: math.prod(info.shape) == number and info.dtype in ("F32", "F16", "BF16")


def _bytes(number: int) -> "Any":
    return lambda info: info.end - info.start == number


def _state(weight: str, info: TensorInfo) -> Mapping[str, Any]:
    size = info.end - info.start
    try:
        if size > _MOST_STATE:
            raise ValueError(f"it has {size} bytes")
        with info.file.open("rb") as file:
            file.seek(info.start)
            state = strict_json(file.read(size))
        if not isinstance(state, dict):
            raise ValueError("it is not an object")
    except (OSError, ValueError, RecursionError) as error:
        raise _broken(weight, f"its quant_state cannot be read: {error}") from None
    return state


def _naturals(weight: str, value: object, count: int) -> list[int]:
    if (
        not isinstance(value, list)
        or len(value) != count
        or not all(type(each) is int and 0 < each < 2**40 for each in value)
    ):
        raise _broken(weight, "its quant_state has sizes that are not natural numbers")
    return value


def _broken(weight: str, why: str) -> BaseModelError:
    return BaseModelError(
        f"quantised weight {weight[:120]!a} of the base is damaged or hostile: {why}", reason="bad-quantisation"
    )

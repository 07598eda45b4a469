"""How programs spell the names of a LoRA's tensors: one table, each row with its source, and what a name means by it.

A module path that the base does not have is tried in the other spellings that are known. The base decides: what is in it as it is
spelt stays, and what could be two of its layers is refused.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from soupmix.errors import AdapterError

__all__ = ["ENDINGS", "MAX_KEY", "PATHS", "PREFIXES", "Side", "TensorPart", "parts_of"]

Side = Literal["A", "B", "alpha"]


@dataclass(frozen=True, slots=True)
class Ending:
    """What may stand behind the path of a module.

    Attributes:
        pattern: a regular expression. side: which factor it is, or its alpha.
        transposed: the tensor is the other way round than PEFT's.
        alpha_is_rank: unless an alpha is said, it is the rank. source: where that is written.
    """

    pattern: str
    side: Side
    source: str
    transposed: bool = False
    alpha_is_rank: bool = False


_PEFT = "https://github.com/huggingface/peft/blob/main/src/peft/utils/save_and_load.py"
_KOHYA = "https://github.com/kohya-ss/sd-scripts/blob/main/networks/lora.py"
_DIFFUSERS = "https://github.com/huggingface/diffusers/blob/main/src/diffusers/utils/state_dict_utils.py"
_MLX = "https://github.com/ml-explore/mlx-lm/blob/main/mlx_lm/tuner/lora.py"
_VLLM = "https://github.com/vllm-project/vllm/issues/34186"

ENDINGS: tuple[Ending, ...] = (
    Ending(r"\.lora_A(?:\.\w+)?\.weight", "A", _PEFT),
    Ending(r"\.lora_B(?:\.\w+)?\.weight", "B", _PEFT),
    Ending(r"\.lora_down\.weight", "A", _KOHYA, alpha_is_rank=True),
    Ending(r"\.lora_up\.weight", "B", _KOHYA, alpha_is_rank=True),
    Ending(r"\.alpha", "alpha", _KOHYA),
    Ending(r"\.lora(?:_linear_layer)?\.down\.weight", "A", _DIFFUSERS, alpha_is_rank=True),
    Ending(r"\.lora(?:_linear_layer)?\.up\.weight", "B", _DIFFUSERS, alpha_is_rank=True),
    Ending(r"\.lora_a", "A", _MLX, transposed=True),
    Ending(r"\.lora_b", "B", _MLX, transposed=True),
)
"""In one name there is one adapter: of two, named "default" and "other", neither is taken."""

PREFIXES: Mapping[str, str] = {
    "base_model.model.": _PEFT,
    "module.": "https://docs.pytorch.org/docs/stable/generated/torch.nn.parallel.DistributedDataParallel.html",
    "_orig_mod.": "https://docs.pytorch.org/docs/stable/generated/torch.compile.html",
    "transformer.": _DIFFUSERS,
    "text_encoder.": _DIFFUSERS,
    "lora_te_": _KOHYA,
    "lora_te1_": _KOHYA,
    "lora_unet_": _KOHYA,
}
"""What may stand before the path of a module, one before another, and its source."""

PATHS: tuple[tuple[str, str, str], ...] = (
    ("model.language_model.", "model.", _VLLM),
    ("model.", "model.language_model.", _VLLM),
    ("language_model.model.", "model.", "https://github.com/huggingface/transformers/pull/37033"),
    ("language_model.model.", "model.language_model.", "https://github.com/huggingface/transformers/pull/37033"),
)
"""Beginnings of module paths in one build of a model, in another build of it, and a source.

Where a model was trained without its head, the first part of every path is missing; the base says what it is called
(https://github.com/huggingface/peft/issues/1579).
"""

MAX_KEY = 256
"""Most characters of a tensor's name."""
_INNER = re.compile(r"(?:_fsdp_wrapped_module|_checkpoint_wrapped_module|_orig_mod)\.")  # what wraps a module, anywhere
_ENDS = [(re.compile(rf"(?P<path>\w[\w.]*(?:\[\d{{1,6}}\])?){ending.pattern}", re.ASCII), ending) for ending in ENDINGS]


@dataclass(frozen=True, slots=True)
class TensorPart:
    """One tensor of an adapter.

    Attributes:
        module: path in the base. said: path as the file has it, without PEFT's prefix, which patterns in a config mean.
        side, transposed, alpha_is_rank: as in `Ending`.
    """

    module: str
    said: str
    side: Side
    transposed: bool
    alpha_is_rank: bool


class _Paths:
    """Module paths of a base, by every spelling in which they are looked for."""

    def __init__(self, base: Iterable[str]) -> None:
        self.known = frozenset(base)
        self._headless: dict[str, set[str]] = {}
        self._flat: dict[str, set[str]] = {}
        for path in self.known:
            headless = path.partition(".")[2]
            self._headless.setdefault(headless, set()).add(path)
            for spelt in (path, headless):
                self._flat.setdefault(spelt.replace(".", "_"), set()).add(path)

    def meant(self, path: str) -> set[str]:
        """The layers that a path may mean: as it is, with another beginning, without the first part, with `_` for every dot."""
        rests = [path]
        for rest in rests:  # it grows: one prefix may stand before another, each shorter than before
            rests += [rest.removeprefix(prefix) for prefix in PREFIXES if rest.startswith(prefix)]
        others = [other for rest in rests for other in _otherwise(rest, ".")]
        flat = [*rests, *(other for rest in rests for other in _otherwise(rest, "_"))]
        ways = (
            {each for each in rests if each in self.known},
            {each for each in others if each in self.known},
            {found for rest in rests if rest for found in self._headless.get(rest, ())},
            {found for each in flat if each for found in self._flat.get(each, ())},
        )
        return next(filter(None, ways), set())


def parts_of(keys: Iterable[str], base: Iterable[str], where: str) -> Mapping[str, TensorPart]:
    """Name of a tensor -> what it is, for every name that the table reads.

    Args:
        base: module paths of the base.

    Raises:
        AdapterError: a name could be two layers of the base, two names are one tensor, or the tensors of one layer call it by
            two names (reason "bad-key").
    """
    paths, found = _Paths(base), dict[str, TensorPart]()
    taken: dict[tuple[str, Side], str] = {}
    said: dict[str, str] = {}
    for key in keys:
        part = _part(key, paths, where) if len(key) <= MAX_KEY else None
        if part is not None:
            other = taken.setdefault((part.module, part.side), key)
            if other != key:
                raise AdapterError(
                    f"{where} holds {other[:120]!a} and {key[:120]!a}, which are one tensor of {part.module}",
                    reason="bad-key",
                )
            if said.setdefault(part.module, part.said) != part.said:
                raise AdapterError(
                    f"{where} calls {part.module} both {said[part.module]} and {part.said}, and a pattern in its config may "
                    "mean one of them only",
                    reason="bad-key",
                )
            found[key] = part
    return found


def _part(key: str, paths: _Paths, where: str) -> TensorPart | None:
    for pattern, ending in _ENDS:
        match = pattern.fullmatch(key)
        if match:
            bare = _INNER.sub("", match["path"])
            said = bare.removeprefix("module.").removeprefix("base_model.model.")
            places = sorted({said} if said in paths.known else paths.meant(bare))
            if len(places) > 1:
                raise AdapterError(
                    f"{where} holds {key[:120]!a}, which may be {places[0]} or {places[1]} of the base",
                    reason="bad-key",
                )
            module = places[0] if places else said
            return TensorPart(module, said, ending.side, ending.transposed, ending.alpha_is_rank)
    return None


def _otherwise(path: str, dot: str) -> Iterator[str]:
    for old, new, _ in PATHS:
        start = old.replace(".", dot)
        if path.startswith(start):
            yield new.replace(".", dot) + path.removeprefix(start)

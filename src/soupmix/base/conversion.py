"""Which tensors on disk become which parameters of a model, by transformers' own conversion of checkpoints.

It is what `from_pretrained` does (`core_model_loading.convert_and_load_state_dict_in_model`), without the weights.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from soupmix.base.safetensors import TensorInfo
from soupmix.errors import BaseModelError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Conversion", "TensorGroup"]

_LONGEST_NAME = 512  # characters; transformers' patterns take quadratic time in them


@dataclass(frozen=True, slots=True)
class TensorGroup:
    """Tensors on disk that become one parameter or several together.

    Attributes:
        names: of the tensors, in the order in which transformers takes them.
        targets: names of the parameters.
        patterns: by which converter's pattern each tensor was found; None where the one tensor is the one parameter as it is.
    """

    names: tuple[str, ...]
    targets: tuple[str, ...]
    patterns: tuple[str | None, ...]

    @property
    def is_whole(self) -> bool:
        """Whether the one tensor is the one parameter as it is."""
        return self.patterns[0] is None


class Conversion:
    """transformers' conversion for one model without weights."""

    def __init__(self, model: Any) -> None:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightConverter, WeightRenaming

        self._model, self._meta = model, model.state_dict()
        transforms = get_model_conversion_mapping(model)
        self._renamings = [each for each in transforms if isinstance(each, WeightRenaming)]
        self._converters = [each for each in transforms if isinstance(each, WeightConverter)]
        self._by_pattern = {pattern: each for each in self._converters for pattern in each.source_patterns}

    def groups(self, tensors: Mapping[str, TensorInfo]) -> tuple[tuple[TensorGroup, ...], tuple[str, ...]]:
        """Every group of these tensors, and the names of those that are in none.

        Raises:
            BaseModelError: a parameter is on disk whole and in pieces too ("duplicate-tensor").
        """
        from transformers.core_model_loading import dot_natural_key

        found: dict[str, list[tuple[str, str | None]]] = {}
        for name in sorted((each for each in tensors if len(each) <= _LONGEST_NAME), key=dot_natural_key):
            target, pattern = self._target(name)
            if target not in self._meta:
                continue
            others = found.setdefault(target, [])
            if others and (pattern is None) != (others[0][1] is None):
                raise BaseModelError(
                    f"{name[:80]!a} and {others[0][0][:80]!a} of the base are both {target}: remove one of them",
                    reason="duplicate-tensor",
                )
            if pattern is not None or not others:  # of two whole tensors for one parameter transformers takes the first
                others.append((name, pattern))
        groups = tuple(self._group(first, members, tensors) for first, members in found.items())
        used = {name for group in groups for name in group.names}
        return groups, tuple(sorted(set(tensors) - used))

    def run(self, group: TensorGroup, tensors: Mapping[str, "Tensor"]) -> Mapping[str, "Tensor"]:
        """What becomes of the tensors of a group: name of a parameter -> its values."""
        if group.is_whole:
            return {group.targets[0]: tensors[group.names[0]]}
        converter = copy.deepcopy(self._by_pattern[group.patterns[0]])
        for name, pattern in zip(group.names, group.patterns, strict=True):
            converter.add_tensor(group.targets[0], name, pattern, tensors[name])
        made = converter.convert(group.targets[0], model=self._model, config=self._model.config)
        return {target: value[0] if isinstance(value, list) else value for target, value in made.items()}

    def _target(self, name: str) -> tuple[str, str | None]:
        """The first parameter that a tensor of this name goes into, and the pattern of its converter, if any."""
        from transformers.core_model_loading import rename_source_key

        prefix, meta = self._model.base_model_prefix, self._meta
        target, pattern = rename_source_key(name, self._renamings, self._converters, prefix, meta)
        if target not in meta and name in meta:
            target, pattern = rename_source_key(name, [], [], prefix, meta)
        return target, pattern

    def _group(
        self, first: str, members: list[tuple[str, str | None]], tensors: Mapping[str, TensorInfo]
    ) -> TensorGroup:
        names, patterns = zip(*members, strict=True)
        group = TensorGroup(names, (first,), patterns)
        if group.is_whole or len(self._by_pattern[patterns[0]].target_patterns) == 1:
            return group
        import torch

        made = self.run(group, {name: torch.empty(tensors[name].shape, device="meta") for name in names})
        return TensorGroup(names, tuple(made), patterns)

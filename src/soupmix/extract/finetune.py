"""A full fine-tune: its parameters minus those of its base; each tensor is read once, and hashed as it is read."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Final

from torch import Tensor

from soupmix.base import read_tensors
from soupmix.base.companions import CONFIG
from soupmix.base.conversion import TensorGroup
from soupmix.base.loading import saying
from soupmix.base.safetensors import digest_of
from soupmix.errors import AdapterError
from soupmix.extract.change import BaseWeights, Change, change, no_numbers
from soupmix.files import strict_json
from soupmix.merge.tensors import DTYPES, TensorReader, raw
from soupmix.sealed import read_sealed

__all__ = ["FineTune"]

_MAX_CONFIG: Final = 1 << 20
_BOOKKEEPING: Final = {"_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version", "use_cache"}


class FineTune:
    """A folder with all weights of a tuned model.

    Attributes:
        warnings: what no adapter can carry, and what was not compared, one sentence each.
    """

    method: ClassVar[str] = "full fine-tune"

    def __init__(self, folder: Path, weights: BaseWeights, reader: TensorReader) -> None:
        self.warnings: list[str] = []
        self._folder, self._weights, self._reader = folder, weights, reader
        self._infos = read_tensors(folder)
        self._hashes: dict[str, str] = {}

    @property
    def digest(self) -> str:
        """Of its tensors, "sha256:<hex>", as `soupmix.base.tensors_digest` has it; known when all were read."""
        return digest_of(self._infos, self._hashes)

    def changes(self) -> Iterator[Change]:
        """What it changes, parameter by parameter; equal ones are passed over.

        Raises:
            AdapterError: it lacks a tensor ("incomplete"), or holds one of another shape ("wrong-base"), in a dtype without
                arithmetic ("dtype"), or with NaN ("not-finite").
            BaseModelError: a file is damaged, or its tensors cannot become the base's model ("cannot-load").
        """
        self._compare_configs()
        with saying(self._folder):
            groups, extra = self._weights.conversion.groups(self._infos)
        self._check_complete({target for group in groups for target in group.targets})
        for group in groups:
            yield from self._of_group(group)
        for name in extra:
            tensor = self._read(name)
            if name in self._weights.unused:
                yield from self._compared(name, name, tensor, self._weights.tensor(name))
        self._say_unused(sorted(set(extra) - self._weights.unused))

    def _of_group(self, group: TensorGroup) -> Iterator[Change]:
        """What the tensors that become one parameter, or several together, change."""
        tensors = {name: self._read(name) for name in group.names}
        numbers = {name: tensor for name, tensor in tensors.items() if tensor is not None}
        if len(numbers) < len(tensors):
            self._check_same(group.names)
            return
        with saying(self._folder):
            made = self._weights.conversion.run(group, numbers)
        for parameter, tuned in made.items():
            yield from self._compared(parameter, group.names[0], tuned, self._weights.value(parameter))

    def _compared(self, parameter: str, name: str, tuned: Tensor | None, before: Tensor | None) -> Iterator[Change]:
        if tuned is None:
            raise no_numbers(name, self._infos[name])
        found = change(parameter, tuned, before, self._weights.linear(parameter.removesuffix(".weight")))
        if found is not None:
            yield found

    def _read(self, name: str) -> Tensor | None:
        """A tensor; None of a dtype without arithmetic. What is hashed are the very bytes."""
        info = self._infos[name]
        if info.dtype in DTYPES:
            tensor = self._reader.read(info)
            self._hashes[name] = hashlib.sha256(raw(tensor)).hexdigest()
            return tensor
        digest = hashlib.sha256()
        for block in self._reader.blocks(info):
            digest.update(raw(block))
        self._hashes[name] = digest.hexdigest()
        return None

    def _check_same(self, names: tuple[str, ...]) -> None:
        for name in names:
            base = self._weights.tensors.get(name)
            if base is None or not self._reader.same(self._infos[name], base):
                raise no_numbers(name, self._infos[name])

    def _check_complete(self, here: set[str]) -> None:
        for parameter in self._weights.groups:
            if not here & set(self._weights.names(parameter)):
                raise AdapterError(
                    f"{self._folder} has no tensor for {parameter}, which the base has: it is incomplete, or was tuned from "
                    "another base",
                    reason="incomplete",
                )

    def _say_unused(self, names: list[str]) -> None:
        if names:
            self.warnings.append(
                f"{self._folder.name} holds {len(names)} tensors that the model does not use, such as {names[0][:80]!a}; they "
                "are not compared"
            )

    def _compare_configs(self) -> None:
        mine, base = _config(self._folder / CONFIG), _config(self._weights.base.folder / CONFIG)
        for key in sorted({*mine, *base} - _BOOKKEEPING):
            if mine.get(key) != base.get(key) and not (_is_off(mine.get(key)) and _is_off(base.get(key))):
                self.warnings.append(
                    f"{CONFIG} says another {key[:60]!a} than the base's, which no adapter can carry: a soup computes as the "
                    "base does"
                )


def _is_off(value: Any) -> bool:
    return value is None or value is False or value in ("", [], {})


def _config(path: Path) -> Mapping[str, Any]:
    data, _ = read_sealed(path.resolve(), cap=_MAX_CONFIG, error=AdapterError)
    try:
        config = strict_json(data)
        if not isinstance(config, dict):
            raise ValueError("it is not an object")
    except (ValueError, RecursionError) as error:
        raise AdapterError(f"{path} cannot be read: {error}", reason="bad-config") from None
    return config

"""How far a training is, on disk: tensors of one step, believed only if they are what was written for the same work."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from soupmix.errors import FileError
from soupmix.files import canonical_json, sha256_file, strict_json, write_file
from soupmix.sealed import read_sealed

__all__ = ["KeptSteps"]

_CAP = 1 << 24


@dataclass(frozen=True, slots=True)
class KeptSteps:
    """The last step that was kept of one piece of work, and the loss of every step so far.

    Args:
        folder: where it is kept; made when something is. work: digest of all that decides the training.
    """

    folder: Path
    work: str

    def save(self, tensors: Mapping[str, Tensor], losses: list[float]) -> None:
        """Keep a step; the step before is there until this one is whole.

        Raises:
            OutputError: the disk refuses.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"{self.work[:24]}-{len(losses):06d}.safetensors"
        write_file(self.folder / name, save({key: value.detach().contiguous() for key, value in tensors.items()}))
        record = {"file": name, "losses": losses, "sha256": sha256_file(self.folder / name), "work": self.work}
        write_file(self._record, canonical_json(record))
        for old in self.folder.glob(f"{self.work[:24]}-*.safetensors"):
            if old.name != name:
                old.unlink(missing_ok=True)

    def load(self, like: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[float]]:
        """The tensors and the losses that were kept; nothing of both if there is nothing to believe.

        Args:
            like: name -> a tensor of the shape and dtype that must have been kept under it, and no others.
        """
        try:
            record: Any = strict_json(read_sealed(self._record, cap=_CAP)[0])
            losses = [float(each) for each in record["losses"]]
            name = f"{self.work[:24]}-{len(losses):06d}.safetensors"
            most = _CAP + sum(each.nbytes for each in like.values())
            content, sha256 = read_sealed(self.folder / name, cap=most)
            if (record["work"], record["file"], record["sha256"]) != (self.work, name, sha256):
                return {}, []
            tensors = load(content)
        except (FileError, OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError):
            return {}, []
        is_whole = _kinds(tensors) == _kinds(like) and all(map(math.isfinite, losses)) and bool(losses)
        return (tensors, losses) if is_whole else ({}, [])

    def forget(self) -> None:
        """Once the work is finished."""
        for path in (self._record, *self.folder.glob(f"{self.work[:24]}-*.safetensors")):
            path.unlink(missing_ok=True)

    @property
    def _record(self) -> Path:
        return self.folder / f"{self.work[:24]}.json"


def _kinds(tensors: Mapping[str, Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (each.shape, each.dtype) for name, each in tensors.items()}

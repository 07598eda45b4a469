"""A base model that was found: a folder to load from, and the digest that says which model it is."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from soupmix.base.companions import companions
from soupmix.base.tensors import TensorInfo, linear_shapes, read_tensors
from soupmix.files import digest_parts, sha256_file
from soupmix.public import public

__all__ = ["Base"]


@public
@dataclass(frozen=True, slots=True)
class Base:
    """A base model on this disk.

    Attributes:
        name: as it was asked for.
        folder: a Hugging Face folder with safetensors weights and a tokenizer.
        digest: "sha256:<hex>" over all tensors, see `soupmix.base.tensors_digest`.
        revision: the revision asked for, of a hub id.
        source: where it came from, for people and for cards.
    """

    name: str
    folder: Path
    digest: str
    revision: str | None
    source: str

    @property
    def label(self) -> str:
        """The name as it may be written into files that leave this machine: never a path."""
        return self.name if self.source.partition(":")[0] not in {"folder", "gguf"} else self.source.partition(":")[2]

    def files_digest(self) -> str:
        """ "sha256:<hex>" over all else that is loaded: config.json, tokenizer, chat template, generation config.

        It is no part of `digest`, which adapters name: their weights belong to these tensors, whatever a later version of
        transformers writes beside them. Computed anew at every call.

        Raises:
            BaseModelError: as `soupmix.base.companions.companions` does.
        """
        parts = {path.name: sha256_file(path) for path in companions(self.folder)}
        return f"sha256:{digest_parts('soupmix.base.files.v1', parts)}"

    def tensors(self) -> Mapping[str, TensorInfo]:
        """Tensor name -> shape, dtype, file and byte range, sorted by name; read from the headers."""
        return read_tensors(self.folder)

    def linear_shapes(self) -> Mapping[str, tuple[int, int]]:
        """Module path ("model.layers.0.self_attn.q_proj") -> (out, in) of every linear layer."""
        return linear_shapes(self.tensors())

    def __repr__(self) -> str:
        return f"<Base {self.name}, {self.digest[:19]}...>"

"""What other rooms know about an adapter: its manifest entry, and its factors in memory."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from soupmix.public import public

__all__ = ["Adapter", "Factors", "LayerForm"]

LayerForm = Literal["linear", "embedding", "vector"]


@public
@dataclass(frozen=True, slots=True)
class Factors:
    """The update of one layer: delta = scaling * B A, and where the adapter is a DoRA, diag(gain) W besides.

    Attributes:
        A: [rank, in] in the dtype of the file.
        B: [out, rank] in the dtype of the file.
        scaling: alpha / rank, or alpha / sqrt(rank) for rsLoRA.
        gain: how much of itself every output of the base's weight W [out, in] gains [out] fp32, or None: nothing.
        kind: what the layer is: "linear", "embedding" (linear in one-hot tokens) or "vector" (of one input, such as a bias).
    """

    A: Tensor
    B: Tensor
    scaling: float
    gain: Tensor | None = None
    kind: LayerForm = "linear"

    @property
    def rank(self) -> int:
        """Number of rank columns."""
        return self.A.shape[0]

    def __repr__(self) -> str:
        return f"<Factors of rank {self.rank}, {self.A.shape[1]} -> {self.B.shape[0]}, scaling {self.scaling:g}>"


@public
@dataclass(frozen=True, slots=True)
class Adapter:
    """One adapter, read and checked.

    Attributes:
        name: its name in the store.
        digest: its identity, see `ManifestEntry.digest`.
        base_digest: digest of the base model it was trained on.
        modules: module path in the base model ("model.layers.0.self_attn.q_proj") -> its factors, sorted by path.
        whole: whether it changes more than factors of linear layers say (whole weights, embeddings, biases, DoRA's lengths), so
            that it is merged into models and no request can have it.
        base_said: what its own config calls the base; None if nothing. For people and other programs, not for finding it.
    """

    name: str
    digest: str
    base_digest: str
    modules: Mapping[str, Factors]
    whole: bool = False
    base_said: str | None = None

    def __repr__(self) -> str:
        return f"<Adapter {self.name} of {len(self.modules)} modules, {self.digest[:19]}...>"

"""The weighted sum of deltas, shortened in every layer by how far they are apart (Model Stock, Jang et al. 2024)."""

from soupmix.merge.methods import Parts, combined, only_factors
from soupmix.merge.methods.angles import lengths_and_cosines
from soupmix.merge.stack import Stack

__all__ = ["stack"]


def stack(path: str, parts: Parts) -> Stack:
    """t sum_k w_k d_k, t = K c / (1 + (K - 1) c), c the mean cosine between pairs of the K deltas, at least 0 (equation 6).

    Raises:
        AdapterError: an adapter changes the layer by more than factors ("whole").
    """
    only_factors("model_stock", path, parts)
    count = len(parts)
    if count == 1:
        return combined(parts, [parts[0].weight])
    _, cosines = lengths_and_cosines(parts)
    mean = max((cosines.sum().item() - count) / (count * (count - 1)), 0.0)
    ratio = count * mean / (1.0 + (count - 1) * mean)
    return combined(parts, [ratio * part.weight for part in parts])

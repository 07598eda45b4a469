"""Continuous batching: requests join and leave a running batch between steps, each row with its own soup.

There are two decode loops on purpose. The one here computes the new tokens of all rows in one forward pass without padding, over
KV slots of its own, and so needs plain causal attention in every layer. `Engine.complete` decodes one left-padded batch and
leaves attention to transformers: it serves models with attention that slots refuse (sliding windows, soft caps), and the tests
hold every answer of this loop to it.
"""

from soupmix.batching.batcher import Batcher, Submission

__all__ = ["Batcher", "Submission"]

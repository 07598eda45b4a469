"""Continuous batching: requests join and leave a running batch between steps, each row with its own soup.

There are two loops. The running one (`slotted`) computes the new tokens of all rows in one forward pass without padding, over
KV slots of its own. It needs models whose every layer that mixes tokens attends through transformers' attention interface, and
`probe` tries that before anybody is served. The padded one (`padded`) serves all others, in rounds of left-padded batches over
the cache that transformers has for them: state-space layers, and attention of a model's own.
"""

from soupmix.batching.batcher import Batcher, Submission
from soupmix.batching.probe import LoopName

__all__ = ["Batcher", "LoopName", "Submission"]

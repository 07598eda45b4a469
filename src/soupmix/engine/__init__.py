"""Request time: soup layers in a transformers model, and a soup per row of the batch.

There are two decode loops on purpose. The one here (`Engine.complete`) decodes one left-padded batch and leaves attention to
transformers: it serves every model that transformers runs, also those whose attention the slots of `soupmix.batching` refuse, and
it is the oracle that the tests hold the running batch to. That one serves requests that come and go at any time.
"""

from soupmix.backends.protocol import Sampling
from soupmix.engine.engine import Completion, Engine, Prompt

__all__ = ["Completion", "Engine", "Prompt", "Sampling"]

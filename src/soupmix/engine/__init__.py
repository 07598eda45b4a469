"""Request time: soup layers in a transformers model, and a soup per row of the batch.

`Engine.complete` decodes left-padded batches and leaves attention to transformers, so it serves every model that transformers
runs, and it is the oracle that the tests hold the running batch (`soupmix.batching`) to. That one serves requests that come and
go at any time.
"""

from soupmix.backends.protocol import Sampling
from soupmix.engine.answers import Completion
from soupmix.engine.engine import Engine
from soupmix.engine.prompts import Prompt

__all__ = ["Completion", "Engine", "Prompt", "Sampling"]

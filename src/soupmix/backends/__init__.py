"""Whoever answers requests: one protocol, and what implements it.

The server and batches know `protocol` and nothing behind it. `local` is the engine of this process with its running batch.
"""

from soupmix.backends.protocol import (
    TALKING,
    Backend,
    CallForm,
    Delta,
    Limits,
    Message,
    Request,
    Sampling,
    State,
    Ticket,
    Token,
    Tool,
    ToolUse,
    Vocabulary,
)

__all__ = [
    "TALKING",
    "Backend",
    "CallForm",
    "Delta",
    "Limits",
    "Message",
    "Request",
    "Sampling",
    "State",
    "Ticket",
    "Token",
    "Tool",
    "ToolUse",
    "Vocabulary",
]

"""Continuous batching: requests join and leave a running batch between steps, each row with its own soup."""

from soupmix.batching.batcher import Batcher, State, Ticket
from soupmix.batching.request import Delta, Limits, Request, Token

__all__ = ["Batcher", "Delta", "Limits", "Request", "State", "Ticket", "Token"]

"""Continuous batching: requests join and leave a running batch between steps, each row with its own soup."""

from soupmix.batching.batcher import Batcher, State, Ticket
from soupmix.batching.request import Limits, Piece, Request, Token

__all__ = ["Batcher", "Limits", "Piece", "Request", "State", "Ticket", "Token"]

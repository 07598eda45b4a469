"""Continuous batching: requests join and leave a running batch between steps, each row with its own soup."""

from soupmix.batching.request import Limits, Piece, Request, Token

__all__ = ["Limits", "Piece", "Request", "Token"]

"""Triton sources and how they are launched. Nothing here is imported before it is needed: triton is large."""

"""Serving over HTTP, and batches of requests from files."""

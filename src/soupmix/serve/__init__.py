"""Serving over HTTP: an OpenAI-compatible server over the running batch, with profiles, keys and policy.

Needs the extra `serve`; nothing here is imported by any other room but the command line, and there only when it runs.
"""

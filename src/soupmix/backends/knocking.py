"""Is there a vLLM server that serves soups, and why does one refuse: what it says to rows that nobody granted."""

import json
from collections.abc import Sequence
from hashlib import sha256

import httpx

from soupmix.errors import BaseModelError, SoupmixError
from soupmix.vllm_plugin.row import FIELD, SoupRow, reason_in

__all__ = ["look", "refusal"]

_CONNECT = 10.0  # seconds


def look(url: str, key: bytes, held: Sequence[tuple[str, str]]) -> tuple[str, int | None]:
    """The name of the model that a server serves, and its longest row, once it is known to serve soups under this key.

    It is sent rows that it must refuse, and how it refuses them tells.
    """
    row = SoupRow.nothing(held)
    try:
        with httpx.Client(timeout=_CONNECT * 6, trust_env=False) as client:
            found = client.get(f"{url}/v1/models").raise_for_status().json()["data"][0]
            said = [_knock(client, url, found["id"], row.seal(each, (1,))) for each in (sha256(key).digest(), key)]
    except (httpx.HTTPError, ValueError, KeyError, IndexError) as error:
        raise BaseModelError(
            f"no vLLM server answers at {url}: {error!r}; start it first", reason="unreachable"
        ) from error
    if said[0] != "forged":
        raise BaseModelError(
            f"the vLLM server at {url} takes a row of weights that nobody granted, so it serves no soups; start it with "
            "soupmix installed and SOUPMIX_VLLM set",
            reason="no-soups",
        )
    wrong = {"forged": "other-key", "other-adapters": "other-adapters", "bad-row": "other-adapters"}.get(said[1])
    if wrong is not None:
        what = "another key" if wrong == "other-key" else "other adapters"
        raise BaseModelError(f"the vLLM server at {url} has {what}; start both with the same", reason=wrong)
    return found["id"], found.get("max_model_len")


def _knock(client: httpx.Client, url: str, model: str, row: str) -> str:
    body = {"model": model, "prompt": [1], "max_tokens": 1, "vllm_xargs": {FIELD: row}}
    response = client.post(f"{url}/v1/completions", json=body)
    return reason_in(_message(response.content)) if response.status_code == 400 else ""


def refusal(url: str, status: int, raw: bytes) -> SoupmixError:
    """What a server said instead of an answer."""
    message = _message(raw)
    return SoupmixError(
        f"the vLLM server at {url} refuses ({status}): {message}", reason=reason_in(message) or "refused"
    )


def _message(raw: bytes) -> str:
    try:
        said = json.loads(raw)
        return str(said["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return raw[:200].decode("utf-8", "replace")

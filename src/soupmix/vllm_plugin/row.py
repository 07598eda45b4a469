"""What a request carries: a row of weights, one for each adapter, and a tag that only holders of the key can make.

The row travels in a request's `vllm_xargs`, under `FIELD`, as base64url of canonical JSON, a dot, and base64url of the tag. The
tag (HMAC-SHA256) is over the row, which names the policy, the adapters and the cache salt, and over the prompt: a row that was
seen on its way fits no other weights, no other policy, no other cache and no other prompt.
"""

import hmac
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import Field

from soupmix.errors import AdapterError, PolicyRefusal, RecipeError
from soupmix.fields import Digest, Edge, Name, Value, read_model
from soupmix.files import canonical_json, digest_parts
from soupmix.policy import Grant
from soupmix.policy.grant import check_grant
from soupmix.sealed import read_sealed

__all__ = ["FIELD", "LEAST_KEY", "SoupRow", "adapters_digest", "read_key", "reason_in"]

FIELD: Final = "soupmix"
"""Name of the row in `vllm_xargs`."""

LEAST_KEY: Final = 32
"""Bytes of the shared key, at least."""

_MOST_KEY, _MOST_ROW, _MOST_WEIGHTS = 4096, 1 << 16, 4096


class SoupRow(Edge):
    """The weights of one request, and what they were granted by.

    Attributes:
        policy: digest of the policy that granted them.
        adapters: digest of the adapters, in the order of the weights, see `adapters_digest`.
        weights: one per adapter [K] in millionths.
        attributes, sources: of the grant, so that the weights can be granted once more.
        salt: the request's cache salt: what is computed for a row is found again only by the same row, with the same salt.
    """

    version: Literal[1] = Field(alias="v")
    policy: Digest
    adapters: Digest
    weights: Annotated[tuple[int, ...], Field(max_length=_MOST_WEIGHTS)]
    attributes: dict[Value, Value] = Field(default_factory=dict)
    sources: str | dict[Name, str] = Field(default_factory=dict)
    salt: Annotated[str, Field(min_length=1, max_length=200)]

    @classmethod
    def of(cls, grant: Grant, adapters: Sequence[tuple[str, str]], salt: str) -> Self:
        """The row of a grant.

        Args:
            adapters: (name, digest) of those that the server holds, in order.

        Raises:
            PolicyError, TypeError: the grant is not as a policy of this process gave it.
            AdapterError: it is for an adapter that the server does not hold (reason "digest-mismatch").
        """
        check_grant(grant, "vLLM")
        held = dict(adapters)
        for name, digest in grant.adapter_digests:
            if held.get(name) != digest:
                raise AdapterError(
                    f"adapter '{name}' {digest} is not one of those that the vLLM server holds; start it with this store",
                    reason="digest-mismatch",
                )
        said = dict(grant.sources)
        made = {
            "v": 1,
            "policy": grant.policy_digest,
            "adapters": adapters_digest(adapters),
            "weights": [grant.granted.get(name, 0) for name, _ in adapters],
            "attributes": grant.attributes,
            "sources": said.get("*", said),
            "salt": salt,
        }
        return cls.model_validate_json(canonical_json(made))

    @classmethod
    def nothing(cls, adapters: Sequence[tuple[str, str]]) -> Self:
        """A row of zeros of no policy, which every server refuses; how, shows whether it serves soups and knows the key."""
        zero = f"sha256:{'0' * 64}"
        made = {"v": 1, "policy": zero, "adapters": adapters_digest(adapters), "salt": "none"}
        return cls.model_validate_json(canonical_json({**made, "weights": [0] * len(adapters)}))

    def seal(self, key: bytes, prompt: Sequence[int]) -> str:
        """The row as text for one prompt, with its tag."""
        body = canonical_json(self.model_dump(mode="json", by_alias=True))
        return f"{_encoded(body)}.{_encoded(_tag(key, body, prompt))}"

    def kept_under(self, key: bytes) -> str:
        """The salt under which a server keeps what it computes for this row, whatever prompt comes with it.

        No request can name it, as it takes the key: by giving the same cache salt neither one without a row nor one with other
        weights finds anything there, or leaves it.
        """
        said = self.model_dump(mode="json", by_alias=True)
        return hmac.digest(key, b"soupmix.kept.v1\0" + canonical_json(said), "sha256").hex()

    @classmethod
    def unseal(cls, text: object, key: bytes, prompt: Sequence[int]) -> Self:
        """The row from its text.

        Raises:
            PolicyRefusal: the tag is not one that a holder of the key made for this row and this prompt (reason "forged").
            RecipeError: it is no row at all ("bad-row").
        """
        if not isinstance(text, str) or len(text) > _MOST_ROW or text.count(".") != 1:
            raise RecipeError(f"`vllm_xargs.{FIELD}` is no row of weights", reason="bad-row")
        body, tag = map(_decoded, text.split("."))
        if not hmac.compare_digest(tag, _tag(key, body, prompt)):
            raise PolicyRefusal(
                "this row of weights was not made for this request by a server that may: ask soupmix, which asks the policy",
                reason="forged",
            )
        try:
            return read_model(cls, body)
        except ValueError as error:
            raise RecipeError(f"`vllm_xargs.{FIELD}` is no row of weights: {error}", reason="bad-row") from None


def adapters_digest(adapters: Sequence[tuple[str, str]]) -> str:
    """ "sha256:<hex>" of (name, digest) of adapters, in order."""
    parts = {f"{number:06d}": f"{name} {digest}" for number, (name, digest) in enumerate(adapters)}
    return f"sha256:{digest_parts('soupmix.row.adapters.v1', parts)}"


def read_key(path: Path) -> bytes:
    """The key that rows are signed with, from a file.

    Raises:
        FileError: it cannot be read, or is no plain file. RecipeError: it is too short (reason "short-key").
    """
    key, _ = read_sealed(path, cap=_MOST_KEY)
    if len(key) < LEAST_KEY:
        raise RecipeError(
            f"the key in {path} has {len(key)} bytes, and needs at least {LEAST_KEY}; make one with "
            f"`head -c {LEAST_KEY} /dev/urandom > {path.name}`",
            reason="short-key",
        )
    return key


def _tag(key: bytes, body: bytes, prompt: Sequence[int]) -> bytes:
    tokens = sha256(b"".join(int(token).to_bytes(8, "little", signed=True) for token in prompt)).hexdigest()
    said = digest_parts("soupmix.row.v1", {"row": sha256(body).hexdigest(), "prompt": tokens})
    return hmac.digest(key, said.encode(), "sha256")


def _encoded(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")


def _decoded(text: str) -> bytes:
    try:
        return urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        raise RecipeError(f"`vllm_xargs.{FIELD}` is no row of weights", reason="bad-row") from None


def reason_in(message: str) -> str:
    """The reason at the end of a refusal as vLLM's clients read it: "... [forged]"; "" if there is none."""
    found = re.search(r"\[([a-z-]+)\]$", message)
    return found[1] if found else ""

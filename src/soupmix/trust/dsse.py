"""DSSE envelopes (Dead Simple Signing Envelope, v1): three JSON keys around a payload. No cryptography here."""

import base64
import binascii
from dataclasses import dataclass, replace
from typing import Any, Final

from soupmix.files import canonical_json, strict_json

__all__ = ["IN_TOTO", "Envelope", "pae"]

IN_TOTO: Final = "application/vnd.in-toto+json"
_KEYS: Final = {"payload", "payloadType", "signatures"}


def pae(payload_type: str, payload: bytes) -> bytes:
    """What is signed (pre-authentication encoding): type and payload, length-prefixed so that neither can pose as the other."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


@dataclass(frozen=True, slots=True)
class Envelope:
    """A payload and who signed it.

    Attributes:
        payload: the bytes. signatures: (keyid, base64 signature) pairs; none says openly that nobody signed.
        payload_type: what the payload is.
    """

    payload: bytes
    signatures: tuple[tuple[str, str], ...] = ()
    payload_type: str = IN_TOTO

    @classmethod
    def from_bytes(cls, data: bytes) -> "Envelope":
        """Parse strictly. Raises `ValueError` saying what is wrong."""
        try:
            content = strict_json(data)
        except RecursionError as error:
            raise ValueError("nested too deeply") from error
        if not isinstance(content, dict) or content.keys() != _KEYS or not isinstance(content["payloadType"], str):
            raise ValueError(f"an envelope has exactly the keys {', '.join(sorted(_KEYS))}")
        if not isinstance(content["signatures"], list):
            raise ValueError("signatures must be a list")
        payload = _decoded(content["payload"])
        return cls(payload, tuple(_signature(each) for each in content["signatures"]), content["payloadType"])

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "payload": base64.b64encode(self.payload).decode("ascii"),
            "payloadType": self.payload_type,
            "signatures": [{"keyid": keyid, "sig": sig} for keyid, sig in self.signatures],
        }

    def to_bytes(self) -> bytes:
        """The one spelling of this envelope; the same content gives the same bytes."""
        return canonical_json(self.to_dict())

    def unsigned(self) -> "Envelope":
        """The same payload without signatures: what can be repeated without anybody's key."""
        return replace(self, signatures=())


def _signature(value: object) -> tuple[str, str]:
    if not isinstance(value, dict) or value.keys() != {"keyid", "sig"} or not isinstance(value["keyid"], str):
        raise ValueError("a signature has exactly the keys keyid and sig")
    _decoded(value["sig"])
    return value["keyid"], value["sig"]


def _decoded(text: object) -> bytes:
    if not isinstance(text, str):
        raise ValueError("expected base64 text")
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"not base64: {error}") from error

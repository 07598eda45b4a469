"""What is signed and the form it travels in: DSSE envelopes, and the bundle around one that signs a model. No cryptography.

An envelope (Dead Simple Signing Envelope, v1) is three JSON keys around a payload. An OpenSSF model signature is one inside a
sigstore bundle (v0.3): https://github.com/sigstore/model-transparency, predicate https://model_signing/signature/v1.0.
"""

import base64
import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any, Final

from soupmix.files import canonical_json, strict_json

__all__ = ["IN_TOTO", "MODEL_SIGNATURE", "Envelope", "bundle", "pae", "signed_resources", "statement"]

IN_TOTO: Final = "application/vnd.in-toto+json"
MODEL_SIGNATURE: Final = "model.sig"
_PREDICATE: Final = "https://model_signing/signature/v1.0"
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


def statement(name: str, digests: Mapping[str, str]) -> bytes:
    """The in-toto statement over a folder.

    Args:
        name: of the folder. digests: file -> hex SHA-256 of its bytes. The subject's digest is the SHA-256 over all of
            them (as bytes), in the order of the file names.
    """
    files = sorted(digests, key=PurePosixPath)
    whole = hashlib.sha256(b"".join(bytes.fromhex(digests[file]) for file in files)).hexdigest()
    resources = [{"algorithm": "sha256", "digest": digests[file], "name": file} for file in files]
    serialization = {"allow_symlinks": False, "hash_type": "sha256", "ignore_paths": [], "method": "files"}
    content = {
        "_type": "https://in-toto.io/Statement/v1",
        "predicate": {"resources": resources, "serialization": serialization},
        "predicateType": _PREDICATE,
        "subject": [{"digest": {"sha256": whole}, "name": name}],
    }
    return canonical_json(content)


def bundle(payload: bytes, signature: bytes, public_pem: bytes) -> bytes:
    """A sigstore bundle around a signed statement; the hint is the digest of the public key's PEM."""
    content = {
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode("ascii"),
            "payloadType": IN_TOTO,
            "signatures": [{"keyid": "", "sig": base64.b64encode(signature).decode("ascii")}],
        },
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {"publicKey": {"hint": hashlib.sha256(public_pem).hexdigest()}, "tlogEntries": []},
    }
    return canonical_json(content)


def signed_resources(data: bytes) -> dict[str, str]:
    """File -> hex SHA-256 as a bundle states it; whether the signature is good is for a verifier with the key to say.

    Raises:
        ValueError: this is no such bundle.
    """
    try:
        payload = strict_json(base64.b64decode(strict_json(data)["dsseEnvelope"]["payload"], validate=True))
        if payload["predicateType"] != _PREDICATE:
            raise ValueError(f"the predicate is not {_PREDICATE}")
        resources: list[dict[str, Any]] = payload["predicate"]["resources"]
        return {str(each["name"]): str(each["digest"]) for each in resources}
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError("not a bundle with a model signature") from error


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

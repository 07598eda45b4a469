"""OpenSSF model signatures as files: the statement that is signed, and the sigstore bundle (v0.3) around it. No cryptography.

Format: https://github.com/sigstore/model-transparency, predicate https://model_signing/signature/v1.0.
"""

import base64
import hashlib
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, Final

from soupmix.files import canonical_json, strict_json
from soupmix.trust.dsse import IN_TOTO

__all__ = ["MODEL_SIGNATURE", "bundle", "signed_resources", "statement"]

MODEL_SIGNATURE: Final = "model.sig"
_PREDICATE: Final = "https://model_signing/signature/v1.0"


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

"""Ed25519 keys that sign checkpoints and check them; the one place that needs the extra `audit` (cryptography)."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from soupmix.errors import AuditError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

    from soupmix.audit.notes import Checkpoint

__all__ = ["Signer", "Verifier"]

_ED25519 = b"\1"


@dataclass(frozen=True, slots=True)
class Signer:
    """A private key; `load` it from an unencrypted PEM file."""

    _key: "Ed25519PrivateKey"

    @classmethod
    def load(cls, path: Path) -> "Signer":
        """Raises `AuditError` if the file is no private Ed25519 key (reason "bad-key") or cryptography is missing."""
        serialization, ed25519 = _cryptography()
        try:
            key = serialization.load_pem_private_key(_read(path), password=None)
        except (ValueError, TypeError) as error:  # TypeError: it is encrypted
            raise AuditError(f"{path} is no private key in plain PEM: {error}", reason="bad-key") from None
        if not isinstance(key, ed25519.Ed25519PrivateKey):
            raise AuditError(f"{path} holds another kind of key; an Ed25519 key is needed", reason="bad-key")
        return cls(key)

    def sign(self, name: str, body: bytes) -> bytes:
        """The signature of a note by a key of that name: 4 bytes that tell keys apart, then Ed25519's 64."""
        return _key_id(name, self._key.public_key()) + self._key.sign(body)


@dataclass(frozen=True, slots=True)
class Verifier:
    """Public keys, one of which must have signed; `load` them from PEM files."""

    _keys: tuple["Ed25519PublicKey", ...]

    @classmethod
    def load(cls, paths: Sequence[Path]) -> "Verifier":
        """Raises `AuditError` if a file is no public Ed25519 key (reason "bad-key") or cryptography is missing."""
        serialization, ed25519 = _cryptography()
        keys = []
        for path in paths:
            try:
                key = serialization.load_pem_public_key(_read(path))
            except ValueError as error:
                raise AuditError(f"{path} is no public key in PEM: {error}", reason="bad-key") from None
            if not isinstance(key, ed25519.Ed25519PublicKey):
                raise AuditError(f"{path} holds another kind of key; an Ed25519 key is needed", reason="bad-key")
            keys.append(key)
        return cls(tuple(keys))

    def check(self, checkpoint: "Checkpoint") -> None:
        """Raises `AuditError` if none of the keys signed this checkpoint (reason "unsigned" or "bad-signature")."""
        from cryptography.exceptions import InvalidSignature

        found = checkpoint.signatures.get(checkpoint.origin)
        if found is None:
            raise AuditError(f"the checkpoint at {checkpoint.size} records is not signed", reason="unsigned")
        for key in self._keys:
            if found[:4] == _key_id(checkpoint.origin, key):
                try:
                    key.verify(found[4:], checkpoint.body())
                except InvalidSignature:
                    continue
                return
        raise AuditError(
            f"the checkpoint at {checkpoint.size} records has no good signature by the key given",
            reason="bad-signature",
        )


def _key_id(name: str, key: "Ed25519PublicKey") -> bytes:
    """The first 4 bytes of SHA-256(name, newline, algorithm, public key), as in C2SP's signed-note."""
    return sha256(name.encode() + b"\n" + _ED25519 + key.public_bytes_raw()).digest()[:4]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise AuditError(f"cannot read key {path}: {error.strerror or error}", reason="bad-key") from None


def _cryptography() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError:
        raise AuditError(
            "signing and checking checkpoints needs the package cryptography: pip install 'soupmix[audit]'",
            reason="no-cryptography",
        ) from None
    return serialization, ed25519

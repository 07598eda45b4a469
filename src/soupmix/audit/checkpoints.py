"""Checkpoints: where a log stood, as a signed note that an outsider can keep, and the keys that sign and check it.

    soupmix.audit/<id of the log>          origin
    <number of records>
    <root of the RFC 6962 tree, base64>
    last <hash of the last record, base64>
    frontier <roots of the complete subtrees, base64> ...

    — <name of the key> <base64 of 4 bytes that tell keys apart, and the Ed25519 signature>

The form is that of C2SP's signed-note and tlog-checkpoint; the lines `last` and `frontier` let a log go on from here
without reading everything before. Signing and checking need the extra `audit` (cryptography), the rest does not.
"""

import binascii
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from soupmix.audit.merkle import Tree
from soupmix.audit.records import Chain
from soupmix.errors import AuditError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

__all__ = ["Checkpoint", "Signer", "Verifier"]

_ED25519 = b"\1"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where a log stood.

    Attributes:
        origin: which log. size: number of records. root: of their tree. last: leaf hash of the last record.
        frontier: roots of the complete subtrees, largest first.
        signatures: name of the key -> 4 bytes that tell keys apart, and the signature.
    """

    origin: str
    size: int
    root: bytes
    last: bytes
    frontier: tuple[bytes, ...]
    signatures: Mapping[str, bytes]

    @classmethod
    def of(cls, origin: str, chain: Chain) -> "Checkpoint":
        """Where a chain stands, not signed."""
        return cls(origin, chain.tree.size, chain.tree.root(), chain.last, tuple(chain.tree.frontier), {})

    def signed(self, signer: "Signer") -> "Checkpoint":
        """The same, signed."""
        return replace(self, signatures={**self.signatures, self.origin: signer.sign(self.origin, self.body())})

    def chain(self) -> Chain:
        """A chain that stands where this checkpoint does."""
        made = Chain(self.origin)
        made.tree, made.last = Tree(self.size, self.frontier), self.last
        return made

    def body(self) -> bytes:
        """What is signed: every line before the empty one."""
        frontier = " ".join(["frontier", *map(_text, self.frontier)])
        return "\n".join(
            [self.origin, str(self.size), _text(self.root), f"last {_text(self.last)}", frontier, ""]
        ).encode()

    def text(self) -> str:
        """The whole note."""
        return (
            self.body().decode() + "\n" + "".join(f"— {name} {_text(raw)}\n" for name, raw in self.signatures.items())
        )

    @classmethod
    def parse(cls, text: str) -> "Checkpoint":
        """The checkpoint of a note.

        Raises:
            AuditError: this is none, or it contradicts itself (reason "bad-checkpoint").
        """
        try:
            body, signatures = text.split("\n\n", 1)
            origin, size, root, last, frontier = body.split("\n")
            made = cls(
                origin,
                int(size),
                _bytes(root),
                _bytes(last.removeprefix("last ")),
                tuple(map(_bytes, frontier.split(" ")[1:])),
                dict(_signature(line) for line in signatures.splitlines()),
            )
            if made.chain().tree.root() != made.root or made.text() != text:
                raise ValueError("it contradicts itself")
        except (ValueError, binascii.Error) as error:
            raise AuditError(f"this is no checkpoint of an audit log: {error}", reason="bad-checkpoint") from None
        return made


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
            except ValueError:
                raise AuditError(f"{path} is no public key in PEM", reason="bad-key") from None
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


def _signature(line: str) -> tuple[str, bytes]:
    dash, name, raw = line.split(" ")
    if dash != "—":
        raise ValueError("a signature starts with a dash")
    return name, _bytes(raw)


def _text(raw: bytes) -> str:
    return b64encode(raw).decode("ascii")


def _bytes(text: str) -> bytes:
    return b64decode(text, validate=True)


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

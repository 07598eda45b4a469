"""Keys in files, a private PEM that only its owner can read and a public one for everybody; and envelopes signed by them."""

import base64
import os
import stat
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from securesystemslib import dsse
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, Signature, SSlibKey

from soupmix.errors import OutputError, RecipeError
from soupmix.files import write_file
from soupmix.trust.dsse import Envelope, pae

__all__ = [
    "KINDS",
    "PrivateKey",
    "generate_key",
    "load_private",
    "read_private",
    "read_public",
    "sign_envelope",
    "verify_envelope",
]

PrivateKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey

KINDS: Final = ("ed25519", "ecdsa-p256")
_LARGEST: Final = 64 << 10
_PEM, _PLAIN = serialization.Encoding.PEM, serialization.NoEncryption()
_PKCS8, _SPKI = serialization.PrivateFormat.PKCS8, serialization.PublicFormat.SubjectPublicKeyInfo


def generate_key(path: str | Path, *, kind: str = "ed25519") -> Path:
    """Make a key pair: `path` (private, mode 0600) and beside it `NAME.pub.pem` (public), whose path is returned.

    Args:
        kind: "ed25519" for signed sets and provenance, "ecdsa-p256" for OpenSSF model signatures.

    Raises:
        RecipeError: there is no such kind ("unknown-kind").
        OutputError: one of the files exists ("exists"), as a key that is gone cannot be made again; or the disk refuses.
    """
    private, public = Path(path), Path(path).with_suffix(".pub.pem")
    if kind not in KINDS:
        raise RecipeError(f"unknown kind of key {kind!r}; known are {', '.join(KINDS)}", reason="unknown-kind")
    for file in (private, public):
        if file.exists() or file.is_symlink():
            raise OutputError(f"{file} exists already; keys are never replaced, choose another name", reason="exists")
    key: PrivateKey = (
        ed25519.Ed25519PrivateKey.generate() if kind == "ed25519" else ec.generate_private_key(ec.SECP256R1())
    )
    write_file(private, key.private_bytes(_PEM, _PKCS8, _PLAIN), mode=0o600)
    write_file(public, key.public_key().public_bytes(_PEM, _SPKI))
    return public


def load_private(path: str | Path) -> PrivateKey:
    """The private key of a PEM file.

    Raises:
        RecipeError: it cannot be read ("unreadable"), others than its owner may read it ("key-exposed"), or it holds no
            unencrypted Ed25519 or ECDSA P-256 private key ("bad-key").
    """
    data, mode = _read(Path(path))
    if mode & 0o077:
        raise RecipeError(
            f"private key {path} may be read by others than its owner; chmod 600 it, and think about who has read it",
            reason="key-exposed",
        )
    try:
        key = serialization.load_pem_private_key(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _bad(path, "private") from error
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1):
        return key
    raise _bad(path, "private")


def read_private(path: str | Path) -> CryptoSigner:
    """A signer from a private key file; raises as `load_private`."""
    return CryptoSigner(load_private(path))


def read_public(path: str | Path) -> SSlibKey:
    """A public key from its PEM file, or the public half of a private one; raises as `load_private`."""
    data, _ = _read(Path(path))
    if b"PRIVATE KEY-----" in data:
        public: SSlibKey = read_private(path).public_key
        return public
    try:
        key = serialization.load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _bad(path, "public") from error
    if isinstance(key, ed25519.Ed25519PublicKey):
        return SSlibKey.from_crypto(key)
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        return SSlibKey.from_crypto(key)
    raise _bad(path, "public")


def sign_envelope(envelope: Envelope, signer: CryptoSigner) -> Envelope:
    """The same envelope with one more signature."""
    made = signer.sign(pae(envelope.payload_type, envelope.payload))
    text = base64.b64encode(bytes.fromhex(made.signature)).decode("ascii")
    return Envelope(envelope.payload, (*envelope.signatures, (made.keyid, text)), envelope.payload_type)


def verify_envelope(envelope: Envelope, key: SSlibKey) -> bool:
    """Whether `key` signed this payload as this type."""
    signatures = {
        str(number): Signature(keyid, base64.b64decode(sig).hex())
        for number, (keyid, sig) in enumerate(envelope.signatures)
    }
    try:
        dsse.Envelope(envelope.payload, envelope.payload_type, signatures).verify([key], 1)
    except VerificationError:
        return False
    return True


def _read(path: Path) -> tuple[bytes, int]:
    try:
        with path.open("rb") as file:
            return file.read(_LARGEST), stat.S_IMODE(os.fstat(file.fileno()).st_mode)
    except OSError as error:
        raise RecipeError(f"key {path} cannot be read: {error.strerror}", reason="unreadable") from error


def _bad(path: str | Path, half: str) -> RecipeError:
    return RecipeError(
        f"{path} holds no {half} key that soupmix uses: unencrypted PEM, {' or '.join(KINDS)}; "
        "`soupmix trust keygen` makes one",
        reason="bad-key",
    )

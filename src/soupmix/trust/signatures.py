"""Signing envelopes, and checking who signed one."""

import base64

from securesystemslib import dsse
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, Signature, SSlibKey

from soupmix.trust.dsse import Envelope, pae

__all__ = ["sign_envelope", "verify_envelope"]


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

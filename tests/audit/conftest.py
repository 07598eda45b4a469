"""Logs of a few records, and keys, for the tests of the audit room."""

from collections.abc import Callable
from pathlib import Path

import pytest

from soupmix.audit import AuditLog, Signer, Verifier
from tests.support.audit_entries import NOON, entry


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a log is going to be."""
    return tmp_path / "log"


@pytest.fixture
def fill() -> Callable[..., AuditLog]:
    """Open a log and append so many records of three people; the clock stands still."""

    def make(folder: Path, count: int, **options: object) -> AuditLog:
        log = AuditLog.open(folder, **{"clock": lambda: NOON, **options})  # type: ignore[arg-type]
        for number in range(count):
            log.append(entry(number, f"person {number % 3}"))
        return log

    return make


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Path]]:
    """Ed25519 key files by name: private and public."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    home = tmp_path_factory.mktemp("keys")

    def make(name: str) -> tuple[Path, Path]:
        private, public = home / f"{name}.pem", home / f"{name}.pub.pem"
        if not private.exists():
            key = Ed25519PrivateKey.generate()
            pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
            private.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
            info = serialization.PublicFormat.SubjectPublicKeyInfo
            public.write_bytes(key.public_key().public_bytes(pem, info))
        return private, public

    return make


@pytest.fixture(scope="session")
def signer(keys: Callable[[str], tuple[Path, Path]]) -> Signer:
    """Signs the checkpoints of a test."""
    return Signer.load(keys("ours")[0])


@pytest.fixture(scope="session")
def verifier(keys: Callable[[str], tuple[Path, Path]]) -> Verifier:
    """Knows the public key of `signer`."""
    return Verifier.load([keys("ours")[1]])

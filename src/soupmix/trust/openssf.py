"""Signing a model folder so that `model_signing verify key` (OpenSSF) accepts it, with nothing but `cryptography`."""

from collections.abc import Mapping
from pathlib import Path

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from soupmix.errors import OutputError, RecipeError
from soupmix.files import sha256_file, write_file
from soupmix.trust.dsse import IN_TOTO, MODEL_SIGNATURE, bundle, pae, statement
from soupmix.trust.keys import PrivateKey, load_private

__all__ = ["load_model_key", "sign_folder", "sign_model"]


def load_model_key(path: str | Path) -> ec.EllipticCurvePrivateKey:
    """The ECDSA P-256 key of a file.

    Raises:
        RecipeError: as `load_private`, or it is a key of another kind ("wrong-kind").
    """
    key: PrivateKey = load_private(path)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise RecipeError(
            f"{path} is an Ed25519 key, and OpenSSF model signatures with keys are ECDSA: make one with "
            "`soupmix trust keygen --kind ecdsa-p256`",
            reason="wrong-kind",
        )
    return key


def sign_model(name: str, digests: Mapping[str, str], key: ec.EllipticCurvePrivateKey) -> bytes:
    """`model.sig` over files with known digests; the same key and files give the same bytes (RFC 6979).

    Args:
        name: of the folder. digests: file -> hex SHA-256.
    """
    payload = statement(name, digests)
    algorithm = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return bundle(payload, key.sign(pae(IN_TOTO, payload), algorithm), public)


def sign_folder(folder: str | Path, key: str | Path) -> Path:
    """Write `model.sig` into a finished folder, over every other file in it; gives its path.

    Raises:
        RecipeError: a bad key, or the folder holds something that is no plain file ("not-a-file").
        OutputError: the folder cannot be read or written.
    """
    folder, private = Path(folder), load_model_key(key)
    try:
        digests = {path.name: sha256_file(_plain(path)) for path in folder.iterdir() if path.name != MODEL_SIGNATURE}
    except OSError as error:
        raise OutputError(f"{folder} cannot be signed: {error.strerror}", reason="unreadable") from error
    write_file(folder / MODEL_SIGNATURE, sign_model(folder.resolve().name, digests, private))
    return folder / MODEL_SIGNATURE


def _plain(path: Path) -> Path:
    if path.is_symlink() or not path.is_file() or path.name.startswith(".git"):
        raise RecipeError(
            f"{path} is no plain file; only folders of plain files are signed, without links, folders and git's own files",
            reason="not-a-file",
        )
    return path

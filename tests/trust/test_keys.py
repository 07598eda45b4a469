"""Key files and envelopes."""

import base64
import json
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

import soupmix.trust
from soupmix.errors import OutputError, RecipeError
from soupmix.trust import Envelope, generate_key, read_private, read_public, sign_envelope, verify_envelope


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa-p256"])
def test_a_key_pair_on_disk(tmp_path: Path, kind: str) -> None:
    public = generate_key(tmp_path / "a.pem", kind=kind)
    assert public == tmp_path / "a.pub.pem"
    assert (tmp_path / "a.pem").stat().st_mode & 0o777 == 0o600
    assert b"PRIVATE" not in public.read_bytes()
    signer = read_private(tmp_path / "a.pem")
    assert signer.public_key.keyid == read_public(public).keyid == read_public(tmp_path / "a.pem").keyid
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pem", "a.pub.pem"]
    envelope = sign_envelope(Envelope(b"payload"), signer)
    assert verify_envelope(Envelope.from_bytes(envelope.to_bytes()), read_public(public))


@pytest.mark.parametrize("name", ["a.pem", "a.pub.pem"])
def test_keys_are_never_replaced(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("precious")
    with pytest.raises(OutputError) as caught:
        generate_key(tmp_path / "a.pem")
    assert caught.value.reason == "exists"
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_what_is_no_key_is_refused(tmp_path: Path) -> None:
    public = generate_key(tmp_path / "a.pem")
    pem = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    other = rsa.generate_private_key(65537, 2048)
    (tmp_path / "rsa.pem").write_bytes(other.private_bytes(*pem, serialization.NoEncryption()))
    locked = read_private(tmp_path / "a.pem")._private_key.private_bytes(
        *pem, serialization.BestAvailableEncryption(b"x")
    )
    (tmp_path / "locked.pem").write_bytes(locked)
    (tmp_path / "junk.pem").write_bytes(b"\0" * 100)
    for path in tmp_path.iterdir():
        path.chmod(0o600)
    for name in ("rsa.pem", "locked.pem", "junk.pem", public.name):
        with pytest.raises(RecipeError) as caught:
            read_private(tmp_path / name)
        assert caught.value.reason == "bad-key"
    with pytest.raises(RecipeError) as caught:
        read_public(tmp_path / "junk.pem")
    assert caught.value.reason == "bad-key"
    with pytest.raises(RecipeError) as caught:
        read_private(tmp_path / "gone.pem")
    assert caught.value.reason == "unreadable"
    (tmp_path / "a.pem").chmod(0o640)
    with pytest.raises(RecipeError) as caught:
        read_private(tmp_path / "a.pem")
    assert caught.value.reason == "key-exposed"
    with pytest.raises(RecipeError) as caught:
        generate_key(tmp_path / "b.pem", kind="rsa")
    assert caught.value.reason == "unknown-kind"


def test_a_signature_is_over_type_and_payload_as_the_format_says(tmp_path: Path) -> None:
    """Checked with the bare primitive, over bytes put together here."""
    generate_key(tmp_path / "a.pem")
    signer = read_private(tmp_path / "a.pem")
    made = json.loads(sign_envelope(Envelope(b'{"a": 1}'), signer).to_bytes())
    public = serialization.load_pem_public_key((tmp_path / "a.pub.pem").read_bytes())
    signature = base64.b64decode(made["signatures"][0]["sig"])
    public.verify(signature, b'DSSEv1 28 application/vnd.in-toto+json 8 {"a": 1}')
    with pytest.raises(InvalidSignature):
        public.verify(signature, b'DSSEv1 28 application/vnd.in-toto+json 8 {"a": 2}')
    assert made["payloadType"] == "application/vnd.in-toto+json"


def test_only_the_right_key_over_the_right_bytes(tmp_path: Path) -> None:
    keys = [read_private(_made(tmp_path / f"{name}.pem")) for name in "ab"]
    signed = sign_envelope(Envelope(b"payload"), keys[0])
    assert verify_envelope(signed, keys[0].public_key)
    assert not verify_envelope(signed, keys[1].public_key)
    assert not verify_envelope(signed.unsigned(), keys[0].public_key)
    assert not verify_envelope(Envelope(b"payloae", signed.signatures), keys[0].public_key)
    assert not verify_envelope(Envelope(b"payload", signed.signatures, "text/plain"), keys[0].public_key)
    both = sign_envelope(signed, keys[1])
    assert all(verify_envelope(both, key.public_key) for key in keys)
    forged = Envelope(b"payload", ((keys[1].public_key.keyid, signed.signatures[0][1]),))
    assert not verify_envelope(forged, keys[1].public_key)


def _made(path: Path) -> Path:
    generate_key(path)
    return path


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "[" * 100_000,
        '{"payload": "", "payloadType": "x", "signatures": [], "more": 1}',
        '{"payload": "", "payload": "", "payloadType": "x", "signatures": []}',
        '{"payload": "*", "payloadType": "x", "signatures": []}',
        '{"payload": 1, "payloadType": "x", "signatures": []}',
        '{"payload": "", "payloadType": 1, "signatures": []}',
        '{"payload": "", "payloadType": "x", "signatures": {}}',
        '{"payload": "", "payloadType": "x", "signatures": [{"sig": ""}]}',
        '{"payload": "", "payloadType": "x", "signatures": [{"sig": "*", "keyid": ""}]}',
    ],
)
def test_what_is_no_envelope_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Envelope.from_bytes(text.encode())


def test_without_the_extra_it_is_one_sentence() -> None:
    code = (
        "import sys\n"
        "for name in ('tuf', 'securesystemslib', 'cryptography'): sys.modules[name] = None\n"
        "sys.argv = ['soupmix', 'trust', 'keygen', 'never.pem']\n"
        "from soupmix.cli import main\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pip install 'soupmix[trust]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_public_names_are_sorted_and_exist() -> None:
    assert list(soupmix.trust.__all__) == sorted(soupmix.trust.__all__)
    assert all(callable(getattr(soupmix.trust, name)) for name in soupmix.trust.__all__)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = soupmix.trust.nonsense  # type: ignore[attr-defined]

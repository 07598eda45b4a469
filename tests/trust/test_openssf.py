"""model.sig in the eyes of OpenSSF's own verifier, which lives in an environment of its own."""

import subprocess
import sys
import venv
from pathlib import Path

import pytest

from soupmix.trust import generate_key, sign_folder


@pytest.fixture(scope="module")
def verifier(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The Python of an environment with model-signing; pyOpenSSL because 1.1.1 imports it and does not ask for it."""
    folder = tmp_path_factory.mktemp("verifier")
    venv.create(folder, with_pip=True, clear=True)
    python = str(folder / "bin/python")
    wanted = ["model-signing==1.1.1", "pyOpenSSL"]
    subprocess.run([python, "-m", "pip", "install", "--quiet", *wanted], check=True)
    return python


def verdict(python: str, folder: Path, public: Path) -> "subprocess.CompletedProcess[str]":
    words = ["verify", "key", folder, "--signature", folder / "model.sig", "--public_key", public]
    return subprocess.run(
        [python, "-m", "model_signing", *map(str, words)], capture_output=True, text=True, timeout=300, check=False
    )


@pytest.mark.slow
def test_its_own_verifier_accepts_it_and_notices_one_byte(verifier: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for name, data in {
        "a.safetensors": b"\0" * 5000,
        "config.json": b"{}",
        "README.md": b"# m",
        "Z": b"",
        "a-b": b"1",
    }.items():
        (folder / name).write_bytes(data)
    public = generate_key(tmp_path / "key.pem", kind="ecdsa-p256")
    sign_folder(folder, tmp_path / "key.pem")
    done = verdict(verifier, folder, public)
    assert done.returncode == 0, done.stdout + done.stderr
    stranger = generate_key(tmp_path / "stranger.pem", kind="ecdsa-p256")
    assert verdict(verifier, folder, stranger).returncode != 0
    (folder / "extra").write_bytes(b"")
    assert verdict(verifier, folder, public).returncode != 0
    (folder / "extra").unlink()
    assert verdict(verifier, folder, public).returncode == 0
    with (folder / "a.safetensors").open("ab") as file:
        file.write(b"\0")
    assert verdict(verifier, folder, public).returncode != 0


@pytest.mark.slow
def test_what_the_command_line_signs_is_accepted(verifier: str, tmp_path: Path) -> None:
    """A merged adapter, signed while it is written and signed again afterwards."""
    soupmix = [sys.executable, "-c", "from soupmix.cli import run; run()"]
    merge = ["merge", "-w", "friendly=0.5", "--sign-model", "key.pem", "soup"]
    for words in (
        ["trust", "keygen", "key.pem", "--kind", "ecdsa-p256"],
        merge,
        ["trust", "sign-model", "soup", "key.pem"],
    ):
        subprocess.run([*soupmix, *words], cwd=tmp_path, check=True)
        if (tmp_path / "soup").exists():
            done = verdict(verifier, tmp_path / "soup", tmp_path / "key.pub.pem")
            assert done.returncode == 0, done.stdout + done.stderr

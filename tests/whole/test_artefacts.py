"""What is written is what was written before: every file that soupmix makes, byte for byte, against a committed list.

A change that is meant to change bytes writes the list anew with SOUPMIX_UPDATE=1, and says so in the CHANGELOG.
"""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
SCRIPT, GOLDEN = TESTS / "support" / "artefacts.py", TESTS / "golden" / "artefacts.json"


def digests(folder: Path) -> dict[str, str]:
    """File -> hex SHA-256 of everything in a folder but empty files, which are locks."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.stat().st_size)
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_every_byte_is_as_it_was(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONHASHSEED": "random", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    done = subprocess.run([sys.executable, SCRIPT, tmp_path / "out"], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    made = digests(tmp_path / "out")
    if os.environ.get("SOUPMIX_UPDATE"):
        GOLDEN.write_text(json.dumps(made, indent=2) + "\n")
    expected = json.loads(GOLDEN.read_text())
    assert [name for name in sorted(made.keys() | expected.keys()) if made.get(name) != expected.get(name)] == []

"""These tests execute the Triton sources on the CPU: `make test` runs them with TRITON_INTERPRET=1, once per Triton version."""

import os
import sys
from pathlib import Path

collect_ignore_glob: list[str] = []

if os.environ.get("TRITON_INTERPRET") == "1":
    sys.path.insert(0, str(Path(__file__).parent))
    os.environ["SOUPMIX_KERNELS"] = "triton"
    import watch

    watch.install()
else:  # Triton fixes the mode when it is first imported, so both cannot live in one process
    collect_ignore_glob.append("test_*.py")

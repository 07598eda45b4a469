"""These tests execute the Triton sources on the CPU: `make test` runs them with TRITON_INTERPRET=1, once per Triton version."""

import os

collect_ignore_glob: list[str] = []

if os.environ.get("TRITON_INTERPRET") == "1":
    os.environ["SOUPMIX_KERNELS"] = "triton"
    from tests.support import watch

    watch.install()
else:  # Triton fixes the mode when it is first imported, so both cannot live in one process
    collect_ignore_glob.append("test_*.py")

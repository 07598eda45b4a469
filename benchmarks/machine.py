"""What a benchmark ran on, as every page says it."""

import os
import platform
import re
from pathlib import Path

_TELLING = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_bf16": "AVX512-BF16",
    "amx_bf16": "AMX-BF16",
    "amx_fp16": "AMX-FP16",
}


def processor() -> str:
    """The processor's name, and those of its instructions that decide how matrices are multiplied.

    A virtual machine may hide the name, never the instructions.
    """
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    name, flags = (re.search(rf"^{key}\s*:\s*(.+)", text, re.MULTILINE) for key in ("model name", "flags"))
    here = set(flags[1].split()) if flags else set()
    told = [word for flag, word in _TELLING.items() if flag in here]
    emulated = os.environ.get("AMX_MODEL")  # tests/support/amx
    without = [] if "amx_tile" in here else [f"AMX of {emulated.title()} Rapids emulated" if emulated else "no AMX"]
    return f"{name[1].strip() if name else platform.processor() or platform.machine()} ({', '.join([*told[-2:], *without])})"

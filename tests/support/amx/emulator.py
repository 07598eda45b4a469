"""Run a command as on a processor with AMX, on one without: every tile instruction is emulated (see emulator.c).

    python -m tests.support.amx.emulator [--model granite] COMMAND ...

What is real: torch, and oneDNN's own AMX kernels, instruction by instruction. What is not: time. Sapphire Rapids has tiles of
bf16 and int8, Granite Rapids of fp16 too. It needs Linux on x86-64 with AVX512-BF16, gcc and binutils. Where the processor
has AMX itself, the command simply runs.
"""

import argparse
import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).parent
BUILT = HERE.parents[2] / "out" / "amx"
MODELS = ("sapphire", "granite")
LIBRARIES = ("libtorch_cpu.so", "libc10.so")
# oneDNN, and cpuinfo, which torch asks. MKL is in the same library, and goes on as it is.
ASKING = re.compile(r"_ZNK?5Xbyak4util3Cpu|_ZN4dnnl4impl3cpu3x643amx|cpuinfo_x86_")
NEEDED = {"avx512f", "avx512bw", "avx512_vnni", "avx512_bf16"}  # oneDNN's AMX kernels use them as well


def has_amx() -> bool:
    """Whether the processor itself has it."""
    return "amx_tile" in _flags()


@cache
def why_not() -> str | None:
    """What stands in the way of emulating AMX here, or None."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return "AMX is emulated on Linux on x86-64 only"
    if has_amx():
        return "this processor has AMX, so every other test runs on it"
    if lacking := NEEDED - _flags():
        return f"this processor has no {', '.join(sorted(lacking))}"
    missing = [tool for tool in ("gcc", "nm", "objdump") if shutil.which(tool) is None]
    return f"there is no {', '.join(missing)}" if missing else None


def environment(model: str = "sapphire") -> dict[str, str]:
    """The environment of a process that has AMX, and whose children have it.

    Raises:
        RuntimeError: it cannot be emulated here.
    """
    if reason := why_not():
        raise RuntimeError(reason)
    sources = sorted(HERE.glob("*.[ch]"))
    library = _made("emulator.so", [path.read_text() for path in sources], lambda made: _compile(sources, made))
    stats = [f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in _libraries()]
    sites = _made("sites.txt", [Path(__file__).read_text(), *stats], _look_through)
    before = os.environ.get("LD_PRELOAD", "")
    return os.environ | {"LD_PRELOAD": f"{library} {before}".strip(), "AMX_SITES": str(sites), "AMX_MODEL": model}


@cache
def _flags() -> frozenset[str]:
    flags = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return frozenset(flags[1].split()) if flags else frozenset()


def _made(name: str, depends: list[str], make: Callable[[Path], None]) -> Path:
    """A file made once for all that it depends on; several processes may make it at once."""
    made = BUILT / hashlib.sha256("\0".join(depends).encode()).hexdigest()[:16] / name
    if not made.exists():
        made.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=made.parent) as folder:
            make(Path(folder) / name)
            (Path(folder) / name).replace(made)
    return made


def _compile(sources: list[Path], made: Path) -> None:
    code = [path for path in sources if path.suffix == ".c"]
    flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-march=native", "-shared", "-fPIC"]
    subprocess.run(["gcc", *flags, *code, "-o", made, "-ldl"], check=True)


def _look_through(made: Path) -> None:
    sites = sorted({f"{path.name} {address} {kind}" for path in _libraries() for address, kind in _sites(path)})
    if len({line.split()[0] for line in sites}) != len(LIBRARIES):
        raise RuntimeError(f"in {' and '.join(LIBRARIES)} no function was found that asks what the processor has")
    made.write_text("\n".join([*sites, ""]))


def _sites(library: Path) -> Iterator[tuple[str, str]]:
    """Address and kind (c for cpuid, x for xgetbv) of every instruction that asks, in the functions of `ASKING`."""
    listed = subprocess.run(["nm", "-S", "--defined-only", library], capture_output=True, text=True, check=True).stdout
    for start, size in re.findall(rf"^(\w+) (\w+) [tTwW] (?:{ASKING.pattern})", listed, re.MULTILINE):
        window = (f"--start-address=0x{start}", f"--stop-address={int(start, 16) + int(size, 16):#x}")
        code = subprocess.run(["objdump", "-d", *window, library], capture_output=True, text=True, check=True).stdout
        yield from re.findall(r"^\s*(\w+):.*\t([cx])(?:puid|getbv)\b", code, re.MULTILINE)


def _libraries() -> list[Path]:
    torch = find_spec("torch")
    if torch is None or torch.origin is None:
        raise RuntimeError("there is no torch")
    return [Path(torch.origin).parent / "lib" / name for name in LIBRARIES]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default=MODELS[0])
    parser.add_argument("command", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    os.execvpe(given.command[0], given.command, dict(os.environ) if has_amx() else environment(given.model))


if __name__ == "__main__":
    main()

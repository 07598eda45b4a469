"""llama.cpp's server, built from the sources that PyPI's llama-cpp-python carries: no other download.

    python benchmarks/llamacpp_build.py .venv-llama

Needs a C++ compiler and cmake; a quarter of an hour on two cores. Leaves FOLDER/llama-server. The wheel of llama-cpp-python has the
library only, and its own server takes no scales of adapters by request.
"""

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

VERSION = "0.3.36"
# What gcc 12 believes of `_tile_loadconfig` is that it reads 8 bytes of the 64: it leaves the others unwritten, and every product of
# tile units is then an illegal instruction. All memory is said to be read.
TILES = Path("ggml/src/ggml-cpu/amx/mmq.cpp")
BEFORE, AFTER = (
    "    _tile_loadconfig(&tc);",
    '    __asm__ volatile("" : : "r"(&tc) : "memory");\n    _tile_loadconfig(&tc);',
)
OPTIONS = {
    "CMAKE_BUILD_TYPE": "Release",
    "GGML_NATIVE": "ON",  # for this processor, tile units included
    "BUILD_SHARED_LIBS": "OFF",
    "LLAMA_BUILD_TESTS": "OFF",
    "LLAMA_BUILD_EXAMPLES": "OFF",
    "LLAMA_BUILD_APP": "OFF",
    "LLAMA_USE_PREBUILT_UI": "OFF",  # it would be fetched
    "LLAMA_OPENSSL": "OFF",
}


def sources(folder: Path) -> Path:
    """llama.cpp's sources, downloaded and unpacked."""
    whole = folder / f"llama_cpp_python-{VERSION}"
    if not whole.exists():
        if not (archive := whole.with_name(f"{whole.name}.tar.gz")).exists():
            asked = [
                "download",
                "--quiet",
                "--no-deps",
                "--no-binary",
                "llama-cpp-python",
                f"llama-cpp-python=={VERSION}",
            ]
            subprocess.run([sys.executable, "-m", "pip", *asked, "--dest", str(folder)], check=True)
        with tarfile.open(archive) as packed:
            packed.extractall(folder, filter="data")
    return whole / "vendor" / "llama.cpp"


def main() -> None:
    folder = Path(sys.argv[1]).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    source, build = sources(folder), folder / "build"
    text = (source / TILES).read_text()
    if AFTER not in text:
        if BEFORE not in text:
            sys.exit(f"{TILES} has changed; look whether llama.cpp has mended its tiles")
        (source / TILES).write_text(text.replace(BEFORE, AFTER))
    options = [f"-D{name}={value}" for name, value in OPTIONS.items()]
    subprocess.run(["cmake", "-S", str(source), "-B", str(build), *options], check=True)
    jobs = str(os.cpu_count() or 1)
    subprocess.run(["cmake", "--build", str(build), "--target", "llama-server", "--parallel", jobs], check=True)
    shutil.copy2(build / "bin" / "llama-server", folder / "llama-server")


if __name__ == "__main__":
    main()

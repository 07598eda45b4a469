"""Peak memory is bounded by the largest tensor and the factors, not by the model."""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

SIZE = 1024
LAYERS = 24

MEASURE = """
import re, sys
from pathlib import Path

import torch
from soupmix.base import Base, tensors_digest
from soupmix.merge.model import write_model
from soupmix.merge.sink import Sink
from soupmix.merge.stack import Stack
from soupmix_kernels.rows_apart import inner_step

torch.set_num_threads(1)
folder, out, layers, size = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
ones = torch.ones(4, dtype=torch.float64)
stack = Stack(torch.ones(4, size), torch.ones(size, 4), ones, ones)
base = Base("synthetic", folder, "sha256:0", None, "test")
out.mkdir()
def peak():
    # Not ru_maxrss: it starts at the size of the process that forked this one.
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
def merge(count):
    modules = {f"layers.{i}.up": stack for i in range(count)}
    write_model(Sink(out), base, modules, dtype=sys.argv[5] or None, shard_size=10**12)
torch.addmm(*[torch.ones(256, 256)] * 3)  # what the library itself takes on first use
inner_step(torch.float32, torch.device("cpu"))  # and a trial of the processor
before = peak()
merge(layers)
print(peak() - before)
"""


def growth(folder: Path, out: Path, dtype: str) -> int:
    command = [sys.executable, "-c", MEASURE, folder, out, str(LAYERS), str(SIZE), dtype]
    # glibc keeps up to 64 MiB of freed blocks for reuse; handed back at once, what is measured is what is in use.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "1000000", "OMP_NUM_THREADS": "1"}
    return int(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)


def test_peak_memory_does_not_grow_with_the_model(tmp_path: Path) -> None:
    folder = tmp_path / "base"
    folder.mkdir()
    tensors = {f"layers.{i}.up.weight": torch.full((SIZE, SIZE), float(i)) for i in range(LAYERS)}
    tensors["embed_tokens.weight"] = torch.ones(16 * SIZE, SIZE)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps({"tie_word_embeddings": True, "dtype": "float32"}))
    matrix, model = SIZE * SIZE * 4, (LAYERS + 16) * SIZE * SIZE * 4
    for number, dtype in enumerate(("", "BF16")):
        grown = growth(folder, tmp_path / f"out{number}", dtype)
        # Weight, sum, the kernel's own sum, rounded copies on their way to the disk: a handful of the largest matrix
        # that is merged, and not even one of the untouched embedding, which is sixteen times that.
        assert 0 < grown < 10 * matrix == model / 4

"""Peak memory is bounded by a few blocks and the factors, not by the model, and not by its largest matrix."""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig

SIZE = 1024
LAYERS = 2
LINEAR = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"]
LINEAR += ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]

MEASURE = """
import re, sys
from pathlib import Path

import torch
from soupmix.base import Base
from soupmix.merge.fold import Work
from soupmix.merge.model import write_model
from soupmix.merge.sink import Sink
from soupmix.merge.stack import Stack
from soupmix_kernels.rows_apart import inner_step

torch.set_num_threads(1)
folder, out = Path(sys.argv[1]), Path(sys.argv[2])
ones = torch.ones(4, dtype=torch.float64)
base = Base("synthetic", folder, "sha256:0", None, "test")
out.mkdir()
def peak():
    # Not ru_maxrss: it starts at the size of the process that forked this one.
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
modules = {
    path: Stack(torch.ones(4, layer.inputs), torch.ones(layer.outputs, 4), ones, ones)
    for path, layer in base.layers().items()
    if layer.kind == "linear" and layer.tied is None
}
torch.addmm(*[torch.ones(256, 256)] * 3)  # what the library itself takes on first use
inner_step(torch.float32, torch.device("cpu"))  # and a trial of the processor
before = peak()
for dtype in (None, "BF16"):
    write_model(Sink(out), base, modules, dtype=dtype, shard_size=10**12, work=Work(1))
print(len(modules), peak() - before)
"""


def growth(folder: Path, out: Path) -> tuple[int, int]:
    """How many matrices were merged, and by how many bytes the peak grew."""
    command = [sys.executable, "-c", MEASURE, folder, out]
    # glibc keeps up to 64 MiB of freed blocks for reuse; handed back at once, what is measured is what is in use.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "1000000", "OMP_NUM_THREADS": "1"}
    said = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    count, grown = said.split()
    return int(count), int(grown)


def test_peak_memory_grows_neither_with_the_model_nor_with_its_matrices(tmp_path: Path) -> None:
    folder, wide = tmp_path / "base", 16 * SIZE
    folder.mkdir()
    shapes = dict.fromkeys(LINEAR, (SIZE, SIZE)) | {"mlp.gate_proj": (wide, SIZE), "mlp.up_proj": (wide, SIZE)}
    shapes["mlp.down_proj"] = (SIZE, wide)
    tensors = {f"model.layers.{n}.{name}.weight": torch.ones(shapes[name]) for n in range(LAYERS) for name in LINEAR}
    norms = [f"layers.{n}.{name}_layernorm" for n in range(LAYERS) for name in ("input", "post_attention")]
    tensors |= {f"model.{name}.weight": torch.ones(SIZE) for name in [*norms, "norm"]}
    tensors["model.embed_tokens.weight"] = torch.ones(8 * SIZE, SIZE)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = LlamaConfig(
        hidden_size=SIZE,
        intermediate_size=wide,
        num_hidden_layers=LAYERS,
        num_attention_heads=8,
        vocab_size=8 * SIZE,
        tie_word_embeddings=True,
    )
    (folder / "config.json").write_text(json.dumps(config.to_dict() | {"architectures": ["LlamaForCausalLM"]}))
    largest, model = wide * SIZE * 4, sum(tensor.nbytes for tensor in tensors.values())
    count, grown = growth(folder, tmp_path / "out")
    assert count == LAYERS * len(LINEAR)
    assert 0 < grown < largest < model / 6

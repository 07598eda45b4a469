"""A base of random weights in the shapes of a Llama, in shards, and adapters of it; for benchmarks that need gigabytes."""

import json
import math
from pathlib import Path
from typing import NamedTuple

RANK, SHARD, HEAD = 16, 300_000_000, 128


class Shape(NamedTuple):
    """Of a Llama whose output layer is not tied."""

    hidden: int
    inner: int
    keys: int
    layers: int
    vocabulary: int

    def linear(self) -> dict[str, tuple[int, int]]:
        """The linear layers of one block: name -> (out, in)."""
        return {
            "self_attn.q_proj": (self.hidden, self.hidden),
            "self_attn.k_proj": (self.keys, self.hidden),
            "self_attn.v_proj": (self.keys, self.hidden),
            "self_attn.o_proj": (self.hidden, self.hidden),
            "mlp.gate_proj": (self.inner, self.hidden),
            "mlp.up_proj": (self.inner, self.hidden),
            "mlp.down_proj": (self.hidden, self.inner),
        }

    def factors(self, adapters: int) -> int:
        """Numbers in the factors of so many adapters of rank `RANK`."""
        return self.layers * sum(rows + columns for rows, columns in self.linear().values()) * RANK * adapters

    def weights(self) -> int:
        """Numbers in the model."""
        matrices = sum(rows * columns for rows, columns in self.linear().values())
        return self.layers * (matrices + 2 * self.hidden) + self.hidden + 2 * self.vocabulary * self.hidden


SHAPES = {
    "1B": Shape(2048, 5632, 2048, 20, 32000),
    "8B": Shape(4096, 14336, 1024, 32, 128256),  # Llama 3.1
    "70B": Shape(8192, 28672, 1024, 80, 128256),
}


def make_base(folder: Path, shape: Shape) -> None:
    """Shards and config.json; weights are windows of one block of random numbers, as drawing them all takes minutes."""
    import torch
    from safetensors.torch import save_file
    from transformers import LlamaConfig

    draw = torch.Generator().manual_seed(1)
    pool = (torch.randn(1 << 25, generator=draw) * 0.02).bfloat16()

    def tensor(*size: int) -> torch.Tensor:
        count = int(torch.tensor(size).prod())
        start = int(torch.randint(1 << 20, (1,), generator=draw))
        return pool[start:].repeat(-(-count // (len(pool) - start)))[:count].view(size)

    outer = (shape.vocabulary, shape.hidden)
    names = {"model.embed_tokens": outer, "lm_head": outer, "model.norm": (shape.hidden,)}
    for n in range(shape.layers):
        names |= {f"model.layers.{n}.{name}": size for name, size in shape.linear().items()}
        names |= {f"model.layers.{n}.{name}_layernorm": (shape.hidden,) for name in ("input", "post_attention")}
    shards: list[list[str]] = [[]]
    for name in names:
        if sum(2 * math.prod(names[each]) for each in shards[-1]) > SHARD:
            shards.append([])
        shards[-1].append(name)
    folder.mkdir()
    files = [f"model-{n:05d}-of-{len(shards):05d}.safetensors" for n in range(1, len(shards) + 1)]
    for file, shard in zip(files, shards, strict=True):
        save_file({f"{name}.weight": tensor(*names[name]) for name in shard}, folder / file, metadata={"format": "pt"})
    placed = {f"{name}.weight": file for file, shard in zip(files, shards, strict=True) for name in shard}
    size = sum(2 * math.prod(each) for each in names.values())
    index = {"metadata": {"total_size": size}, "weight_map": placed}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    config = LlamaConfig(
        hidden_size=shape.hidden,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.hidden // HEAD,
        num_key_value_heads=shape.keys // HEAD,
        vocab_size=shape.vocabulary,
        tie_word_embeddings=False,
    )
    fields = config.to_dict() | {"architectures": ["LlamaForCausalLM"], "dtype": "bfloat16"}
    (folder / "config.json").write_text(json.dumps(fields))


def make_adapter(folder: Path, shape: Shape, seed: int) -> None:
    """A PEFT folder with random factors for every linear layer."""
    import torch
    from safetensors.torch import save_file

    draw = torch.Generator().manual_seed(seed)
    tensors = {}
    for n in range(shape.layers):
        for name, (rows, columns) in shape.linear().items():
            path = f"base_model.model.model.layers.{n}.{name}"
            tensors[f"{path}.lora_A.weight"] = torch.randn(RANK, columns, generator=draw) * 0.02
            tensors[f"{path}.lora_B.weight"] = torch.randn(rows, RANK, generator=draw) * 0.01
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    targets = sorted(name.rpartition(".")[2] for name in shape.linear())
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": RANK,
        "lora_alpha": 2 * RANK,
        "target_modules": targets,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))

"""GGUF -> a clean Hugging Face folder; run as `python -m soupmix.base.convert FILE.gguf FOLDER PIPE`.

FILE.gguf must stand in a folder of its own: transformers looks at what is beside it, for settings and for code. The weights that
are written are bf16; where the file holds them in 8 or 4 bits, its blocks are kept beside (`soupmix.base.held`).
PIPE is the number of a descriptor at whose end the conversion is not wanted any longer.

A process of its own keeps progress bars, log levels and the peak memory of the conversion out of the caller.
"""

import sys
from functools import cache
from pathlib import Path
from typing import Any

from soupmix.base.held import write_held
from soupmix.children import end_with

__all__: list[str] = []


def _main(source: Path, folder: Path) -> None:
    import gguf
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    # transformers reads the file's header three times, and makes the table of names for every module: most of the time.
    gguf.GGUFReader, gguf.get_tensor_name_map = cache(gguf.GGUFReader), cache(gguf.get_tensor_name_map)
    plain: dict[str, Any] = {"gguf_file": source.name, "local_files_only": True}
    tokenizer = AutoTokenizer.from_pretrained(source.parent, **plain, trust_remote_code=False)
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    # Left padding is not a field that every tokenizer class saves by itself.
    tokenizer.init_kwargs["padding_side"] = "left"
    tokenizer.save_pretrained(folder)
    loaded = AutoModelForCausalLM.from_pretrained(source.parent, **plain, dtype=torch.float32, trust_remote_code=False)
    fields = loaded.config.to_dict()
    fields.pop("quantization_config", None)
    config = type(loaded.config).from_dict(fields | {"dtype": "bfloat16"})
    write_held(folder, loaded)
    # A model loaded from GGUF refuses save_pretrained, so a fresh one of the same config carries the weights.
    with torch.device("meta"):
        fresh = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, trust_remote_code=False)
    weights = {name: tensor.to(torch.bfloat16) for name, tensor in loaded.state_dict().items()}
    fresh.load_state_dict(weights, assign=True)
    fresh.tie_weights()
    fresh.generation_config = loaded.generation_config
    if fresh.generation_config.eos_token_id is None:
        fresh.generation_config.eos_token_id = tokenizer.eos_token_id
    fresh.generation_config.pad_token_id = tokenizer.pad_token_id
    fresh.save_pretrained(folder)


if __name__ == "__main__":
    end_with(int(sys.argv[3]))
    _main(Path(sys.argv[1]), Path(sys.argv[2]))

"""How servers of others are told of a soup: llama.cpp's list of scales, and vLLM's line for an adapter that was written."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from soupmix.errors import RecipeError
from soupmix.files import strict_json
from soupmix.methods import DEFAULT
from soupmix.options import Options
from soupmix.weights import Weights, decimal_text

__all__ = ["llama_cpp_scales", "vllm_line"]

_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # what --max-lora-rank may be (vllm/config/lora.py: MaxLoRARanks)


def llama_cpp_scales(granted: Weights, method: str, options: Options) -> Mapping[str, Any]:
    """The granted weights as scales of adapters that lie beside the server, one file each, NAME.gguf of weight 1.

    Returns:
        "adapters": file and name of each id. "lora": [{"id", "scale"}] as `POST /lora-adapters` and the field `lora` of a
        request take it. "command": a line that starts llama-server with them.

    Raises:
        RecipeError: nothing was granted ("empty-soup"), or the method is not the weighted sum of deltas ("not-a-sum").
    """
    if method != DEFAULT or options:
        raise RecipeError(
            f"llama.cpp adds deltas times their scales, which is method {DEFAULT} without options; write this soup with "
            "--as gguf-lora, which holds what any method gives",
            reason="not-a-sum",
        )
    parts = [(name, micro) for name, micro in granted.items() if micro]
    if not parts:
        raise RecipeError("no adapter was granted a weight above zero: start the base alone", reason="empty-soup")
    scaled = ",".join(f"{name}.gguf:{decimal_text(micro)}" for name, micro in parts)
    return {
        "adapters": [{"file": f"{name}.gguf", "id": place, "name": name} for place, (name, _) in enumerate(parts)],
        "command": f"llama-server -m BASE.gguf --lora-scaled {scaled}",
        "lora": [{"id": place, "scale": float(decimal_text(micro))} for place, (_, micro) in enumerate(parts)],
    }


def vllm_line(folder: Path) -> str:
    """The line that starts vLLM with an adapter that soupmix wrote into a folder, under the folder's name.

    Raises:
        RecipeError: its rank is more than vLLM takes ("bad-rank").
    """
    config = strict_json((folder / "adapter_config.json").read_bytes())
    enough = [rank for rank in _RANKS if config["r"] <= rank]
    if not enough:
        raise RecipeError(
            f"the adapter in {folder} has rank {config['r']}, and vLLM takes {_RANKS[-1]} at most; write it with --rank "
            f"{_RANKS[-1]}",
            reason="bad-rank",
        )
    module = shlex.quote(f"{folder.resolve().name}={folder}")
    base = shlex.quote(config["base_model_name_or_path"])
    return f"vllm serve {base} --enable-lora --max-lora-rank {enough[0]} --lora-modules {module}"

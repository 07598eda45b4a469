"""A real vLLM server with the plug-in, from an environment of its own (`make test-vllm`); tests that ask for it are slow."""

import os
from pathlib import Path

import pytest

from soupmix.base import Base, resolve
from soupmix.store import Store
from tests.support.tiny_model import save_tiny_model

__all__ = ["needs_vllm", "small_base", "small_store", "vllm_environment", "vllm_python"]

ROOT = Path(__file__).parents[2]


def vllm_python() -> Path:
    """The Python of that environment; it need not be there."""
    return Path(os.environ.get("SOUPMIX_VLLM_PYTHON", ROOT / ".venv-vllm/bin/python"))


needs_vllm = pytest.mark.skipif(not vllm_python().exists(), reason="make test-vllm makes .venv-vllm")


def vllm_environment() -> dict[str, str]:
    """What a small server on a shared machine is told."""
    return {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }


def small_base(folder: Path) -> Base:
    """A random Llama with heads that vLLM's attention on the CPU takes."""
    return resolve(save_tiny_model(folder / "base", hidden=128, inner=192))


def small_store(folder: Path, base: Base) -> Store:
    """Three adapters of different scalings, one of them on queries and values alone, that change what is answered."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    store = Store(folder / "store", create=True)
    for number, name in enumerate(("calm", "loud", "plain")):
        targets = ["q_proj", "v_proj"] if name == "loud" else "all-linear"
        config = LoraConfig(r=4, lora_alpha=4 * (number + 1), target_modules=targets, task_type="CAUSAL_LM")
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(base.folder), config)
        draw = torch.Generator().manual_seed(number)
        for path, parameter in model.named_parameters():
            if ".lora_" in path:
                parameter.data = torch.randn(parameter.shape, generator=draw) * 0.2
        model.save_pretrained(folder / name)
        store.add(folder / name, name=name, dimension=name, pole=name, base=base)
    return store

"""A real vLLM server, with the plug-in or without, from an environment of its own (`make test-vllm`); tests of it are slow."""

import os
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from soupmix.backends import Limits
from soupmix.backends.vllm_server import ServedPolicy, vllm_server, wait_for_vllm
from soupmix.base import Base, resolve
from soupmix.store import Store
from tests.support.tiny_model import save_tiny_model

__all__ = ["needs_vllm", "plain_vllm", "real_vllm", "small_base", "small_store", "vllm_environment", "vllm_python"]

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


@contextmanager
def real_vllm(
    base: Base, store: Store, limits: Limits, documents: Sequence[Path] = (), arguments: Sequence[str] = ()
) -> Iterator[tuple[str, bytes]]:
    """URL and key of a server with the plug-in, in fp32, that steps as it is told and compiles nothing."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in vllm_environment().items():
            patch.setenv(name, value)
        more = ["--enforce-eager", *arguments]
        python, served = str(vllm_python()), ServedPolicy(documents)
        with vllm_server(
            base, store.folder, served, dtype="F32", limits=limits, python=python, arguments=more
        ) as found:
            yield found


@contextmanager
def plain_vllm(arguments: Sequence[str], log: Path) -> Iterator[str]:
    """The URL of a server as anybody starts it who has never heard of soupmix; ended with all of its processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [str(vllm_python()), "-m", "vllm.entrypoints.openai.api_server", *arguments]
    told = {"VLLM_LOGGING_LEVEL": "WARNING", "VLLM_NO_USAGE_STATS": "1", **vllm_environment()}
    environment = {name: value for name, value in os.environ.items() if name != "SOUPMIX_VLLM"} | told
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*words, "--host", "127.0.0.1", "--port", str(port)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env=environment,
            start_new_session=True,
        )
    try:
        wait_for_vllm(f"http://127.0.0.1:{port}", process, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


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

"""`soupmix doctor`: versions, device, kernels, threads, caches; what a bug report needs."""

import importlib.metadata
import importlib.util
import json
import os
import platform
from typing import Any

import click

from soupmix.cli.defaults import config_path, in_force
from soupmix.cli.options import DEFAULT_BASE, json_option, print_facts
from soupmix.version import __version__

__all__ = ["command"]

_PACKAGES = ("torch", "triton", "transformers", "peft", "trl", "safetensors", "huggingface-hub", "pydantic", "gguf")
_QUANTISERS = ("bitsandbytes", "torchao", "compressed-tensors", "gptqmodel", "optimum")


@click.command("doctor")
@json_option
def command(as_json: bool) -> None:
    """Show what soupmix runs on; exit code 1 if something it needs is missing or damaged."""
    facts = {"soupmix": __version__, **_system(), "packages": _packages(), **_torch(), **_data()}
    if as_json:
        click.echo(json.dumps(facts, indent=2))
    else:
        print_facts(facts)
    if facts["adapters"].startswith("damaged") or facts["base"].startswith("missing"):
        raise SystemExit(1)


def _system() -> dict[str, str]:
    return {"python": platform.python_version(), "platform": platform.platform(), "cpus": str(os.cpu_count())}


def _packages() -> dict[str, str]:
    found = {}
    for name in (*_PACKAGES, *_QUANTISERS):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _torch() -> dict[str, str]:
    import torch

    count = torch.cuda.device_count()
    found = [f"cuda:{number} ({torch.cuda.get_device_name(number)})" for number in range(count)]
    asked = os.environ.get("SOUPMIX_DEVICE", "")
    there = f"; there are {', '.join(found)}" if found else "; torch finds no GPU"
    device = (f"{asked}, by SOUPMIX_DEVICE" if asked else "cpu, if --device says nothing") + there
    interpreter = "interpreter" if os.environ.get("TRITON_INTERPRET") == "1" else "compiler"
    triton = interpreter if importlib.util.find_spec("triton") else "absent (the torch reference runs)"
    threads = f"{torch.get_num_threads()} of torch, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}"
    capability = torch.backends.cpu.get_cpu_capability()
    return {"device": device, "cpu": capability, "triton": triton, "threads": threads, "step": _step()}


def _step() -> str:
    """How the steps of a running batch are computed on this machine; the library is made now if it is missing."""
    from soupmix.engine.compiled import FAMILIES, step_here

    step = step_here()
    return f"{step.why} ({', '.join(FAMILIES.values())})" if step.library else step.why


def _data() -> dict[str, Any]:
    from soupmix.base import cache_root, resolve
    from soupmix.errors import SoupmixError
    from soupmix.store import Store
    from soupmix.store.places import data_root

    try:
        store = Store.shipped()
        for name in store.names:
            store.load(name)
        adapters = f"{len(store)} shipped, digests good"
    except SoupmixError as error:
        adapters = f"damaged: {error}"
    try:
        base = resolve(DEFAULT_BASE)
        found = f"{base.name} {base.digest}, files {base.files_digest()}"
    except SoupmixError as error:
        found = f"missing: {error}"
    defaults = {"config": str(config_path()), **in_force()}
    return {
        "cache": str(cache_root()),
        "data": str(data_root()),
        "defaults": defaults,
        "adapters": adapters,
        "base": found,
    }

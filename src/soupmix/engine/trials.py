"""What trials of a model found, kept in the user's cache under a digest of all that they rest on.

Trials before anybody is served (`soupmix.engine.together`, `soupmix.batching.probe`) take two CPU-seconds and find the same each
time, as long as model, adapters, processor, libraries and our own files are the same. Only what was found right is kept: what was
not is tried anew at every start.
"""

import os
import platform
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import soupmix_kernels
from soupmix.base import Base, cache_root
from soupmix.base.records import recalled, remember
from soupmix.files import digest_parts
from soupmix.version import __version__

__all__ = ["Trials"]

_LIBRARIES = ("torch", "transformers", "tokenizers", "safetensors", "triton", "numpy", "bitsandbytes", "torchao")
_SETTINGS = (
    "AMX_MODEL",
    "ATEN_",
    "CUDA_",
    "DNNL_",
    "KMP_",
    "LD_",
    "MKL_",
    "OMP_",
    "ONEDNN_",
    "SOUPMIX_KERNELS",
    "TORCH",
    "TRITON_",
)
_OURS = (Path(__file__).parents[1], Path(soupmix_kernels.__file__).parent)
_CPU = ("model name", "model", "stepping", "microcode", "flags", "Features", "CPU part", "CPU revision")


@dataclass(frozen=True, slots=True)
class Trials:
    """The trials of one model on this machine.

    Attributes:
        path: of what is kept; None: nothing is.
    """

    path: Path | None = None

    @classmethod
    def of(cls, base: Base, adapters: Mapping[str, str], model: Any, how: str) -> "Trials":
        """Those of a base that is loaded.

        Args:
            adapters: name -> digest of those in the model, in order. model: of transformers. how: all else that was chosen when
                it was loaded, in words.
        """
        parts = {
            "base": base.digest,
            "files": base.files_digest(),
            "adapters": "\n".join(f"{name} {digest}" for name, digest in adapters.items()),
            "model": f"{type(model).__qualname__} {model.dtype} {_device(model.device)}",
            "how": how,
            "machine": _machine(),
            "threads": str(torch.get_num_threads()),
            "settings": "\n".join(
                sorted(f"{name}={value}" for name, value in os.environ.items() if name.startswith(_SETTINGS))
            ),
        }
        return cls((base.cache or cache_root()) / "trials" / f"{digest_parts('soupmix.trials.v1', parts)}.json")

    def recall(self, name: str) -> dict[str, Any] | None:
        """What a trial found; None if it has to be made."""
        held = recalled(self.path) if self.path is not None else None
        found = None if held is None else held.get(name)
        return found if isinstance(found, dict) else None

    def keep(self, name: str, found: Mapping[str, Any]) -> None:
        """Remember what a trial found right."""
        if self.path is not None:
            remember(self.path, {**(recalled(self.path) or {}), name: dict(found)})


def _device(device: torch.device) -> str:
    if device.type != "cuda":
        return device.type
    name, capability = torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device)
    return f"{name} {capability} {torch.version.cuda} {torch.version.hip}"


@cache
def _machine() -> str:
    """Processor, libraries and our own files: what does not change while this process runs."""
    told = [platform.machine(), platform.release(), *_processor(), f"soupmix {__version__}"]
    for name in _LIBRARIES:
        try:
            told.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            told.append(f"no {name}")
    return "\n".join([*told, _files()])


def _processor() -> Iterator[str]:
    """Its name, stepping and instructions, of the first of several that are alike."""
    try:
        first = Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
    except OSError:
        first = platform.processor()
    yield from (line for line in first.splitlines() if re.split(r"\s*:", line)[0] in _CPU) if "\n" in first else [first]


def _files() -> str:
    """A digest of names, sizes and times of our sources: who works on them keeps the number of the version."""
    digest = sha256()
    for root in _OURS:
        for folder, _, names in sorted(os.walk(root)):
            for name in sorted(names):
                if name.endswith((".py", ".cpp", ".h")):
                    status = (Path(folder) / name).stat()
                    digest.update(f"{folder}/{name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()

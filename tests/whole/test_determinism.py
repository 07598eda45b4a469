"""The same inputs give the same bytes, over processes, hash seeds, threads, and the order in which adapters were added."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from soupmix.base import resolve

SCRIPT = """
import sys, torch
from pathlib import Path
from soupmix.base import resolve
from soupmix.merge import merge
from soupmix.policy import Policy
from soupmix.store import Store

base, cache, place, threads, *folders = sys.argv[1:]
torch.set_num_threads(int(threads))
base, place = resolve(Path(base), cache=Path(cache)), Path(place)
store = Store(place / "store", create=True)
for folder in map(Path, folders):
    store.add(folder, dimension=f"d-{folder.name}", pole=folder.name, base=base)
grant = Policy.open(store).clamp({"a": 0.5, "b": 0.9, "c": 0.25})
for method in ("delta", "factor"):
    soup = merge(store, grant, method=method)
    soup.save_adapter(place / method / "exact")
    soup.save_adapter(place / method / "cut", rank=5, dtype="bf16")
    soup.save_model(place / method / "model", base=base, dtype="bf16", shard_size=1_000_000)
    soup.save_model(place / method / "single", base=base)
"""


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def made(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Callable[..., Path], tiny_adapter: Callable[..., Path]
) -> Callable[..., dict[str, bytes]]:
    """Everything that one run writes; matrices of 512 x 512, large enough to be divided among threads."""
    root = tmp_path_factory.mktemp("determinism")
    base = resolve(tiny_model(root / "base", hidden=512), cache=root / "cache")
    for seed, name in enumerate("abc"):
        tiny_adapter(seed=seed, base=base).rename(root / name)

    def run(order: str, seed: str, threads: str) -> dict[str, bytes]:
        place = root / f"run-{order}-{seed}-{threads}"
        arguments = [base.folder, root / "cache", place, threads, *(root / name for name in order)]
        environment = os.environ | {"PYTHONHASHSEED": seed, "OMP_NUM_THREADS": threads, "GOMP_SPINCOUNT": "0"}
        subprocess.run([sys.executable, "-c", SCRIPT, *arguments], env=environment, check=True)
        return contents(place)

    return run


@pytest.fixture(scope="module")
def first(made: Callable[..., dict[str, bytes]]) -> dict[str, bytes]:
    found = made("abc", "0", "1")
    assert len(found) > 40
    return found


@pytest.mark.parametrize(
    ("order", "seed", "threads"), [("cba", "2", "2"), pytest.param("bac", "1", "1", marks=pytest.mark.slow)]
)
def test_same_bytes(
    made: Callable[..., dict[str, bytes]], first: dict[str, bytes], order: str, seed: str, threads: str
) -> None:
    again = made(order, seed, threads)
    assert sorted(again) == sorted(first)
    assert [name for name in first if again[name] != first[name]] == []

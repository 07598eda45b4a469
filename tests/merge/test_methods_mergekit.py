"""mergekit's own command, in an environment of its own, on the recipe that we read: the same model comes out.

`make test-mergekit`, or SOUPMIX_MERGEKIT=PATH/bin/mergekit-yaml pytest -m slow tests/merge/test_methods_mergekit.py
"""

import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from soupmix.base import Base, resolve
from soupmix.merge import merge, read_recipe
from soupmix.policy import Policy
from soupmix.store.store import Store

COMMAND = os.environ.get("SOUPMIX_MERGEKIT", str(Path(__file__).parents[2] / ".venv-mergekit/bin/mergekit-yaml"))
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not Path(COMMAND).exists(), reason="no .venv-mergekit")]

Made = Callable[[str], tuple[Mapping[str, torch.Tensor], Mapping[str, torch.Tensor]]]
BOTH = "{weight: 0.6}", "{weight: 0.3}"
RULES = "{weight: [{filter: mlp, value: 0.2}, {value: [0.6, 0.1]}]}", "{weight: 0.3}"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, tiny_base: Base, session_cache: Path) -> Base:
    """In fp32, so that nothing is rounded on either side."""
    folder = tmp_path_factory.mktemp("mergekit") / "base"
    AutoModelForCausalLM.from_pretrained(tiny_base.folder, dtype=torch.float32).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_base.folder).save_pretrained(folder)
    return resolve(folder, cache=session_cache)


@pytest.fixture(scope="module")
def folders(
    base: Base, tiny_adapter: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, Path]:
    where = tmp_path_factory.mktemp("adapters")
    found = {}
    for seed, (name, rank) in enumerate((("friendly", 4), ("concise", 3))):
        found[name] = tiny_adapter(rank=rank, alpha=9, seed=seed, base=base).rename(where / name)
    return found


@pytest.fixture
def made(base: Base, folders: Mapping[str, Path], tmp_path: Path, make_store: Callable[..., Store]) -> Made:
    """Tensors of mergekit's model and of ours, of one recipe."""

    def make(text: str) -> tuple[Mapping[str, torch.Tensor], Mapping[str, torch.Tensor]]:
        path = tmp_path / "merge.yaml"
        path.write_text(text)
        theirs, ours = tmp_path / "theirs", tmp_path / "ours"
        cache = ["--lora-merge-cache", str(tmp_path / "cache"), "--lora-merge-dtype", "float32"]
        command = [COMMAND, str(path), str(theirs), *cache, "--no-copy-tokenizer"]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {
            "HF_HUB_OFFLINE": "1"
        }
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr[-2000:]
        recipe, store = read_recipe(path), make_store(folders, base=base)
        soup = merge(store, Policy.open(store).clamp(recipe.weights), method=recipe.method, options=recipe.options)
        soup.save_model(ours, base=base, dtype=recipe.dtype)
        return load_file(theirs / "model.safetensors"), load_file(ours / "model.safetensors")

    return make


@pytest.mark.parametrize(
    ("method", "said", "rest"),
    [
        ("task_arithmetic", BOTH, ""),
        ("task_arithmetic", BOTH, "lambda: 0.5"),
        ("task_arithmetic", RULES, ""),
        ("linear", BOTH, ""),
        ("ties", BOTH, "density: 0.4"),
        ("ties", BOTH, "density: 0.4, normalize: false"),
        ("dare_ties", BOTH, "normalize: true"),
        ("breadcrumbs", BOTH, "density: 0.6, gamma: 0.1"),
        ("breadcrumbs_ties", BOTH, "density: 0.6, gamma: 0.1, normalize: true, lambda: 0.7"),
    ],
)
def test_the_same_model(
    method: str, said: tuple[str, str], rest: str, made: Made, folders: Mapping[str, Path], base: Base
) -> None:
    models = "\n".join(
        f"  - {{model: {base.folder}+{folder}, parameters: {text}}}"
        for folder, text in zip(folders.values(), said, strict=True)
    )
    over = "" if method == "linear" else f"base_model: {base.folder}\n"
    text = f"merge_method: {method}\n{over}models:\n{models}\nparameters: {{{rest}}}\ndtype: float32\n"
    theirs, ours = made(text)
    before = load_file(base.folder / "model.safetensors")
    assert theirs.keys() >= ours.keys() - {"lm_head.weight"}
    changed = 0
    for name in ours.keys() & theirs.keys():
        delta, expected = ours[name].double() - before[name].double(), theirs[name].double() - before[name].double()
        changed += bool(expected.abs().max() > 1e-4)
        wrong = (delta - expected).abs() > 1e-6
        assert wrong.sum() <= 2, "an entry at the very threshold may be in or out"
    assert changed

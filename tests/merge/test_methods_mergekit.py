"""mergekit's own command, in an environment of its own, on the recipe that we read: the same model comes out, or the same draw.

`make test-mergekit`, or SOUPMIX_MERGEKIT=PATH/bin/mergekit-yaml pytest -m slow tests/merge/test_methods_mergekit.py
"""

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from itertools import count
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

    number, store = count(), make_store(folders, base=base)

    def make(text: str) -> tuple[Mapping[str, torch.Tensor], Mapping[str, torch.Tensor]]:
        path = tmp_path / "merge.yaml"
        path.write_text(text)
        theirs, ours = (tmp_path / f"{side}{next(number)}" for side in ("theirs", "ours"))
        cache = ["--lora-merge-cache", str(tmp_path / "cache"), "--lora-merge-dtype", "float32"]
        command = [COMMAND, str(path), str(theirs), *cache, "--no-copy-tokenizer"]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {
            "HF_HUB_OFFLINE": "1"
        }
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr[-2000:]
        recipe = read_recipe(path)
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
        ("dare_linear", BOTH, "rescale: false"),
        ("dare_ties", BOTH, "normalize: true"),
        ("della", BOTH, ""),
        ("della_linear", BOTH, "lambda: 0.5"),
        ("breadcrumbs", BOTH, "density: 0.6, gamma: 0.1"),
        ("breadcrumbs_ties", BOTH, "density: 0.6, gamma: 0.1, normalize: true, lambda: 0.7"),
    ],
)
def test_the_same_model(
    method: str, said: tuple[str, str], rest: str, made: Made, folders: Mapping[str, Path], base: Base
) -> None:
    theirs, ours = made(_recipe(method, base, folders, said, rest))
    before = load_file(base.folder / "model.safetensors")
    assert theirs.keys() >= ours.keys() - {"lm_head.weight"}
    changed = 0
    for name in ours.keys() & theirs.keys():
        delta, expected = ours[name].double() - before[name].double(), theirs[name].double() - before[name].double()
        changed += bool(expected.abs().max() > 1e-4)
        wrong = (delta - expected).abs() > 1e-6
        assert wrong.sum() <= 2, "an entry at the very threshold may be in or out"
    assert changed


@pytest.mark.parametrize(
    ("method", "rest", "chance"),
    [
        ("dare_linear", "density: 0.3", (0.3, 0.3)),
        ("dare_ties", "density: 0.3, rescale: false", (0.3, 0.3)),
        ("della_linear", "density: 0.5, epsilon: 0.3", (0.2, 0.8)),
        ("della", "density: 0.5, epsilon: 0.3, rescale: false, normalize: false", (0.2, 0.8)),
    ],
)
def test_the_same_chances(
    method: str, rest: str, chance: tuple[float, float], made: Made, folders: Mapping[str, Path], base: Base
) -> None:
    """Which entries are drawn differs with the generator; how likely an entry of some size is, and what it becomes, does not."""
    one = dict(list(folders.items())[:1])
    _, all_of_it = made(_recipe("task_arithmetic", base, one, ("{weight: 0.6}",), ""))
    theirs, ours = made(_recipe(method, base, one, ("{weight: 0.6}",), rest))
    before = load_file(base.folder / "model.safetensors")
    found = {}
    for side, model in (("theirs", theirs), ("ours", ours)):
        deltas = [(all_of_it[name] - before[name], model[name] - before[name]) for name in ours if name in before]
        drawn = [_drawn(whole, kept, rescaled="false" not in rest) for whole, kept in deltas if whole.abs().max() > 0]
        found[side] = torch.stack(drawn).sum(0)
    low, high = chance
    for (kept, among), expected in zip(found["theirs"].T, torch.linspace(low, high, 9)[1::2], strict=True):
        assert abs(kept / among - expected) < 5 * (0.25 / among) ** 0.5
    for (mine, among), (their, _) in zip(found["ours"].T, found["theirs"].T, strict=True):
        assert abs(mine - their) / among < 5 * (0.5 / among) ** 0.5


def _drawn(whole: torch.Tensor, kept: torch.Tensor, *, rescaled: bool) -> torch.Tensor:
    """How many entries are kept, and of how many, by quarters of their rank in the row [2, quarters], smallest first."""
    told = whole.abs() > 1e-5  # smaller ones are lost in the base's rounding
    growth = float(whole.abs().sum() / whole[kept != 0].abs().sum()) if rescaled else 1.0
    in_it = told & (kept != 0)
    assert ((kept - growth * whole)[in_it].abs() < 1e-6).all()
    quarter = whole.abs().argsort(1).argsort(1) * 4 // whole.shape[1]
    places = [told & (quarter == n) for n in range(4)]
    return torch.tensor([[int((place & in_it).sum()) for place in places], [int(place.sum()) for place in places]])


def _recipe(method: str, base: Base, folders: Mapping[str, Path], said: Sequence[str], rest: str) -> str:
    models = "\n".join(
        f"  - {{model: {base.folder}+{folder}, parameters: {text}}}"
        for folder, text in zip(folders.values(), said, strict=True)
    )
    over = "" if method == "linear" else f"base_model: {base.folder}\n"
    return f"merge_method: {method}\n{over}models:\n{models}\nparameters: {{{rest}}}\ndtype: float32\n"

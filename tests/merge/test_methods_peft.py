"""Methods that PEFT has too, against its `add_weighted_adapter`, on whole deltas; and where the two differ by design."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from soupmix.base import Base
from soupmix.merge import merge
from soupmix.merge.entries import Entries, Merged
from soupmix.merge.methods import Contribution, generator
from soupmix.policy import Policy
from soupmix.store.store import Store
from tests.support.uniform import uniform

WEIGHTS = {"friendly": 0.6, "concise": 0.3, "expert": 0.45}
EQUAL = dict.fromkeys(WEIGHTS, 0.5)
FULL = 32  # as large as the sides of the modules that are compared


@pytest.fixture(scope="module")
def folders_alike(tiny_adapter: Callable[..., Path]) -> Mapping[str, Path]:
    return {
        name: tiny_adapter(rank=rank, alpha=2 * rank - 1, seed=seed, targets=["q_proj", "o_proj"])
        for seed, (name, rank) in enumerate(zip(WEIGHTS, (4, 3, 2), strict=True))
    }


@pytest.fixture
def alike(make_store: Callable[..., Store], folders_alike: Mapping[str, Path]) -> Store:
    return make_store(folders_alike)


def by_peft(base: Base, folders: Mapping[str, Path], weights: Mapping[str, float], **options: Any) -> dict[str, Tensor]:
    from peft import PeftModel
    from peft.tuners.lora import Linear
    from transformers import AutoModelForCausalLM

    (first, folder), *others = folders.items()
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base.folder), folder, adapter_name=first)
    for name, each in others:
        model.load_adapter(each, adapter_name=name)
    model.add_weighted_adapter(list(weights), list(weights.values()), "made", **options)
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, Linear)}
    return {
        name.removeprefix("base_model.model."): layer.get_delta_weight("made").detach()
        for name, layer in layers.items()
    }


def by_us(store: Store, weights: Mapping[str, float], method: str, **options: Any) -> dict[str, Tensor]:
    modules = merge(store, Policy.open(store).clamp(weights), method=method, options=options).modules
    return {path: _matrix(merged) for path, merged in modules.items()}


def _matrix(merged: Merged) -> Tensor:
    return merged.matrix() if isinstance(merged, Entries) else (merged.scaled() @ merged.A.double()).float()


def agree(made: Mapping[str, Tensor], expected: Mapping[str, Tensor], times: float = 1.0) -> None:
    assert made.keys() == expected.keys()
    for path, delta in made.items():
        torch.testing.assert_close(delta, times * expected[path], rtol=1e-4, atol=2e-6 * float(delta.abs().max() + 1))


@pytest.fixture
def our_draws(monkeypatch: pytest.MonkeyPatch, alike: Store, tiny_base: Base) -> Iterator[None]:
    """PEFT draws what we draw: adapter by adapter, in the order of modules in which it goes."""
    modules = [path for path in tiny_base.layers() if path.endswith(("q_proj", "o_proj"))]
    order = iter([(path, name) for path in modules for name in WEIGHTS])

    def bernoulli(chances: Tensor, *_: Any, **__: Any) -> Tensor:
        path, name = next(order)
        part = Contribution(name, 1.0, alike.load(name).modules[path], alike[name].digest)
        return (uniform(generator(0, path, part), chances.shape) < chances).to(chances.dtype)

    monkeypatch.setattr(torch, "bernoulli", bernoulli)
    yield
    assert next(order, None) is None


@pytest.mark.parametrize(
    ("method", "options", "theirs"),
    [
        ("delta", {}, {"combination_type": "cat"}),
        ("svd", {"svd_rank": 3}, {"combination_type": "svd", "svd_rank": 3}),
        ("svd", {}, {"combination_type": "svd"}),
        (
            "magnitude_prune",
            {"density": 0.4},
            {"combination_type": "magnitude_prune_svd", "svd_rank": FULL, "density": 0.4},
        ),
    ],
)
def test_what_peft_means_by_the_same_is_the_same(
    method: str,
    options: dict[str, Any],
    theirs: dict[str, Any],
    alike: Store,
    folders_alike: Mapping[str, Path],
    tiny_base: Base,
) -> None:
    agree(by_us(alike, WEIGHTS, method, **options), by_peft(tiny_base, folders_alike, WEIGHTS, **theirs))


@pytest.mark.parametrize(("elect", "theirs"), [("mass", "total"), ("count", "frequency")])
def test_ties_of_equal_weights_are_those_of_peft_times_the_number_of_adapters(
    elect: str, theirs: str, alike: Store, folders_alike: Mapping[str, Path], tiny_base: Base
) -> None:
    """PEFT divides by how many agree; we by the share of all weights that agree."""
    said = {"combination_type": "ties_svd", "svd_rank": FULL, "density": 0.4, "majority_sign_method": theirs}
    made = by_us(alike, EQUAL, "ties", density=0.4, normalize=True, elect=elect)
    agree(made, by_peft(tiny_base, folders_alike, EQUAL, **said), times=len(EQUAL))


@pytest.mark.usefixtures("our_draws")
@pytest.mark.parametrize("method", ["dare_linear", "dare_ties"])
def test_dare_is_that_of_peft_where_the_same_is_drawn(
    method: str, alike: Store, folders_alike: Mapping[str, Path], tiny_base: Base
) -> None:
    said = {"combination_type": f"{method}_svd", "svd_rank": FULL, "density": 0.6}
    expected = by_peft(tiny_base, folders_alike, EQUAL, **said)
    options = {"normalize": True} if method == "dare_ties" else {}
    agree(by_us(alike, EQUAL, method, density=0.6, **options), expected, times=len(EQUAL) if options else 1)

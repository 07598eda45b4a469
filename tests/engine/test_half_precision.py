"""In half precision too a row of an engine depends on itself alone, on processors whose products read beyond rows."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from soupmix.base import Base, resolve
from soupmix.engine import Engine
from soupmix.policy import Grant, Policy
from soupmix.store import Store
from tests.support.families import make_family
from tests.support.reads_beyond import TileUnits

IDS = torch.randint(5, 200, (5, 9), generator=torch.Generator().manual_seed(0))
Granter = Callable[..., Grant]


@contextmanager
def third_row_is_nan(model: nn.Module, layer: str = "model.layers.0") -> Iterator[None]:
    def poison(_: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden = given[0].clone()
        hidden[2] = torch.nan
        return hidden, *given[1:]

    handle = model.get_submodule(layer).register_forward_pre_hook(poison)
    try:
        yield
    finally:
        handle.remove()


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
@pytest.mark.parametrize("adapted", [True, False])
@pytest.mark.parametrize("fused", [True, False])
def test_a_row_of_nan_infects_none(
    tiny_base: Base, pico_store: Store, grant: Granter, fused: bool, adapted: bool, dtype: str
) -> None:
    who = [grant(calm=1, plain=0.5) if adapted else grant() for _ in range(5)]
    with TileUnits():
        engine = Engine.load(tiny_base, pico_store if adapted else None, dtype=dtype, fused=fused)
        with third_row_is_nan(engine.model):
            made = engine.logits(IDS, who)
    assert made[[0, 1, 3, 4]].isfinite().all()
    assert made[2].isnan().all()


@pytest.mark.parametrize("length", [1, 7, 31, 33, 65, 80])
def test_on_this_processor_too(tiny_base: Base, pico_store: Store, grant: Granter, length: int) -> None:
    """Attention included: it is transformers' own here, over a cache of this length."""
    engine = Engine.load(tiny_base, pico_store, dtype="bf16")
    ids = torch.randint(5, 200, (20, length), generator=torch.Generator().manual_seed(length))
    with third_row_is_nan(engine.model):
        made = engine.logits(ids, [grant(calm=1, plain=0.5)] * 20)
    assert made[[row for row in range(20) if row != 2]].isfinite().all()


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(("family", "width"), [("gpt2", "n_embd"), ("falcon-rw", "hidden_size")])
def test_layers_the_other_way_round_and_layers_of_a_model_s_own_keep_rows_apart(
    tmp_path: Path, family: str, width: str, fused: bool
) -> None:
    base = resolve(make_family(family, tmp_path / "base", **{width: 40}), cache=tmp_path / "cache")
    nobody = Policy.open(Store(tmp_path / "store", create=True)).clamp({})
    with TileUnits():
        engine = Engine.load(base, None, dtype="bf16", fused=fused)
        with third_row_is_nan(engine.model, "transformer.h.0"):
            made = engine.logits(IDS, [nobody] * 5)
    assert made[[0, 1, 3, 4]].isfinite().all()
    assert made[2].isnan().all()

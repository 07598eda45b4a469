"""Whose a row of a product is: known from its place in the pass, tried with persons beside each other, or not computed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from soupmix.backends import Request
from soupmix.base import Base
from soupmix.batching import Batcher
from soupmix.engine import Engine, Sampling
from soupmix.engine.layers import insert
from soupmix.engine.rows import MIXES_ROWS, ActiveBatch, BatchWeights, LoadedAdapters, Pass
from soupmix.engine.together import company
from soupmix.errors import BaseModelError
from soupmix.policy import Grant
from soupmix.store import Adapter, Factors, Store
from soupmix_kernels import Part, Pool
from tests.support.batcher_client import answer

Granter = Callable[..., Grant]
Forward = Callable[[Tensor], Tensor]


def reversed_tokens(mlp: Forward, x: Tensor) -> Tensor:
    """As a router does that sorts tokens by their expert: all of them, in another order."""
    return mlp(x.reshape(-1, x.shape[-1]).flip(0)).flip(0).view_as(x)


def some_tokens(mlp: Forward, x: Tensor) -> Tensor:
    """As one expert sees them: those that are routed to it."""
    y, chosen = torch.zeros_like(x), x[..., 0] > 0
    if chosen.any():
        y[chosen] = mlp(x[chosen])
    return y


def other_tokens_first(mlp: Forward, x: Tensor) -> Tensor:
    """As a model has them that computes position by position."""
    return mlp(x.transpose(0, 1)).transpose(0, 1)


ROUTES = [(reversed_tokens, "padded"), (some_tokens, "padded"), (other_tokens_first, "running")]  # over slots one row


@pytest.fixture(scope="module")
def faint_store(tmp_path_factory: pytest.TempPathFactory, tiny_base: Base, tiny_adapter: Callable[..., Path]) -> Store:
    """Adapters that do less to logits than rounding in bf16 does."""
    store = Store(tmp_path_factory.mktemp("store"), create=True)
    for number, name in enumerate(("calm", "loud")):
        store.add(tiny_adapter(seed=number, scale=0.02), name=name, dimension=name, pole=name, base=tiny_base)
    return store


@pytest.mark.parametrize(("route", "loop"), ROUTES)
@pytest.mark.parametrize("faint", [False, True], ids=["fp32", "faint-bf16"])
def test_a_model_that_does_not_say_whose_tokens_are_answers_one_person_at_a_time(
    tiny_base: Base, pico_store: Store, faint_store: Store, grant: Granter, route: Any, loop: str, faint: bool
) -> None:
    engine = Engine.load(tiny_base, faint_store if faint else pico_store, dtype="bf16" if faint else None)
    mlp = engine.model.model.layers[1].mlp
    honest = mlp.forward
    mlp.forward = lambda x: route(honest, x)
    assert engine.together == "alone"
    with Batcher(engine) as batcher:
        assert batcher.loop.name == loop
    if faint:
        return
    few, people = Sampling(max_new_tokens=6), [grant(calm=1), grant(), grant(plain=1), grant(loud=0.5)]
    words = ["why is the sky blue?", "hi", "tell me of tides", "hi"]
    alone = [engine.complete([word], [who], sampling=few)[0] for word, who in zip(words, people, strict=True)]
    assert engine.complete(words, people, sampling=few) == alone
    with Batcher(engine) as batcher:
        asked = [Request(engine.chat_tokens(word), who, few) for word, who in zip(words, people, strict=True)]
        assert answer(batcher, asked) == [each.text for each in alone]
    ids = torch.arange(12).view(4, 3)
    for row, who in enumerate(people):
        assert torch.equal(engine.logits(ids, people)[row], engine.logits(ids[[row]], [who])[0])


class Routed(nn.Module):
    """Every token goes to the first of two experts: first those whose first choice it is, then those whose second."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList(nn.Linear(32, 32) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        order = (flat[:, 0] > 0).int().argsort(stable=True, descending=True)
        return torch.empty_like(flat).index_copy_(0, order, self.experts[0](flat[order])).view_as(x)


def test_one_of_several_experts_gets_no_adapter_of_several_persons_whatever_it_is_sent(tiny_base: Base) -> None:
    """Their tokens came in order where the model was tried, and how many there are says nothing."""
    model = AutoModelForCausalLM.from_pretrained(tiny_base.folder).eval()
    model.model.layers[1].mlp = Routed()
    draw, digest = torch.Generator().manual_seed(0), f"sha256:{'0' * 64}"
    A, B = (torch.randn(shape, generator=draw) for shape in ((2, 32), (32, 2)))
    adapter = Adapter("a", digest, digest, {"model.layers.1.mlp.experts.0": Factors(A, B, 1.0)})
    batch = ActiveBatch(LoadedAdapters.of([adapter]), torch.device("cpu"))
    insert(model, [adapter], batch, fused=True)
    assert company(model, batch, model.config.vocab_size).together == "alone"


def test_a_model_that_says_whose_tokens_are_answers_people_together(engine: Engine) -> None:
    assert engine.together == "padded"
    with Batcher(engine) as batcher:
        assert batcher.loop.name == "running"


PART = Part(0, torch.ones(1, 5), torch.ones(7, 1), 1.0)
POOL = Pool.stack([[PART]], [7], inputs=5, dtype=torch.float32, device=torch.device("cpu"))
BOUNDS = torch.zeros(1), torch.ones(1)


def people_of(batch: BatchWeights, places: tuple[int, ...], computed: Pass | None) -> list[int]:
    return batch.coefficients(0, POOL, places, computed, BOUNDS).rows.tolist()


PADDED = BatchWeights(torch.tensor([[0.1], [0.2], [0.3]]))
OVER_SLOTS = BatchWeights(torch.tensor([[0.1], [0.0], [0.3]]), torch.tensor([0, 1, 2, 2]), kept=torch.tensor([0, 3]))
FIRST, NEXT, SLOTS = Pass(3, 4, 1), Pass(3, 1, 1), Pass(1, 4, 2)


@pytest.mark.parametrize(
    ("batch", "computed", "places", "expected"),
    [
        (PADDED, FIRST, (3, 4), [0] * 4 + [1] * 4 + [2] * 4),
        (PADDED, FIRST, (12,), [0] * 4 + [1] * 4 + [2] * 4),
        (PADDED, FIRST, (3, 4, 2), [0] * 8 + [1] * 8 + [2] * 8),
        (PADDED, FIRST, (3, 1, 4), [0] * 4 + [1] * 4 + [2] * 4),
        (PADDED, FIRST, (3, 1), [0, 1, 2]),
        (PADDED, NEXT, (3, 1), [0, 1, 2]),
        (PADDED, NEXT, (3,), [0, 1, 2]),
        (OVER_SLOTS, SLOTS, (1, 4), [0, -1, 2, 2]),
        (OVER_SLOTS, SLOTS, (1, 1, 4), [0, -1, 2, 2]),
        (OVER_SLOTS, SLOTS, (4,), [0, -1, 2, 2]),
        (OVER_SLOTS, SLOTS, (1, 2), [0, 2]),
        (OVER_SLOTS, SLOTS, (1, 4, 2), [0, 0, -1, -1, 2, 2, 2, 2]),
    ],
)  # fmt: skip
def test_rows_of_a_product_belong_to_whom_their_place_says(
    batch: BatchWeights, computed: Pass, places: tuple[int, ...], expected: list[int]
) -> None:
    assert people_of(batch, places, computed) == expected


@pytest.mark.parametrize("batch", [PADDED, OVER_SLOTS])
@pytest.mark.parametrize(
    ("computed", "places"),
    [
        (FIRST, (6,)), (FIRST, (24,)), (FIRST, (4, 3)), (FIRST, (3,)), (FIRST, (3, 2)), (FIRST, (2, 6)), (FIRST, (0,)),
        (SLOTS, (2,)), (SLOTS, (8,)), (SLOTS, (1, 3)), (SLOTS, (2, 4)), (SLOTS, ()),
        (Pass(2, 4, 1), (2, 4)), (None, (3, 4)),
    ],
)  # fmt: skip
def test_rows_of_which_that_cannot_be_known_are_not_computed(
    batch: BatchWeights, computed: Pass | None, places: tuple[int, ...]
) -> None:
    with pytest.raises(BaseModelError, match="whose they are cannot be known") as caught:
        people_of(batch, places, computed)
    assert caught.value.reason == MIXES_ROWS


@pytest.mark.parametrize("places", [(3, 4), (7,), (2, 9, 1)])
def test_of_one_person_all_rows_are(places: tuple[int, ...]) -> None:
    batch = BatchWeights(torch.tensor([[0.5]]))
    assert set(people_of(batch, places, None)) == {0}


def test_a_batch_follows_what_its_model_is_asked() -> None:
    batch, asked = ActiveBatch(LoadedAdapters.of([]), torch.device("cpu")), torch.zeros(2, 5, dtype=torch.int64)
    model = torch.nn.Embedding(4, 3)
    batch.follow(model)
    for given, named, expected in [
        ((asked,), {}, Pass(2, 5, 5)),
        ((), {"input_ids": asked, "logits_to_keep": 0}, Pass(2, 5, 5)),
        ((), {"input_ids": asked, "logits_to_keep": 2}, Pass(2, 5, 2)),
        ((), {"input_ids": asked, "logits_to_keep": torch.tensor([4])}, Pass(2, 5, 1)),
        ((), {"inputs_embeds": asked}, None),
    ]:
        batch._note(model, given, named)
        assert batch._computed == expected

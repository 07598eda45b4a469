"""Which part of an adapter a rank of tensor parallelism holds: all parts together are the whole."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from soupmix.errors import BaseModelError
from soupmix.vllm_plugin.placing import shard_of
from soupmix.vllm_plugin.shards import Shard

torch.manual_seed(0)
RANK, INPUTS = 3, 8


def _soup(x: Tensor, A: Tensor, B: Tensor, c: Tensor) -> Tensor:
    return ((x @ A.T) * c) @ B.T


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_a_layer_that_splits_its_inputs_sums_its_parts(ranks: int) -> None:
    A, B, c = (torch.randn(*shape, dtype=torch.float64) for shape in ((RANK, INPUTS), (5, RANK), (RANK,)))
    x = torch.randn(4, INPUTS, dtype=torch.float64)
    size, total = INPUTS // ranks, torch.zeros(4, 5, dtype=torch.float64)
    for rank in range(ranks):
        shard = Shard(size, (5,), rank, ranks, "inputs")
        part = x[:, rank * size : (rank + 1) * size]
        total += _soup(part, shard.down(A), shard.up(B, 0), c)
    torch.testing.assert_close(total, _soup(x, A, B, c))


@pytest.mark.parametrize(("ranks", "heads"), [(1, 2), (2, 2), (4, 2), (8, 2), (4, 1)])
def test_queries_keys_and_values_lie_where_their_heads_do(ranks: int, heads: int) -> None:
    size, queries = 2, 8
    A, B_q, B_k = (torch.randn(*shape) for shape in ((RANK, INPUTS), (queries * size, RANK), (heads * size, RANK)))
    c, x = torch.randn(RANK), torch.randn(4, INPUTS)
    q, k = _soup(x, A, B_q, c).unflatten(1, (queries, size)), _soup(x, A, B_k, c).unflatten(1, (heads, size))
    for rank in range(ranks):
        same = max(1, ranks // heads)
        held = max(1, heads // ranks)
        widths = (queries // ranks * size, held * size, held * size)
        shard = Shard(INPUTS, widths, rank, ranks, "outputs", (1, same, same))
        mine = slice(rank * queries // ranks, (rank + 1) * queries // ranks)
        torch.testing.assert_close(_soup(x, shard.down(A), shard.up(B_q, 0), c), q[:, mine].flatten(1))
        first = rank // same * held
        torch.testing.assert_close(_soup(x, shard.down(A), shard.up(B_k, 1), c), k[:, first : first + held].flatten(1))


def test_an_adapter_of_another_shape_is_refused() -> None:
    for shard, A, B in (
        (Shard(INPUTS, (5,)), torch.zeros(RANK, 7), torch.zeros(5, RANK)),
        (Shard(INPUTS, (5,)), torch.zeros(RANK, INPUTS), torch.zeros(6, RANK)),
        (Shard(4, (5,), 0, 2, "inputs"), torch.zeros(RANK, 7), torch.zeros(5, RANK)),
        (Shard(INPUTS, (5,), 1, 2, "outputs"), torch.zeros(RANK, INPUTS), torch.zeros(11, RANK)),
    ):
        with pytest.raises(BaseModelError) as caught:
            (shard.down(A), shard.up(B, 0))
        assert caught.value.reason == "wrong-base"


def _layer(*kinds: str, **facts: object) -> object:
    kind: type = object
    for name in reversed(kinds):
        kind = type(name, (kind,), {})
    made = kind()
    made.__dict__.update(SimpleNamespace(tp_rank=1, tp_size=2, input_size=8, output_size=6, **facts).__dict__)
    return made


def test_a_layer_of_vllm_says_how_it_is_split() -> None:
    row = _layer("RowParallelLinear", "LinearBase", input_size_per_partition=4)
    assert shard_of(row, False) == Shard(4, (6,), 1, 2, "inputs")
    merged = _layer("MergedColumnParallelLinear", "ColumnParallelLinear", "LinearBase", output_partition_sizes=[5, 5])
    assert shard_of(merged, True) == Shard(8, (5, 5), 1, 2, "outputs", (1, 1))
    facts = {"output_partition_sizes": [4, 2, 2], "num_kv_head_replicas": 2}
    qkv = _layer("QKVParallelLinear", "ColumnParallelLinear", "LinearBase", **facts)
    assert shard_of(qkv, True) == Shard(8, (4, 2, 2), 1, 2, "outputs", (1, 2, 2))
    assert shard_of(_layer("ReplicatedLinear", "LinearBase"), False) == Shard(8, (6,))
    with pytest.raises(BaseModelError, match="tensor-parallel-size 1"):
        shard_of(qkv, False)

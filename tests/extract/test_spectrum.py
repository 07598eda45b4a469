"""Singular values: laws of the exact and of the sketched decomposition."""

import math

import pytest
import torch
from torch import Tensor

from soupmix.extract import spectrum
from soupmix.extract.spectrum import LayerChange, decomposed, least_rank, losses


def matrix(rows: int, columns: int, values: Tensor, seed: int = 0) -> Tensor:
    """With these singular values."""
    generator = torch.Generator().manual_seed(seed)
    left, right = (
        torch.linalg.qr(torch.randn(side, len(values), generator=generator, dtype=torch.float64)).Q
        for side in (rows, columns)
    )
    return (left * values) @ right.T


def made(layer: LayerChange, rank: int) -> Tensor:
    return (layer.left[:, :rank].double() * layer.values[:rank]) @ layer.right[:rank].double()


FALLING = torch.logspace(0, -3, 60, dtype=torch.float64)


@pytest.mark.parametrize(("rows", "columns"), [(60, 90), (90, 60), (64, 64)])
def test_exact(rows: int, columns: int) -> None:
    delta = matrix(rows, columns, FALLING)
    layer = decomposed(delta, 20)
    assert torch.allclose(layer.values[:60], FALLING, rtol=1e-9)
    assert (layer.left.shape, layer.right.shape, layer.rest) == ((rows, 20), (20, columns), 0.0)
    for rank in (1, 7, 20):
        missed = float((made(layer, rank) - delta).norm() / delta.norm())
        assert layer.error(rank) == pytest.approx(missed, rel=1e-4)
        assert layer.needed(missed * 1.001) == rank


@pytest.mark.parametrize("most", [8, 32, 64])
@pytest.mark.parametrize("falling", [True, False])
def test_sketched_errors_are_never_below_the_truth(most: int, falling: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spectrum, "_EXACT", 100)
    values = torch.logspace(0, -4, 300, dtype=torch.float64) if falling else torch.ones(300, dtype=torch.float64)
    delta = matrix(300, 400, values)
    layer = decomposed(delta, most)
    assert layer.left.shape[1] == most
    assert layer.norm == pytest.approx(float(delta.norm()), rel=1e-9)
    for rank in (1, most // 2, most):
        missed = float((made(layer, rank) - delta).norm() / delta.norm())
        assert layer.error(rank) == pytest.approx(missed, rel=1e-5)
        assert missed >= float(values[rank:].norm() / values.norm()) * (1 - 1e-9)
        assert missed <= 1.05 * float(values[rank:].norm() / values.norm())


@pytest.mark.parametrize("rank", [1, 5, 40, 100])
def test_a_sketch_finds_a_low_rank_exactly(rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spectrum, "_EXACT", 100)
    delta = matrix(300, 400, torch.linspace(2, 1, rank, dtype=torch.float64))
    layer = decomposed(delta, 256)
    assert layer.needed(1e-5) == rank
    assert float((made(layer, rank) - delta).norm() / delta.norm()) < 1e-6


def test_what_is_never_reached_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spectrum, "_EXACT", 100)
    layer = decomposed(matrix(300, 300, torch.ones(300, dtype=torch.float64)), 16)
    assert layer.needed(0.5) is None
    assert layer.needed(0.99) is not None
    assert layer.error(1000) == layer.error(16)


def test_decomposing_twice_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spectrum, "_EXACT", 100)
    for rows in (80, 300):
        delta = matrix(rows, rows, torch.logspace(0, -2, rows, dtype=torch.float64))
        one, other = decomposed(delta, 20), decomposed(delta, 20)
        assert torch.equal(one.left, other.left)
        assert torch.equal(one.right, other.right)


def test_losses_of_several_are_those_of_all() -> None:
    layers = [decomposed(matrix(9, 12, torch.tensor(values, dtype=torch.float64)), 9) for values in ([3.0], [2.0, 1.0])]
    found = losses(layers, 2.0)
    assert found[:3].tolist() == pytest.approx([math.sqrt(9 + 5 + 4), math.sqrt(1 + 4), 2.0])
    assert least_rank(found, 2.0 / math.sqrt(18) + 1e-9) == 2
    assert least_rank(found, 0.1) is None
    assert losses([]).tolist() == [0.0]

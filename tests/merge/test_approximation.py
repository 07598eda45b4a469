"""The factors of a rank lose what Eckart and Young say, however they are found."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from soupmix.merge import approximation
from soupmix.merge.approximation import nearest


def drawn(out: int, inputs: int) -> Tensor:
    return torch.randn(out, inputs, generator=torch.Generator().manual_seed(out + inputs))


def thinned() -> Tensor:
    whole = drawn(300, 24) @ drawn(24, 500)
    return whole * (whole.abs() > 5)


MATRICES: dict[str, Callable[[], Tensor]] = {
    "noise": lambda: drawn(300, 400),
    "tall": lambda: drawn(400, 300),
    "thinned": thinned,
    "of a lower rank": lambda: drawn(300, 3) @ drawn(3, 400),
    "nearly of the rank": lambda: drawn(300, 16) @ drawn(16, 400) + 1e-2 * drawn(300, 400),
    "more nearly of the rank": lambda: drawn(300, 16) @ drawn(16, 400) + 1e-5 * drawn(300, 400),
    "nothing": lambda: torch.zeros(300, 400),
    "one entry": lambda: torch.zeros(300, 400).index_put((torch.tensor([3]), torch.tensor([5])), torch.tensor([2.0])),
    "all alike": lambda: torch.eye(300),
    "tiny": lambda: drawn(300, 400) * 1e-30,
    "small": lambda: drawn(20, 30),
}


@pytest.mark.parametrize("tries", [approximation._TRIES, 1 / 16], ids=["few vectors", "without convergence"])
@pytest.mark.parametrize("name", MATRICES)
def test_no_factors_of_the_rank_are_nearer(name: str, tries: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(approximation, "_TRIES", tries)
    matrix = MATRICES[name]()
    B, A, lost, norm = nearest(matrix, 16)
    assert (B.shape, A.shape) == ((len(matrix), 16), (16, matrix.shape[1]))
    exact = matrix.double()
    best = float(torch.linalg.svdvals(exact)[16:].norm())
    assert norm == pytest.approx(float(exact.norm()), rel=1e-12)
    assert lost == pytest.approx(float((exact - B @ A).norm()), rel=1e-8, abs=1e-13 * norm)
    assert best - 1e-9 * norm <= lost <= best + 1e-6 * norm

"""The compiled soup of a layer against the truth in float64, on every instruction set that this processor has."""

import ctypes
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from soupmix.base import cache_root
from soupmix_kernels import Coefficients, Part, Pool, reference
from soupmix_kernels.compiled import CannotCompile, CompiledSoup, SoupLibrary, build, soup
from soupmix_kernels.compiled.build import SOUP, instructions

pytestmark = pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="no C++ compiler here")
CPU, K = torch.device("cpu"), 3


@pytest.fixture(scope="module", params=instructions(SOUP) or [""])
def made(request: pytest.FixtureRequest) -> SoupLibrary:
    if not request.param:
        pytest.skip("no products of bf16 pairs here")
    return SoupLibrary(cache_root() / "step", request.param)


class Case:
    """A pool, its compiled soup, and rows of some people and of nobody."""

    def __init__(
        self, made: SoupLibrary, inputs: int, widths: Sequence[int], rows: int, rank: int = 5, seed: int = 0
    ) -> None:
        draw = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=draw)

        parts = [
            [Part(k, normal(rank, inputs) * inputs**-0.5, normal(out, rank), 0.5 + k) for k in range(K)]
            for out in widths
        ]
        self.pool = Pool.stack(parts, widths, inputs=inputs, dtype=torch.bfloat16, device=CPU)
        self.soup = CompiledSoup(self.pool, made)
        self.x, self.y = normal(rows, inputs).bfloat16(), normal(rows, sum(widths)).bfloat16()
        self.weights = torch.rand(4, K, generator=draw)
        self.weights[1, 0] = 0
        self.person = torch.randint(-1, 5, (rows,), generator=draw, dtype=torch.int32)  # 4 is beyond them: nobody

    @property
    def coefficients(self) -> Coefficients:
        return self.pool.coefficients(self.weights, torch.zeros(K), torch.ones(K))

    def expected(self) -> Tensor:
        """The truth, in float64."""
        pool = self.pool
        y = self.y.double()
        return reference.soup_linear(
            y, self.x.double(), pool.A, pool.B, self.coefficients.values, self.person, pool.widths
        )

    def found(self, rows: slice = slice(None), threads: int = 1) -> Tensor:
        y = self.y[rows].clone()
        self.soup.add_(y, self.x[rows], self.soup.table(self.coefficients), self.person[rows], threads)
        return y


SHAPES = [
    (32, (16,), 1, 5),
    (64, (40, 24), 45, 5),
    (96, (7, 1, 33), 33, 11),
    (576, (576, 192, 192), 64, 8),
    (160, (64,), 16, 16),
    (32, (100, 100), 97, 22),
]


@pytest.mark.parametrize(("inputs", "widths", "rows", "rank"), SHAPES)
def test_it_is_the_truth_but_for_rounding(
    made: SoupLibrary, inputs: int, widths: tuple[int, ...], rows: int, rank: int
) -> None:
    case = Case(made, inputs, widths, rows, rank)
    found, truth = case.found(), case.expected()
    bare = (case.person < 0) | (case.person >= 4)
    assert torch.equal(found[bare], case.y[bare])
    soups = (truth - case.y.double()).norm()
    assert (found.double() - truth).norm() <= 1.5 * (truth.bfloat16().double() - truth).norm() + 0.004 * soups
    assert bare.all() or not torch.equal(found, case.y)


def test_bits_of_a_row_depend_on_neither_its_place_nor_its_neighbours_nor_the_threads(made: SoupLibrary) -> None:
    case = Case(made, 96, (40, 24, 70), 75)
    together = case.found()
    for threads in (2, 3, 7):
        assert torch.equal(together, case.found(threads=threads))
    for rows in (slice(3, 4), slice(5, 30), slice(17, 75), slice(40, 74)):
        assert torch.equal(together[rows], case.found(rows))
    before = case.x.clone()
    case.x[::2] = torch.nan
    assert torch.equal(together[1::2], case.found()[1::2])
    case.x = before
    case.person[::2] = -1
    assert torch.equal(together[1::2], case.found()[1::2])


def test_what_is_not_there_is_neither_read_nor_written(made: SoupLibrary) -> None:
    case = Case(made, 64, (40, 24), 45)
    wide = torch.full((47, 90), torch.nan, dtype=torch.bfloat16)
    y, x = wide[1:46, 3:67].copy_(case.y), torch.full((46, 70), torch.nan, dtype=torch.bfloat16)[:45, :64].copy_(case.x)
    case.soup.add_(y, x, case.soup.table(case.coefficients), case.person, 2)
    assert torch.equal(y, case.found())
    wide[1:46, 3:67] = torch.nan
    assert wide.isnan().all()


def test_an_adapter_of_weight_zero_is_excluded_and_not_multiplied(made: SoupLibrary) -> None:
    case = Case(made, 64, (40, 24), 45)
    case.person[:] = 1  # whose first weight is 0
    finite = case.found()
    A = case.pool.A.clone()
    for columns in A.split(case.pool.B.shape[1]):
        columns[:5] = 3e38  # what overflows is inf, and inf times 0 is no number
    loud = Pool(A, case.pool.B, case.pool.columns, case.pool.scale, case.pool.root, case.pool.widths, case.pool.rank,
                case.pool.factors)  # fmt: skip
    case.x[:] = case.x.abs() + 1
    case.soup = CompiledSoup(case.pool, made)
    finite = case.found()
    case.soup = CompiledSoup(loud, made)
    assert torch.equal(case.found(), finite)
    assert finite.isfinite().all()


def test_bounds_are_clamped_to_and_nobody_makes_a_table_of_anything_else(made: SoupLibrary) -> None:
    case = Case(made, 64, (40,), 20)
    with pytest.raises(TypeError, match="Coefficients"):
        case.soup.table(torch.ones(4, 15))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="columns"):
        case.soup.table(Case(made, 64, (40, 8), 20).coefficients)


def test_what_the_library_cannot_read_is_refused(made: SoupLibrary) -> None:
    case = Case(made, 64, (40,), 20)
    y, x, table, person = case.y.clone(), case.x, case.soup.table(case.coefficients), case.person
    for change in (
        {"x": x[:, :32]}, {"x": x[:10]}, {"x": x.float()}, {"y": y.float()}, {"y": y[:, :20]}, {"person": person.long()},
        {"person": person[:5]}, {"table": table[:, :-1]}, {"table": table.double()}, {"x": x.t().contiguous().t()},
        {"y": y.t().contiguous().t()},
    ):  # fmt: skip
        given = {"y": y, "x": x, "table": table, "person": person, **change}
        with pytest.raises(ValueError, match="takes bf16 rows"):
            case.soup.add_(**given, threads=1)  # type: ignore[arg-type]
    assert torch.equal(y, case.y)
    narrow = Pool.stack([[Part(0, torch.ones(2, 40), torch.ones(8, 2), 1.0)]], [8], inputs=40, dtype=torch.bfloat16,
                        device=CPU)  # fmt: skip
    assert not CompiledSoup.fits(narrow)
    with pytest.raises(ValueError, match="none that a compiled soup"):
        CompiledSoup(narrow, made)


def test_a_library_that_computes_something_else_is_not_used(made: SoupLibrary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soup, "_tried", set())
    for wrong in (lambda *_: None, lambda _, rows: ctypes.memset(rows._obj.y, 0, 200)):
        monkeypatch.setattr(made, "call", wrong)
        with pytest.raises(CannotCompile, match="wrong by"):
            soup._try(made)


def test_a_processor_without_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_loaded", {})
    monkeypatch.setattr(build, "instructions", lambda *_: ())
    with pytest.raises(CannotCompile, match="no amx-bf16 and no avx512-bf16"):
        SoupLibrary(tmp_path)

"""The counts of `jit.traffic` are what active lanes ask for: bytes per kernel and argument, distinct elements, FLOPs."""

import inspect
from collections import Counter
from collections.abc import Sequence
from itertools import product
from typing import Any

import pytest
import torch
from triton.runtime.interpreter import InterpreterBuilder

from soupmix_kernels.jit import coefficients, merge, soup_linear, tiles
from soupmix_kernels.jit.traffic import Traffic, coefficients_traffic, merge_traffic, soup_traffic
from tests.support import watch

OPS = torch.ops.soupmix
DTYPES = (torch.float32, torch.bfloat16)
KERNELS = {
    "coefficients": coefficients.coefficients_kernel,
    "merge": merge.merge_kernel,
    "shrink": soup_linear.shrink_kernel,
    "expand": soup_linear.expand_kernel,
    "expand_factor": soup_linear.expand_factor_kernel,
}
MANY = tiles.DECODE_ROWS + 7  # rows of a prefill

# rows, people, inputs, widths, rank of a block, blocks, columns of padding
SOUPS = (
    (1, 1, 1, (1,), 1, 1, 0),
    (1, 1, 130, (70,), 5, 3, 1),
    (3, 2, 33, (17, 5), 3, 2, 1),
    (19, 19, 150, (65, 9, 70), 16, 6, 0),
    (tiles.DECODE_ROWS, 40, 37, (3, 130), 7, 5, 5),
    (tiles.DECODE_ROWS, 1, 300, (20,), 33, 1, 7),
    (MANY, 1, 70, (131,), 9, 4, 0),
    (MANY, MANY, 65, (66, 1, 65), 33, 2, 2),
    (MANY, 5, 20, (40, 7), 24, 4, 0),
    (2, 2, 20, (9, 7), 150, 2, 4),
)
# out, inputs, R, people
MERGES = ((1, 1, 1, 1), (17, 33, 8, 2), (70, 200, 37, 1), (130, 70, 96, 3), (600, 20, 5, 1), (9, 5, 0, 2))
# people, adapters, columns, columns of padding
COEFFICIENTS = ((1, 1, 1, 0), (3, 5, 40, 7), (2, 16, 300, 12), (4, 37, 129, 0))


@pytest.fixture
def dots(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """FLOPs of all dots by kernel, padding included."""
    counted: Counter[str] = Counter()
    dot = InterpreterBuilder.create_dot

    def create_dot(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        counted[watch._state["launch"].kernel] += 2 * a.data.size * b.data.shape[1]
        return dot(self, a, b, *rest)

    monkeypatch.setattr(InterpreterBuilder, "create_dot", create_dot)
    return counted


@pytest.mark.parametrize(("shape", "dtype", "factor"), list(product(SOUPS, DTYPES, (False, True))))
def test_soup(
    shape: tuple[int, int, int, Sequence[int], int, int, int], dtype: torch.dtype, factor: bool, dots: Counter[str]
) -> None:
    rows, people, inputs, widths, rank, blocks, padding = shape
    R, slices = rank * blocks + padding, len(widths)
    y, x, A, B = (
        torch.ones(shape, dtype=dtype)
        for shape in ((rows, sum(widths)), (rows, inputs), (slices * R, inputs), (sum(widths), R))
    )
    c, persons = torch.ones(people, slices * R), torch.arange(rows, dtype=torch.int32) % people
    with watch.counting() as counted:
        if factor:
            OPS.soup_linear_factor_(y, x, A, B, c, persons, list(widths), rank)
        else:
            OPS.soup_linear_(y, x, A, B, c, persons, list(widths))
    launches = soup_traffic(rows, people, inputs, widths, R, dtype, rank if factor else 0)
    agree(counted, launches, dots)
    used = slices * (rank * blocks if factor else R)
    shares = tiles.shrink_tile(dtype, rows)["SPLIT"]
    shrink, expand = ({name: one.read + one.written for name, one in each.arguments.items()} for each in launches)
    size = dtype.itemsize
    assert shrink == {"x": x.numel() * size, "a": A.numel() * size, "h": shares * rows * slices * R * 4}
    assert expand == {
        "h": shares * rows * used * 4,
        "b": sum(widths) * used // slices * size,
        "y": 2 * y.numel() * size,
        "rows": persons.numel() * 4,
        "c": people * used * 4,
    }


@pytest.mark.parametrize(("shape", "dtype"), list(product(MERGES, DTYPES)))
def test_merge(shape: tuple[int, int, int, int], dtype: torch.dtype, dots: Counter[str]) -> None:
    out, inputs, R, people = shape
    W, A, B = (torch.ones(shape, dtype=dtype) for shape in ((out, inputs), (R, inputs), (out, R)))
    c = torch.ones(people, R)
    with watch.counting() as counted:
        merged = OPS.merge(W, A, B, c)
    launch = merge_traffic(out, inputs, R, people, dtype)
    agree(counted, [launch], dots)
    assert launch.compulsory == sum(one.numel() * one.element_size() for one in (W, A, B, c, merged))


@pytest.mark.parametrize("shape", COEFFICIENTS)
def test_coefficients(shape: tuple[int, int, int, int]) -> None:
    people, adapters, columns, padding = shape
    numbers = torch.arange(columns, dtype=torch.int32) % adapters
    numbers[columns - padding :] = -1
    given = (torch.ones(people, adapters), torch.zeros(adapters), torch.ones(adapters), numbers, torch.ones(columns))
    with watch.counting() as counted:
        made = OPS.coefficients(*given)
    launch = coefficients_traffic(people, adapters, columns, padding)
    agree(counted, [launch], Counter())
    assert launch.compulsory == sum(one.numel() * one.element_size() for one in (*given, *made))


def agree(counted: watch.Traffic, launches: Sequence[Traffic], dots: Counter[str]) -> None:
    """Every kernel, every argument, loads and stores, as often as asked for and once; nothing else moved; all FLOPs."""
    requested, distinct = {}, {}
    for launch in launches:
        assert launch.issued >= launch.useful >= 0
        parameters = list(inspect.signature(KERNELS[launch.kernel].fn).parameters)
        for name, moved in launch.arguments.items():
            key = (f"{launch.kernel}_kernel", parameters.index(f"{name}_ptr"))
            requested[key], distinct[key] = [moved.loaded, moved.stored], [moved.read, moved.written]
    assert dict(counted.lanes) == {key: pair for key, pair in requested.items() if any(pair)}
    assert counted.distinct() == {key: pair for key, pair in distinct.items() if any(pair)}
    assert dots == {f"{launch.kernel}_kernel": launch.issued for launch in launches if launch.issued}
    assert sum(map(sum, requested.values())) == sum(launch.requested for launch in launches)


def test_useful_and_issued_flops_of_a_tile_that_is_full() -> None:
    """Multiples of every block: nothing is padding; one row more, and a whole block of rows is."""
    for dtype in DTYPES:
        full = soup_traffic(1024, 1, 1024, (1024, 1024), 128, dtype)
        assert [launch.useful for launch in full] == [launch.issued for launch in full] == [2 * 1024 * 1024 * 256] * 2
        assert merge_traffic(1024, 1024, 128, 2, dtype).issued == 2 * 2 * 1024 * 1024 * 128
        assert all(launch.issued > launch.useful for launch in soup_traffic(1025, 1, 1024, (1024, 1024), 128, dtype))


def test_nothing_to_do_is_no_launch() -> None:
    for rows, people, inputs, widths, R in (
        (0, 1, 4, (3,), 2),
        (1, 0, 4, (3,), 2),
        (1, 1, 0, (3,), 2),
        (1, 1, 4, (3,), 0),
    ):
        assert soup_traffic(rows, people, inputs, widths, R, torch.float32) == ()

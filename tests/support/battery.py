"""What every kernel must do, as cases that raise: run one by one as tests, and all together against every mutant.

Inputs lie as strided windows in buffers filled with NaN, the watcher checks every address, and the truth is float64. A kernel
may err at most twice as much as plain torch does in the same dtype. Tensors are made on torch's default device: under
`torch.device("cuda")` the same cases run on a GPU. Numbers are drawn on the CPU, so that they are the same everywhere.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from soupmix_kernels import cpu, reference

OPS = torch.ops.soupmix
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
NAN, INF = float("nan"), float("inf")
# one order of sums, whatever the layout: so it is in the interpreter, and neither in BLAS nor sure in code for a GPU
EXACT = os.environ.get("TRITON_INTERPRET") == "1" and os.environ.get("SOUPMIX_KERNELS") == "triton"

# rows, inputs, widths, ranks, people
SOUPS = (
    (1, 1, (1,), (1,), 1),
    (3, 17, (33,), (3, 5), 2),
    (19, 70, (45, 9), (4, 8, 16, 2, 1), 3),
    (5, 150, (17, 70, 9), (16,) * 6, 5),
    (2, 1100, (20,), (3,), 1),
    (64, 33, (3, 1, 2), (1,) * 16, 40),
    (65, 150, (130, 20), (5, 3), 4),
    (130, 65, (66, 1, 65), (33,), 3),
)
FACTORS = (
    (1, 1, (1,), 1, 1, 1),
    (3, 17, (33,), 2, 5, 2),
    (19, 70, (45, 9), 5, 16, 3),
    (5, 150, (17, 70, 9), 3, 20, 5),
    (2, 1100, (20,), 16, 1, 1),
    (65, 150, (130, 20), 4, 3, 4),
    (70, 65, (66, 1, 65), 2, 64, 3),
    (3, 33, (20,), 2, 150, 2),
)
# out, in, ranks, people
MERGES = (
    (1, 1, (1,), 1),
    (17, 33, (3, 5), 2),
    (64, 128, (16,) * 6, 1),
    (70, 200, (4, 8, 16, 2, 1), 3),
    (600, 130, (3,), 1),
    (17, 20, (64,), 1),
    (31, 300, (1,) * 16, 4),
    (9, 5, (), 2),
)


def cases() -> Iterator[tuple[str, Callable[[], None]]]:
    """Name and check of every case, quick ones first."""
    for seed, (people, adapters) in enumerate(((1, 1), (3, 5), (2, 16), (40, 17), (1, 40))):
        yield f"coefficients-{people}x{adapters}", partial(coefficients, people, adapters, seed)
    for number, dtype in ((n, d) for n in range(len(SOUPS)) for d in DTYPES):
        yield f"soup_linear-{number}-{_name(dtype)}", partial(soup_linear, *SOUPS[number], dtype=dtype)
    for number, dtype in ((n, d) for n in range(len(FACTORS)) for d in DTYPES):
        yield f"soup_linear_factor-{number}-{_name(dtype)}", partial(soup_linear_factor, *FACTORS[number], dtype=dtype)
    for number, dtype in ((n, d) for n in range(len(MERGES)) for d in DTYPES):
        yield f"merge-{number}-{_name(dtype)}", partial(merge, *MERGES[number], dtype=dtype)
    for rank in (0, 4):
        yield f"rows-alone-{rank}", partial(rows_alone, rank)
        yield f"a-row-of-nan-{rank}", partial(a_row_of_nan, rank)
        yield f"excluded-{rank}", partial(excluded, rank)
        yield f"layouts-{rank}", partial(layouts, rank)
    yield "coefficients-layouts", coefficients_layouts
    yield "merge-layouts", merge_layouts
    yield "empty", empty
    yield "coefficients-without-columns", coefficients_without_columns


def coefficients(people: int, adapters: int, seed: int) -> None:
    """Exactly the reference, whatever the tables hold; never outside of the bounds."""
    draw = torch.Generator().manual_seed(seed)
    weights = _hostile(people, adapters, draw)
    lo, hi = _bounds(adapters, draw)
    columns = _here(torch.randint(-2, adapters + 2, (300,), generator=draw, device="cpu").int())  # some of no adapter
    scale = _random(draw, 300) / 0.3
    columns[7], scale[7] = min(9, adapters - 1), 3e38  # overflows where the bounds let it
    weights[0, min(9, adapters - 1)] = 1e38
    c, rejected = OPS.coefficients(window(weights), lo, hi, columns, scale)
    expected, counted = reference.coefficients(weights, lo, hi, columns, scale)
    if not (torch.equal(c, expected) and torch.equal(rejected, counted)):
        raise AssertionError("coefficients or counts differ from the reference")
    known = (columns >= 0) & (columns < adapters)
    k = torch.where(known, columns, 0).long()
    ends = torch.stack([lo[k] * scale, hi[k] * scale, torch.zeros(300)]).nan_to_num()
    if not ((c >= ends.amin(0)) & (c <= ends.amax(0))).all():
        raise AssertionError("a coefficient is outside of its bounds")
    if c[:, ~known].any() or c[:, known & (lo == 0)[k] & (hi == 0)[k]].any():
        raise AssertionError("an adapter that is not approved has a coefficient")


def soup_linear(
    rows: int, inputs: int, widths: Sequence[int], ranks: Sequence[int], people: int, *, dtype: torch.dtype
) -> None:
    """Delta: windows, unknown people and neighbours are left alone; the rest is near the truth."""
    soup(rows, inputs, widths, ranks, people, dtype=dtype, rank=0)


def soup_linear_factor(
    rows: int, inputs: int, widths: Sequence[int], adapters: int, rank: int, people: int, *, dtype: torch.dtype
) -> None:
    """Factor: the same; columns after the last whole block are padding."""
    padding = min(3, rank - 1)
    soup(rows, inputs, widths, [rank] * adapters + [padding] * (padding > 0), people, dtype=dtype, rank=rank)


def soup(
    rows: int,
    inputs: int,
    widths: Sequence[int],
    ranks: Sequence[int],
    people: int,
    *,
    dtype: torch.dtype,
    rank: int,
) -> None:
    """Both, on tensors that fill their memory and on windows; `rank` 0 means delta."""
    R = sum(ranks)
    y, x, A, B, c, persons = _inputs(rows, inputs, widths, R, people, dtype)
    c = (c.view(people, -1, R) * _dead(people, ranks)[:, None]).flatten(1)
    if rank:
        exact = reference.soup_linear_factor(y.double(), x, A, B, c, persons, widths, rank)
    else:
        exact = reference.soup_linear(y.double(), x, A, B, c, persons, widths)
    _judge(y, exact, c, persons, (x, A, B, widths), rank)


def merge(out: int, inputs: int, ranks: Sequence[int], people: int, *, dtype: torch.dtype) -> None:
    """Near the truth; adapters of coefficient zero may hold anything; W is left alone unless it is the target."""
    draw = torch.Generator().manual_seed(out * inputs)
    R = sum(ranks)
    W, A, B = (_random(draw, *shape).to(dtype) for shape in ((out, inputs), (R, inputs), (out, R)))
    c = _here(torch.randn(people, R, generator=draw, device="cpu")) * _dead(people, ranks)
    dead = (c == 0).all(0)
    A[dead], B[:, dead] = INF, NAN
    exact, plain = reference.merge(W.double(), A, B, c), torch.empty(people, out, inputs, dtype=dtype)
    cpu.merge_into(plain, W, A, B, c)
    target = window(torch.zeros(people, out, inputs, dtype=dtype))
    W, A, B, c = window(W), window(A), window(B), window(c)
    before = W.clone()
    OPS.merge_out(target, W, A, B, c)
    _near(target, exact, plain)
    _near(OPS.merge(*(tensor.contiguous() for tensor in (W, A, B, c))), exact, plain)
    _same_bits(W, before)
    if people == 1:
        OPS.merge_(W, A, B, c)
        _same_bits(W, target[0])


def rows_alone(rank: int) -> None:
    """A row's bits do not change with its neighbours: together, alone, in another order."""
    for rows in (33, 70):
        y, x, A, B, c, persons = _inputs(rows, 70, (40, 7), 12, 5, torch.bfloat16)
        together = _run(y, x, A, B, c, persons, (40, 7), rank)
        order = _here(torch.randperm(rows, generator=torch.Generator().manual_seed(1), device="cpu"))
        _same_bits(_run(y[order], x[order], A, B, c, persons[order], (40, 7), rank), together[order])
        for part in (slice(0, 1), slice(4, 33)) if rows == 33 else (slice(3, 68),):
            _same_bits(_run(y[part], x[part], A, B, c, persons[part], (40, 7), rank), together[part])


def a_row_of_nan(rank: int) -> None:
    """What one row holds, or one person's coefficients, reaches no other row."""
    y, x, A, B, c, persons = _inputs(9, 70, (40, 7), 12, 9, torch.float32)
    persons = torch.arange(9, dtype=torch.int32)
    clean = _run(y, x, A, B, c, persons, (40, 7), rank)
    x[3], y[5], c[7] = NAN, INF, NAN
    got = _run(y, x, A, B, c, persons, (40, 7), rank)
    others = [row for row in range(9) if row not in (3, 5, 7)]
    _same_bits(got[others], clean[others])
    if not got[[3, 5, 7]].isfinite().logical_not().any(1).all():
        raise AssertionError("a poisoned row is not poisoned")


def excluded(rank: int) -> None:
    """Rank columns of coefficient zero may overflow: they are left out, not multiplied by zero."""
    y, x, A, B, c, persons = _inputs(9, 70, (40, 7), 12, 3, torch.float16)
    each = c.view(3, 2, 12)
    each[..., 4:8] = 0
    A.view(2, 12, 70)[:, 4:8] = INF
    got = _run(y, x, A, B, c, persons, (40, 7), rank)
    A.view(2, 12, 70)[:, 4:8] = 0
    _same_bits(got, _run(y, x, A, B, c, persons, (40, 7), rank))
    each[..., 8:] = 0
    A.view(2, 12, 70)[:, :4] = INF  # what is granted may overflow; the rest must not make a NaN of it
    got = _run(y, x.abs(), A, B.abs(), c.abs(), persons, (40, 7), rank)
    if got.isnan().any() or not got.isinf().any():
        raise AssertionError("a column of coefficient zero was multiplied")


def layouts(rank: int) -> None:
    """Every tensor may lie in every way; only what is written must lie apart."""
    widths = (40, 7)
    given = dict(zip(("y", "x", "A", "B", "c", "persons"), _inputs(9, 70, widths, 12, 3, torch.float32), strict=True))
    for name, tensor in given.items():
        for way, laid in _laid_out(tensor, written=name == "y"):
            turned, plain = given | {name: laid}, given | {name: laid.contiguous()}
            y = turned["y"] if name == "y" else turned["y"].clone()
            expected, before = plain["y"].clone(), plain["y"].double()
            _soup_op(**turned | {"y": y}, widths=widths, rank=rank)
            _soup_op(**plain | {"y": expected}, widths=widths, rank=rank)
            _, x, A, B, c, persons = plain.values()
            if rank:
                exact = reference.soup_linear_factor(before, x, A, B, c, persons, widths, rank)
            else:
                exact = reference.soup_linear(before, x, A, B, c, persons, widths)
            _alike(y, expected, exact, f"{name} {way}")


def coefficients_layouts() -> None:
    draw = torch.Generator().manual_seed(4)
    lo, hi = _bounds(9, draw)
    columns = _here(torch.randint(-1, 10, (21,), generator=draw, device="cpu").int())
    given = {"weights": _hostile(3, 9, draw), "lo": lo, "hi": hi, "columns": columns, "scale": _random(draw, 21)}
    for name, tensor in given.items():
        for way, laid in _laid_out(tensor):
            got = OPS.coefficients(*(given | {name: laid}).values())
            expected = reference.coefficients(*(given | {name: laid.contiguous()}).values())
            if not all(torch.equal(one, other) for one, other in zip(got, expected, strict=True)):
                raise AssertionError(f"{name} {way}: coefficients or counts differ from the reference")


def merge_layouts() -> None:
    draw = torch.Generator().manual_seed(3)
    given = dict(zip("WABc", (_random(draw, *shape) for shape in ((9, 14), (6, 14), (9, 6), (2, 6))), strict=True))
    for name, tensor in given.items():
        for way, laid in _laid_out(tensor):
            turned, plain = given | {name: laid}, given | {name: laid.contiguous()}
            exact = reference.merge(plain["W"].double(), plain["A"], plain["B"], plain["c"])
            _alike(OPS.merge(*turned.values()), OPS.merge(*plain.values()), exact, f"{name} {way}")
    expected, exact = OPS.merge(*given.values()), reference.merge(given["W"].double(), *list(given.values())[1:])
    for way, out in _laid_out(torch.zeros(2, 9, 14), written=True):
        OPS.merge_out(out, *given.values())
        _alike(out, expected, exact, f"out {way}")
    for way, W in _laid_out(given["W"], written=True):
        OPS.merge_(W, given["A"], given["B"], given["c"][:1])
        _alike(W, expected[0], exact[0], f"W in place {way}")


def empty() -> None:
    """No rows, no people, no adapters, no outputs: nothing happens."""
    one = torch.ones(1)
    c, rejected = OPS.coefficients(torch.ones(0, 1), one, one, torch.zeros(3).int(), torch.ones(3))
    if c.shape != (0, 3) or rejected.shape != (0,):
        raise AssertionError("nobody has coefficients")
    c, rejected = OPS.coefficients(torch.ones(2, 0), one[:0], one[:0], torch.zeros(3).int(), torch.ones(3))
    if c.any() or rejected.any():
        raise AssertionError("no adapter has a coefficient")
    for rows, people, R in ((0, 2, 4), (3, 0, 4), (3, 2, 0)):
        y, x, A, B, c, persons = _inputs(rows, 5, (3,), R, max(people, 1), torch.float32)
        for rank in (0, 1):
            if rank <= R and not torch.equal(_run(y, x, A, B, c[:people], persons, (3,), rank), y):
                raise AssertionError("a soup of nothing changed something")
    if OPS.merge(torch.ones(2, 3), torch.ones(4, 3), torch.ones(2, 4), torch.ones(0, 4)).shape != (0, 2, 3):
        raise AssertionError("nobody has a merge")


def coefficients_without_columns() -> None:
    """Weights that are not finite are counted, whatever the columns: the count is no memory that nobody wrote."""
    weights, one = torch.ones(5, 3), torch.ones(3)
    weights[1, 2], weights[3] = NAN, INF
    strict = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)  # so that torch.empty is filled with what nobody takes for a count
    try:
        c, rejected = OPS.coefficients(weights, one * 0, one, torch.zeros(0, dtype=torch.int32), torch.zeros(0))
    finally:
        torch.use_deterministic_algorithms(strict)
    if c.shape != (5, 0) or rejected.tolist() != [0, 1, 0, 3, 0]:
        raise AssertionError(f"counted {rejected.tolist()}")


def _laid_out(tensor: Tensor, *, written: bool = False) -> Iterator[tuple[str, Tensor]]:
    """The same values in other places: turned, in a window, off alignment, apart; and for what is read one line, repeated."""
    yield "plain", tensor.clone()
    yield "in a window", window(tensor)
    if tensor.dim() > 1:
        yield "turned", tensor.transpose(-1, -2).contiguous().transpose(-1, -2)
    flat = torch.full((tensor.numel() + 1,), 0, dtype=tensor.dtype)
    yield "off alignment", flat[1:].view(tensor.shape).copy_(tensor)
    yield "apart", torch.stack([tensor, torch.full_like(tensor, 99)], -1)[..., 0]
    if not written:
        yield "repeated", tensor[:1].expand(tensor.shape)
        yield "of one column", tensor[..., :1].expand(tensor.shape)


def _alike(got: Tensor, expected: Tensor, exact: Tensor, what: str) -> None:
    try:
        if EXACT:
            _same_bits(got, expected)
        _near(got, exact, expected)
    except AssertionError as error:
        raise AssertionError(f"{what}: {error}") from None


def window(tensor: Tensor) -> Tensor:
    """The same values with row strides of their own, inside a buffer of NaN (of garbage, for integers)."""
    shape = [n + 3 for n in tensor.shape]
    buffer = torch.full(shape, NAN if tensor.is_floating_point() else 77, dtype=tensor.dtype)
    view = buffer[tuple(slice(1, 1 + n) for n in tensor.shape)]
    view.copy_(tensor)
    return view


def _inputs(
    rows: int, inputs: int, widths: Sequence[int], R: int, people: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(rows * inputs + R)
    slices = len(widths)
    shapes = ((rows, sum(widths)), (rows, inputs), (slices * R, inputs), (sum(widths), R))
    y, x, A, B = (_random(draw, *shape).to(dtype) for shape in shapes)
    y[:, 0] = -0.0
    persons = torch.randint(-1, people + 1, (rows,), generator=draw, device="cpu").int()  # some are nobody
    c = torch.randn(people, slices * R, generator=draw, device="cpu")
    return y, x, A, B, _here(c), _here(persons)


def _random(draw: torch.Generator, *shape: int) -> Tensor:
    return _here(torch.randn(*shape, generator=draw, device="cpu") * 0.3)


def _here(tensor: Tensor) -> Tensor:
    return tensor.to(torch.get_default_device())


def _dead(people: int, ranks: Sequence[int]) -> Tensor:
    """Ones [people, columns], and zeros where a person has not got an adapter; the second of many is nobody's."""
    ones = torch.ones(people, len(ranks))
    for person in range(people):
        ones[person, person % 3 :: 3] = 0 if len(ranks) > 1 else 1
    if len(ranks) > 2:
        ones[:, 1] = 0
    return ones.repeat_interleave(torch.tensor(ranks, dtype=torch.long), 1) if ranks else ones


def _hostile(people: int, adapters: int, draw: torch.Generator) -> Tensor:
    weights = torch.randn(people, adapters, generator=draw, device="cpu")
    flat = weights.view(-1)
    for value in (NAN, INF, -INF, 1e38, -1e38, 0.0, -0.0, 1e-45):
        flat[torch.randint(flat.numel(), (1,), generator=draw, device="cpu")] = value
    return _here(weights)


def _bounds(adapters: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    lo = _here(torch.rand(adapters, generator=draw, device="cpu")) * -(torch.arange(adapters) % 2)
    hi = _here(torch.rand(adapters, generator=draw, device="cpu"))
    for place, (least, most) in enumerate(
        ((0.0, 0.0), (NAN, 1.0), (0.0, NAN), (0.5, 0.2), (-INF, INF), (0.25, 0.75), (0.5, 0.5))
    ):
        if 2 * place + 1 < adapters:
            lo[2 * place + 1], hi[2 * place + 1] = least, most
    return lo, hi


def _run(
    y: Tensor, x: Tensor, A: Tensor, B: Tensor, c: Tensor, persons: Tensor, widths: Sequence[int], rank: int
) -> Tensor:
    made = y.clone()
    _soup_op(made, x, A, B, c, persons, widths, rank)
    return made


def _soup_op(
    y: Tensor, x: Tensor, A: Tensor, B: Tensor, c: Tensor, persons: Tensor, widths: Sequence[int], rank: int
) -> None:
    if rank:
        OPS.soup_linear_factor_(y, x, A, B, c, persons, list(widths), rank)
    else:
        OPS.soup_linear_(y, x, A, B, c, persons, list(widths))


def _judge(
    y: Tensor, exact: Tensor, c: Tensor, persons: Tensor, given: tuple[Tensor, Tensor, Tensor, Sequence[int]], rank: int
) -> None:
    x, A, B, widths = given
    plain = y.clone()
    cpu.soup_into(plain, x, A, B, c, persons, widths, rank)
    got = window(y)
    around = got._base.clone() if got._base is not None else got
    _soup_op(got, window(x), window(A), window(B), window(c), persons, widths, rank)
    _near(got, exact, plain)
    _near(_run(y, x, A, B, c, persons, widths, rank), exact, plain)
    nobody = (persons < 0) | (persons >= c.shape[0])
    _same_bits(got[nobody], y[nobody])
    kept = got.clone()
    got.copy_(y)
    _same_bits(got._base if got._base is not None else got, around)  # nothing outside of the window was written
    got.copy_(kept)


def _near(got: Tensor, exact: Tensor, plain: Tensor) -> None:
    """At most twice the error of plain torch in the same dtype, plus a hair for where that is exact."""
    if got.dtype != plain.dtype or not got.isfinite().all():
        raise AssertionError(f"{got.dtype} with {int((~got.isfinite()).sum())} values that are not finite")
    error, allowed = (got.double() - exact).norm(), (plain.double() - exact).norm()
    hair = 4 * torch.finfo(got.dtype).eps
    if error > 2 * allowed + hair * exact.norm() / max(exact.numel(), 1) ** 0.5:
        raise AssertionError(f"error {error:.3g}, plain torch {allowed:.3g}, norm {exact.norm():.3g}")
    if not got.numel():
        return
    worst, usual = ((each.double() - exact).abs().max() for each in (got, plain))
    if worst > max(2 * usual, hair * exact.abs().max().clamp(min=1)):
        raise AssertionError(f"one value is off by {worst:.3g}")


def _same_bits(one: Tensor, other: Tensor) -> None:
    kind = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[one.element_size()]
    if not torch.equal(one.contiguous().view(kind), other.contiguous().view(kind)):
        raise AssertionError("bits differ")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")

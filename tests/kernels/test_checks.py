"""What no op takes: every backend would read or write beyond its tensors, or give a result that depends on who comes first."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

import soupmix_kernels as kernels
from soupmix_kernels import Part, Pool, RowCoefficients

OPS = torch.ops.soupmix
CPU = torch.device("cpu")
Given = dict[str, Any]
PEOPLE, ADAPTERS, ROWS, INPUTS, OUT, R = 3, 2, 4, 16, 8, 4


def coefficients() -> Given:
    numbers = torch.tensor([0, 1, 1, -1], dtype=torch.int32)
    return {
        "weights": torch.rand(PEOPLE, ADAPTERS),
        "lo": torch.zeros(ADAPTERS),
        "hi": torch.ones(ADAPTERS),
        "columns": numbers,
        "scale": torch.ones(R),
    }


def merge() -> Given:
    W, A, B = torch.randn(OUT, INPUTS), torch.randn(R, INPUTS), torch.randn(OUT, R)
    return {"W": W, "A": A, "B": B, "c": torch.rand(PEOPLE, R)}


def merge_() -> Given:
    return merge() | {"c": torch.rand(1, R)}


def merge_out() -> Given:
    return {"out": torch.zeros(PEOPLE, OUT, INPUTS), **merge()}


def soup_linear_() -> Given:
    given = {"y": torch.randn(ROWS, OUT), "x": torch.randn(ROWS, INPUTS), **merge()}
    del given["W"]
    return (
        given
        | {"rows": torch.tensor([0, -1, 2, 1], dtype=torch.int32), "widths": [5, 3]}
        | {
            "A": torch.randn(2 * R, INPUTS),
            "c": torch.rand(PEOPLE, 2 * R),
        }
    )


def soup_linear_factor_() -> Given:
    return soup_linear_() | {"rank": 2}


MADE: dict[str, Callable[[], Given]] = {
    each.__name__: each for each in (coefficients, merge, merge_, merge_out, soup_linear_, soup_linear_factor_)
}
WRITTEN = {"merge_": "W", "merge_out": "out", "soup_linear_": "y", "soup_linear_factor_": "y"}
TENSORS = [(op, name) for op, make in MADE.items() for name, each in make().items() if isinstance(each, Tensor)]


def call(op: str, given: Given) -> Any:
    return getattr(OPS, op)(*given.values())


def refused(op: str, given: Given, kind: type[Exception] = ValueError, match: str | None = None) -> None:
    """It raises, and nothing was written."""
    before = {name: each.clone() for name, each in given.items() if isinstance(each, Tensor)}
    with pytest.raises(kind, match=match):
        call(op, given)
    assert all(torch.equal(given[name], each) for name, each in before.items())


@pytest.mark.parametrize("op", MADE)
def test_what_fits_is_taken(op: str) -> None:
    call(op, MADE[op]())


@pytest.mark.parametrize(("op", "name"), TENSORS)
def test_every_axis_of_every_tensor_fits_the_others(op: str, name: str) -> None:
    given = MADE[op]()
    tensor = given[name]
    people = name in ("c", "weights") and op not in ("merge_", "merge_out")  # as many as one likes
    for axis in range(1 if people else 0, tensor.dim()):
        for count in (tensor.shape[axis] - 1, tensor.shape[axis] + 1):
            shape = list(tensor.shape)
            shape[axis] = count
            refused(op, given | {name: torch.ones(shape, dtype=tensor.dtype)})
    for shape in ((*tensor.shape, 1), (1, *tensor.shape), ()):
        refused(op, given | {name: torch.ones(shape, dtype=tensor.dtype)})


@pytest.mark.parametrize(("op", "name"), TENSORS)
def test_every_tensor_has_its_dtype(op: str, name: str) -> None:
    given = MADE[op]()
    for dtype in (torch.float64, torch.float16, torch.int64, torch.int32, torch.int8, torch.bool, torch.complex64):
        if given[name].dtype != dtype:
            refused(op, given | {name: given[name].to(dtype)}, TypeError, "got ")


@pytest.mark.parametrize("op", [op for op in MADE if op != "coefficients"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.int8, torch.int32, torch.float8_e4m3fn])
def test_no_dtype_is_taken_that_kernels_do_not_multiply_in(op: str, dtype: torch.dtype) -> None:
    given = MADE[op]()
    narrow = {name: each.to(dtype) for name, each in given.items() if name in ("y", "x", "A", "B", "W", "out")}
    with pytest.raises(TypeError, match="fp32, fp16 or bf16"):
        call(op, given | narrow)


@pytest.mark.parametrize(("op", "name"), TENSORS)
def test_all_tensors_lie_on_one_device(op: str, name: str) -> None:
    given = MADE[op]()
    with pytest.raises(ValueError, match=f"all tensors of an op lie on one device; got .*{name} meta"):
        call(op, given | {name: given[name].to("meta")})


@pytest.mark.parametrize(("op", "name"), WRITTEN.items())
def test_what_is_written_does_not_lie_over_itself(op: str, name: str) -> None:
    given = MADE[op]()
    shape = given[name].shape
    inner = shape[-1]
    for strides in ((0, 1), (1, 0), (1, 1), (inner - 1, 1), (0, 0)):
        strides = strides if len(shape) == 2 else (shape[-2] * inner, *strides)
        refused(op, given | {name: torch.zeros(9999).as_strided(shape, strides)}, match=f"{name} is written")
    if len(shape) == 3:
        for first in (0, 1, shape[-2] * inner - 1):
            refused(op, given | {name: torch.zeros(9999).as_strided(shape, (first, inner, 1))}, match="is written")


@pytest.mark.parametrize(("op", "name"), WRITTEN.items())
def test_what_is_written_does_not_lie_over_what_is_read(op: str, name: str) -> None:
    made = MADE[op]()
    read = [other for other, each in made.items() if isinstance(each, Tensor) and other != name]
    for other in read:
        given = MADE[op]()
        buffer, first = torch.zeros(4096, dtype=given[other].dtype), 1024
        same, end = buffer.view(given[name].dtype), first + given[name].numel()
        written = same[first:end].view(given[name].shape)
        for at in (first, first - 1, end - 1, first - given[other].numel() + 1):
            over = buffer[at : at + given[other].numel()].view(given[other].shape)
            refused(op, given | {name: written, other: over}, match=f"{name} is written while {other} is read")
        beside = buffer[end:][: given[other].numel()].view(given[other].shape)
        call(op, given | {name: written, other: beside.copy_(given[other])})


def test_windows_of_one_matrix_side_by_side_are_apart() -> None:
    given = soup_linear_()
    buffer = torch.randn((ROWS + 1) * (INPUTS + OUT))
    wide = buffer[: -INPUTS - OUT].view(ROWS, -1)
    x, y = wide[:, :INPUTS], wide[:, INPUTS:]
    expected = y.clone()
    call("soup_linear_", given | {"x": x.clone(), "y": expected})
    call("soup_linear_", given | {"x": x, "y": y})
    torch.testing.assert_close(y, expected)
    around = buffer.as_strided((ROWS, OUT), wide.stride(), INPUTS + 1)  # its last column is the first of the next line
    with pytest.raises(ValueError, match="must not share memory"):
        call("soup_linear_", given | {"x": x, "y": wide[:, INPUTS - 1 : INPUTS - 1 + OUT]})
    with pytest.raises(ValueError, match="must not share memory"):
        call("soup_linear_", given | {"x": x, "y": around})


@pytest.mark.parametrize("op", ["soup_linear_", "soup_linear_factor_"])
@pytest.mark.parametrize("widths", [[], [-8, 16], [9, -1], [8], [2, 2, 2, 2], [5, 4], [8, 0, 0]])
def test_widths_are_one_to_three_that_sum_to_the_outputs(op: str, widths: list[int]) -> None:
    refused(op, MADE[op]() | {"widths": widths}, match="one to three widths")


@pytest.mark.parametrize("rank", [-1, R + 1])
def test_a_block_is_no_wider_than_a_slice(rank: int) -> None:
    refused("soup_linear_factor_", soup_linear_factor_() | {"rank": rank}, match="a rank of at most R")


def test_one_person_is_merged_in_place() -> None:
    for people in (0, 2, 3):
        refused("merge_", merge() | {"c": torch.rand(people, R)}, match=f"one person .* not {people}")


def test_out_may_be_the_weight_itself_for_one_person() -> None:
    given = merge_()
    expected = OPS.merge(*given.values())
    OPS.merge_out(given["W"][None], *given.values())
    torch.testing.assert_close(given["W"], expected[0])


@pytest.mark.parametrize(("op", "name"), [(op, name) for op, name in TENSORS if MADE[op]()[name].is_floating_point()])
def test_a_gradient_that_nobody_computes_is_refused(op: str, name: str) -> None:
    given = MADE[op]()
    wanting = given | {name: given[name].clone().requires_grad_()}
    with pytest.raises(RuntimeError, match=rf"{op} computes no gradients, and {name} would need them"):
        call(op, wanting)
    with torch.no_grad():
        call(op, wanting)
    with torch.inference_mode():
        call(op, given)
    chained = given | {name: wanting[name] * 1}  # no leaf
    with pytest.raises(RuntimeError, match=r"call it under torch\.no_grad"):
        call(op, chained)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # torch's own
@pytest.mark.parametrize(("op", "name"), [("merge", "W"), ("soup_linear_", "x"), ("coefficients", "weights")])
def test_a_tangent_is_a_gradient_too(op: str, name: str) -> None:
    given = MADE[op]()
    with forward_ad.dual_level():
        dual = given | {name: forward_ad.make_dual(given[name], torch.ones_like(given[name]))}
        with pytest.raises(RuntimeError, match=f"{op} computes no gradients, and {name} would need them"):
            call(op, dual)


def test_a_compiled_layer_refuses_gradients_too() -> None:
    given = soup_linear_()

    def layer(x: Tensor) -> Tensor:
        y = torch.zeros(ROWS, OUT)
        call("soup_linear_", given | {"y": y, "x": x})
        return y

    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    with pytest.raises(RuntimeError, match="computes no gradients, and x would need them"):
        compiled(given["x"].clone().requires_grad_())
    torch.testing.assert_close(compiled(given["x"]), layer(given["x"]))


def pool() -> Pool:
    parts = [[Part(0, torch.randn(R, INPUTS), torch.randn(OUT, R), 0.5)]]
    return Pool.stack(parts, [OUT], inputs=INPUTS, dtype=torch.float32, device=CPU)


@pytest.mark.parametrize("add", [kernels.soup_linear_, kernels.soup_linear_factor_])
def test_the_short_way_of_the_cpu_asks_the_same(add: Callable[..., Tensor]) -> None:
    made = pool()
    c = made.coefficients(torch.rand(PEOPLE, 1), torch.zeros(1), torch.ones(1))
    of_rows = RowCoefficients(c, torch.zeros(ROWS, dtype=torch.int32))
    x, y = torch.randn(ROWS, INPUTS), torch.randn(ROWS, OUT)
    add(y, x, made, of_rows)
    for bad in (y[0].expand(ROWS, OUT), x[:, :OUT]):
        with pytest.raises(ValueError, match="y is written"):
            add(bad, x, made, of_rows)
    for wrong in ((y[:3], x), (y, x[:3]), (y[:, 1:], x), (y, x[:, 1:]), (y[..., None], x), (y, x[0])):
        with pytest.raises(ValueError, match="got y"):
            add(*wrong, made, of_rows)
    with pytest.raises(RuntimeError, match="computes no gradients, and x would"):
        add(y, x.clone().requires_grad_(), made, of_rows)
    with pytest.raises(RuntimeError, match="computes no gradients, and y would"):
        add(y.clone().requires_grad_(), x, made, of_rows)
    with torch.no_grad():
        add(y, x.clone().requires_grad_(), made, of_rows)


def test_an_update_and_its_rows_are_asked_for_as_the_op_is() -> None:
    made = pool()
    c = made.coefficients(torch.rand(1, 1), torch.zeros(1), torch.ones(1))
    A, B, W = made.A, made.B, torch.randn(OUT, INPUTS)
    several = made.coefficients(torch.rand(2, 1), torch.zeros(1), torch.ones(1))
    for wrong in ((A[1:], B, c), (A, B[:, 1:], c), (A[0], B, c), (A, B, several)):
        with pytest.raises(ValueError, match="an update needs A"):
            kernels.Update(*wrong)
    for dtypes in ((A.double(), B.double()), (A.half(), B)):
        with pytest.raises(TypeError, match="an update needs A and B of one dtype"):
            kernels.Update(*dtypes, c)
    with pytest.raises(RuntimeError, match="an update computes no gradients, and A would"):
        kernels.Update(A.clone().requires_grad_(), B, c)
    update = kernels.Update(A, B, c)
    for first in (-1, 1, OUT + 1):
        with pytest.raises(ValueError, match=f"rows {first} to {first + OUT} were asked of an update of {OUT} rows"):
            kernels.merge_rows_(W, update, first)
    for refused, kind in ((W[:, 1:], ValueError), (W[0].expand(OUT, INPUTS), ValueError), (W.half(), TypeError)):
        with pytest.raises(kind):
            kernels.merge_rows_(refused, update)
    with pytest.raises(ValueError, match="they must not share memory"):
        kernels.merge_rows_(update.A[:OUT], update)
    with pytest.raises(RuntimeError, match="computes no gradients, and W would"):
        kernels.merge_rows_(W.clone().requires_grad_(), update)


def test_whoever_kept_a_tensor_for_a_gradient_learns_that_it_was_written() -> None:
    given, scale = soup_linear_(), torch.ones(1, requires_grad=True)
    product = (scale * given["y"]).sum()
    call("soup_linear_", given)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()


@pytest.mark.parametrize("dtype", [torch.int8, torch.int32, torch.float64, torch.float8_e4m3fn])
def test_a_pool_is_held_in_what_kernels_multiply_in(dtype: torch.dtype) -> None:
    with pytest.raises((TypeError, ValueError), match="a pool is held in fp32, fp16 or bf16"):
        Pool.stack([[Part(0, torch.ones(1, 4), torch.ones(3, 1), 1.0)]], [3], inputs=4, dtype=dtype, device=CPU)

"""What is launched, without a GPU: on which device, and that nothing is launched which the table of `aot` does not hold.

A driver that launches nothing stands where Triton's own would; the compiler is asked, and told to stop before it compiles.
"""

import importlib.util
import os
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed"),
    pytest.mark.skipif(bool(os.environ.get("TRITON_INTERPRET")), reason="TRITON_INTERPRET leaves nothing to compile"),
]

NAMES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
DTYPES = tuple(NAMES)
CONSTANTS = ("ONE", "GROUP", "SPLIT", "UNIT")
# inputs, widths, columns of a slice
SHAPES = ((64, (32, 16, 48), 16), (64, (32,), 5), (33, (32, 16), 16), (64, (33,), 16), (1, (1,), 1))


class Recorder:
    """In place of the kernels: what each launch was given, and the device that was current then."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from soupmix_kernels.jit import launch

        self.launches: list[tuple[str, bool, tuple[Any, ...], dict[str, Any], torch.device | None]] = []
        self.current: torch.device | None = None
        monkeypatch.setattr(torch.cuda, "device", self.device)
        for name in ("coefficients", "merge", "shrink", "expand", "expand_factor"):
            kernel = getattr(launch, f"{name}_kernel")
            monkeypatch.setattr(launch, f"{name}_kernel", Stand(self, kernel, loose=False))
            monkeypatch.setitem(launch._LOOSE, kernel.fn.__name__, Stand(self, kernel, loose=True))

    @contextmanager
    def device(self, device: torch.device) -> Iterator[None]:
        before, self.current = self.current, device
        try:
            yield
        finally:
            self.current = before


class Stand:
    """A kernel that notes its launches."""

    def __init__(self, recorder: Recorder, kernel: Any, *, loose: bool) -> None:
        self.fn, self.arg_names, self.kernel = kernel.fn, kernel.arg_names, kernel
        self._recorder, self._loose = recorder, loose

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        def note(*given: Any, **named: Any) -> None:
            noted = (self.fn.__name__, self._loose, given, named | {"grid": grid}, self._recorder.current)
            self._recorder.launches.append(noted)

        return note


def launch_everything(
    device: str, dtype: torch.dtype, rows: int, inputs: int, widths: tuple[int, ...], R: int, off: int = 0
) -> None:
    """Every op once; `off` elements off alignment."""
    from soupmix_kernels.jit import launch

    def made(*shape: int, of: torch.dtype = dtype) -> torch.Tensor:
        size = torch.Size(shape).numel()
        flat = torch.zeros(size + off, dtype=of, device=device)
        return (flat[off:] if off else flat).view(shape)

    out, columns = sum(widths), len(widths) * R
    numbers, flat = made(columns, of=torch.int32), made(columns, of=torch.float32)
    bounds = made(3, of=torch.float32)
    launch.coefficients(made(2, 3, of=torch.float32), bounds, bounds, numbers, flat)
    for people in (1, 2):
        c = made(people, R, of=torch.float32)
        launch.merge_into(made(people, out, inputs), made(out, inputs), made(R, inputs), made(out, R), c)
    for rank in (0, *(rank for rank in (1, 4, 8) if R % rank == 0)):
        c, persons = made(2, columns, of=torch.float32), made(rows, of=torch.int32)
        factors = made(columns, inputs), made(out, R)
        launch.soup_into(made(rows, out), made(rows, inputs), *factors, c, persons, widths, rank)


def launch_all_shapes(dtype: torch.dtype) -> None:
    """Decode and prefill, aligned, of odd sizes, and off alignment."""
    for rows in (1, 16, 64, 65, 300):
        for shape in SHAPES:
            for off in (0, 1):
                launch_everything("cpu", dtype, rows, *shape, off)


class Driver:
    """What the JIT asks of a driver before it compiles."""

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, _: int) -> int:
        return 0

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", 90, 32)


def test_every_launch_is_on_the_device_of_its_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(monkeypatch)
    monkeypatch.setattr(torch.Tensor, "data_ptr", lambda _: 0)
    with FakeTensorMode():  # tensors of a second GPU, without memory
        launch_everything("cuda:1", torch.bfloat16, 5, 32, (48, 16), 16)
    names = {name for name, *_ in recorder.launches}
    assert names == {f"{each}_kernel" for each in ("coefficients", "merge", "shrink", "expand", "expand_factor")}
    for name, _, given, _, current in recorder.launches:
        devices = {tensor.device for tensor in given if isinstance(tensor, torch.Tensor)}
        assert devices == {torch.device("cuda:1")} == {current}, name
    assert recorder.current is None


def test_on_the_cpu_no_device_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(monkeypatch)
    launch_everything("cpu", torch.float32, 2, 16, (16,), 16)
    assert {current for *_, current in recorder.launches} == {None}


@pytest.mark.parametrize("dtype", DTYPES)
def test_nothing_is_launched_that_the_table_does_not_hold(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the shapes: every launch is a configuration of the table, for as much as is known of its arguments."""
    from soupmix_kernels.jit import aot

    held = {(each.kernel, each.dtype, each.tile, each.aligned) for each in aot.configurations()}
    recorder, seen = Recorder(monkeypatch), set()
    launch_all_shapes(dtype)
    for name, loose, _, named, _ in recorder.launches:
        kernel = name.removesuffix("_kernel")
        constants = tuple((key, value) for key, value in named.items() if key.startswith("BLOCK") or key in CONSTANTS)
        tile = aot.Tile(constants, named["num_warps"], named["num_stages"])
        assert (kernel, "fp32" if kernel == "coefficients" else NAMES[dtype], tile, not loose) in held
        seen.add((kernel, loose))
    assert len(seen) == 10


@pytest.mark.parametrize("dtype", DTYPES)
def test_triton_knows_of_a_launch_what_the_table_says(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the JIT's own words: everything is a multiple of 16, or nothing is known; no third variant, and no constant 1."""
    import triton
    from triton.runtime import driver

    from soupmix_kernels.jit import launch

    told: dict[tuple[str, bool], set[frozenset[str]]] = defaultdict(set)

    def note(*, fn: Any, compile: dict[str, Any], **_: Any) -> bool:
        kernel = fn.jit_function
        constants = {kernel.arg_names[place] for (place,) in compile["constants"]}
        known = {kernel.arg_names[place] for (place,), words in compile["configs"][0].items() if words}
        assert {"i64", "u64"}.isdisjoint(compile["signature"].values())
        told[kernel.fn.__name__, bool(known)].add(frozenset(known | constants))
        return True  # enough is known: do not compile

    monkeypatch.setattr(driver, "_active", Driver())
    monkeypatch.setattr(triton.knobs.runtime, "jit_cache_hook", note)
    launch_all_shapes(dtype)
    assert len(told) == 10
    for (name, aligned), variants in told.items():
        kernel = getattr(launch, name)
        calls = {each.name for each in kernel.params if each.do_not_specialize}
        constants = {each.name for each in kernel.params if each.is_constexpr}
        wanted = set(kernel.arg_names) - calls if aligned else constants
        assert variants == {frozenset(wanted)}, (name, aligned)

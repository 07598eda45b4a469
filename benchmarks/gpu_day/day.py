"""What a section is given: the device, the shapes, time, and where to write what it finds."""

import json
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import soupmix_kernels as kernels

OPS = torch.ops.soupmix
K, RANK = 6, 16
# hidden, width of k and v, inner, layers, layers that are held: 70B does not fit as a whole
MODELS = {
    "135M": (576, 192, 1536, 30, 30),
    "1B": (2048, 512, 8192, 16, 16),
    "8B": (4096, 1024, 14336, 32, 32),
    "70B": (8192, 1024, 28672, 80, 12),
}
TOY = {"toy": (32, 16, 48, 2, 1)}
Work = Callable[[], Any]


class Broken(Exception):
    """The device answers no more in this process: whatever comes next would fail, too."""


@dataclass
class Day:
    """One process' share of the day.

    Attributes:
        device: "cuda", or "cpu" to rehearse. tiny: toy shapes, each thing once. rows: a file of JSON lines, appended to.
        until: when the section in hand must end, on the monotonic clock.
        section: the one in hand.
        base, store: for the section `engine`, by name or folder; None: the shipped ones.
    """

    device: str
    tiny: bool
    rows: Path
    until: float = float("inf")
    section: str = ""
    base: str | None = None
    store: str | None = None
    copy_bytes_per_s: float = 1.0
    failures: list[str] = field(default_factory=list)

    @property
    def gpu(self) -> bool:
        return self.device.startswith("cuda")

    @property
    def models(self) -> Mapping[str, tuple[int, int, int, int, int]]:
        return TOY if self.tiny else MODELS

    def left(self) -> float:
        """Seconds that the section may still take."""
        return self.until - time.monotonic()

    def note(self, section: str, **row: Any) -> None:
        """One row, on disk when this returns."""
        with self.rows.open("a") as file:
            file.write(json.dumps({"section": section, **row}) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def fail(self, section: str, what: str) -> None:
        """Something that must hold does not. Raises `Broken` if the device is gone with it."""
        self.failures.append(f"{section}: {what}")
        self.note(section, failed=what)
        print("FAILED", section, what, flush=True)
        try:
            self.wait()
        except RuntimeError as error:
            raise Broken(str(error)) from error

    def wait(self) -> None:
        if self.gpu:
            torch.cuda.synchronize()

    def random(self, *shape: int, dtype: torch.dtype = torch.bfloat16, seed: int = 0) -> Tensor:
        """Normal numbers, drawn on the device: the large ones would take minutes elsewhere."""
        draw = torch.Generator(self.device).manual_seed(seed)
        return torch.randn(shape, device=self.device, generator=draw, dtype=dtype)

    def clocked(self, work: Work, graph: bool = True) -> Work:
        """`work` ready to be timed: compiled, warm, and where there is a GPU and a graph is wanted captured in one."""
        for _ in range(1 if self.tiny else 3):
            work()
        self.wait()
        if not (self.gpu and graph):
            return work
        captured = torch.cuda.CUDAGraph()
        with torch.cuda.graph(captured):
            work()
        captured.replay()
        self.wait()
        return captured.replay

    def seconds(self, run: Work) -> float:
        """One call of what `clocked` gave, on the device's own clock."""
        if not self.gpu:
            start = time.perf_counter()
            run()
            return time.perf_counter() - start
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        run()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1e3

    def timed(self, works: Mapping[str, Work], seconds: float = 0.3, graph: bool = True) -> dict[str, list[float]]:
        """Quartiles of seconds of every work, interleaved; one that fails is told, and the others are timed."""
        ready: dict[str, Work] = {}
        with torch.inference_mode():
            for name, work in works.items():
                try:
                    ready[name] = self.clocked(work, graph)
                except Exception as error:  # noqa: BLE001  # whatever it is, the others are timed
                    self.fail(self.section or "timing", f"{name}: {type(error).__name__}: {str(error)[:200]}")
            found: dict[str, list[float]] = {name: [] for name in ready}
            end, least = time.monotonic() + min(seconds, max(self.left(), 0)), 2 if self.tiny else 5
            while ready and (len(next(iter(found.values()))) < least or (time.monotonic() < end and not self.tiny)):
                for name, run in ready.items():
                    found[name].append(self.seconds(run))
        return {name: statistics.quantiles(each, n=4, method="inclusive") for name, each in found.items()}

    def one(self, work: Work, seconds: float = 0.1) -> float:
        """Median seconds of one work."""
        return self.timed({"": work}, seconds)[""][1]

    def pool(
        self, inputs: int, widths: Sequence[int], dtype: torch.dtype = torch.bfloat16, seed: int = 1
    ) -> kernels.Pool:
        """K adapters for layers of one input."""
        draw = torch.Generator().manual_seed(seed)

        def part(number: int, width: int) -> kernels.Part:
            A = torch.randn(RANK, inputs, generator=draw) / inputs**0.5
            return kernels.Part(number, A, torch.randn(width, RANK, generator=draw) * 0.2, 1.0)

        slices = [[part(number, width) for number in range(K)] for width in widths]
        return kernels.Pool.stack(slices, widths, inputs=inputs, dtype=dtype, device=torch.device(self.device))

    def people(self, pool: kernels.Pool, count: int, method: str = "delta", seed: int = 0) -> kernels.Coefficients:
        """Coefficients of so many people, all different."""
        weights = torch.rand(count, K, generator=torch.Generator().manual_seed(seed)).to(self.device)
        return pool.coefficients(weights, torch.zeros(K, device=self.device), torch.ones(K, device=self.device), method)


def groups(shape: Sequence[int]) -> dict[str, tuple[int, tuple[int, ...]]]:
    """The pools of a layer of one of `MODELS`: in-features and the widths of the slices."""
    h, kv, inner, *_ = shape
    return {"q|k|v": (h, (h, kv, kv)), "o": (h, (h,)), "gate|up": (h, (inner, inner)), "down": (inner, (h,))}


def own(pool: kernels.Pool) -> tuple[Tensor, Tensor]:
    """A copy of a pool's factors, row by row, as they lie on a GPU and a kernel's second half takes them."""
    whole = torch.contiguous_format
    return pool.A.clone(memory_format=whole), pool.B.clone(memory_format=whole)


def add(
    y: Tensor, x: Tensor, factors: tuple[Tensor, Tensor], c: Tensor, who: Tensor, widths: Sequence[int], rank: int
) -> None:
    """The soup of every row by the op itself, `delta` for rank 0."""
    if rank:
        OPS.soup_linear_factor_(y, x, *factors, c, who, list(widths), rank)
    else:
        OPS.soup_linear_(y, x, *factors, c, who, list(widths))

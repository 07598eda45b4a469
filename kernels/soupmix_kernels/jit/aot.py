"""Ahead of time, without a GPU: every launch that `tiles` can choose, compiled, and what the compiler made of it.

    python -m soupmix_kernels.jit.aot [--target sm_90] [--json | --write kernels/aot.json]

Arguments are specialised as the JIT does for the two variants that `launch` knows: *aligned*, for tensors that are aligned to 16
bytes and strides and widths that are multiples of 16, and *loose*, for all others; both for fewer than 2 GiB a tensor. Triton
ships the assemblers and disassemblers that are used. Nothing is run, nothing is timed.
"""

import argparse
import functools
import inspect
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from soupmix_kernels.checks import FLOATS
from soupmix_kernels.jit import tiles
from soupmix_kernels.jit.tiles import Tile

__all__ = ["TARGETS", "CompiledRow", "Configuration", "Figures", "compile_for", "configurations", "main", "table"]

TARGETS = ("sm_80", "sm_90", "sm_100", "gfx90a", "gfx942")
_SAMPLES: Mapping[str, Sequence[int]] = {
    "people": (1, 2, 64),
    "rows": (1, tiles.DECODE_ROWS, tiles.DECODE_ROWS + 1, 4096),
    "rank": range(1, 257),
    "aligned": (True, False),
}
_INTEGERS = {"columns_ptr", "rejected_ptr", "rows_ptr"}
_FLOATS = {"lo_ptr", "hi_ptr", "scale_ptr", "c_ptr", "h_ptr"}
_PLACE = re.compile(r'(?:File ".*?|; )(\w+\.py)(?:", line |:)(\d+)')
_SASS = re.compile(r"\s+/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]+)")
_AMD = re.compile(r"\s+([a-z]\w+)")
_MATRIX = re.compile(r"HMMA|HGMMA|UTC\w*MMA|v_mfma")
_ACCESS = re.compile(r"LDG\b|LDGSTS|STG\b|(?:global|buffer|flat)_(?:load|store)")
_WIDTHS = {r"\.256|\.128|x4": 16, "x3": 12, r"\.64|x2": 8, "16|short": 2, r"\.[US]8|byte": 1}


@dataclass(frozen=True, slots=True)
class Configuration:
    """One kernel in one dtype ("fp32", "fp16", "bf16") with one tile, and whether all its arguments are aligned."""

    kernel: str
    dtype: str
    tile: Tile
    aligned: bool = True

    def __str__(self) -> str:
        """Such as "merge bf16 ONE1 O64 I64 R32 GROUP8 4w 2s", and "loose" behind it where nothing is aligned."""
        blocks = " ".join(f"{name.removeprefix('BLOCK_')}{size}" for name, size in self.tile.constants)
        shape = f"{self.kernel} {self.dtype} {blocks} {self.tile.num_warps}w {self.tile.num_stages}s"
        return shape if self.aligned else f"{shape} loose"


@dataclass(frozen=True, slots=True)
class Figures:
    """What one configuration became on one target.

    Attributes:
        registers: 32-bit registers a thread (AMD: vector registers, accumulators included).
        spilled: bytes of stack a thread (AMD: spilled vector and scalar registers plus scratch bytes). shared: bytes a block.
        matrix: matrix instructions by name, and how many. loads, stores: for every tensor, by the name of its pointer, the bytes
            that the narrowest access to it moves in one thread; "other" are those that the compiler puts on another line.
    """

    registers: int
    spilled: int
    shared: int
    matrix: dict[str, int]
    loads: dict[str, int]
    stores: dict[str, int]


@dataclass(frozen=True, slots=True)
class CompiledRow:
    """One line of the table."""

    configuration: Configuration
    target: str
    figures: Figures

    @property
    def name(self) -> str:
        """Such as "merge bf16 ONE1 O64 I64 R32 GROUP8 4w 2s sm_90"."""
        return f"{self.configuration} {self.target}"


def configurations() -> tuple[Configuration, ...]:
    """Everything that the functions of `tiles` return for all dtypes and for sizes on both sides of every threshold."""
    found: dict[Configuration, None] = {}
    for name in tiles.__all__:
        if name.endswith("_tile"):
            choose: Callable[..., Tile] = getattr(tiles, name)
            wanted = list(inspect.signature(choose).parameters)
            for dtype in FLOATS if "dtype" in wanted else ("fp32",):
                values = [(FLOATS[dtype],) if one == "dtype" else _SAMPLES[one] for one in wanted]
                for arguments in itertools.product(*values):
                    aligned = bool(arguments[wanted.index("aligned")])
                    found[Configuration(name.removesuffix("_tile"), dtype, choose(*arguments), aligned)] = None
    return tuple(found)


def compile_for(configuration: Configuration, target: str) -> Figures:
    """Compile one configuration for one of TARGETS.

    Raises:
        RuntimeError: TRITON_INTERPRET is set, and so triton has no compiler in this process.
        ValueError: `target` is none of TARGETS.
    """
    if os.environ.get("TRITON_INTERPRET"):
        raise RuntimeError(
            "kernels compile only without TRITON_INTERPRET, which is read when triton is first imported; unset it"
        )
    if target not in TARGETS:
        raise ValueError(f"{target} is not among the targets {', '.join(TARGETS)}")
    import triton
    from triton.backends.compiler import GPUTarget

    cuda = target.startswith("sm_")
    gpu = GPUTarget("cuda", int(target[3:]), 32) if cuda else GPUTarget("hip", target, 64)
    told = configuration.tile.options()
    options = {name: told[name] for name in ("num_warps", "num_stages", "enable_fp_fusion")}
    compiled = triton.compile(_source(configuration, gpu), target=gpu, options=options)
    return _of_cubin(compiled) if cuda else _of_amdgcn(compiled)


def _source(configuration: Configuration, gpu: Any) -> Any:
    from triton.compiler import ASTSource, make_backend

    from soupmix_kernels.jit import launch

    kernel = getattr(launch, f"{configuration.kernel}_kernel")
    constants: dict[str, Any] = dict(configuration.tile.constants)
    if "PRECISION" in kernel.arg_names:
        constants["PRECISION"] = launch.precision(gpu.backend == "hip")
    loose = {parameter.name for parameter in kernel.params if parameter.do_not_specialize}
    parse = make_backend(gpu).parse_attr
    signature = {
        name: _type(name, configuration) if name not in constants else "constexpr" for name in kernel.arg_names
    }
    attributes = {
        (number,): parse("DS" if name.endswith("_ptr") else "D")
        for number, name in enumerate(kernel.arg_names)
        if name not in constants and name not in loose and configuration.aligned
    }
    return ASTSource(kernel, signature, constants, attributes)


def _type(argument: str, configuration: Configuration) -> str:
    if not argument.endswith("_ptr"):
        return "i32"
    return "*i32" if argument in _INTEGERS else "*fp32" if argument in _FLOATS else f"*{configuration.dtype}"


def _of_cubin(compiled: Any) -> Figures:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage = _tool("cuobjdump", "--dump-resource-usage", file.name)
        listing = _tool("nvdisasm", "--print-code", "--print-line-info", file.name)
    found = re.search(r"REG:(\d+) STACK:(\d+) .*LOCAL:(\d+)", usage)
    if found is None:
        raise RuntimeError(f"cuobjdump did not say what the kernel uses:\n{usage}")
    registers, stack, local = map(int, found.groups())
    return _figures(listing, True, registers, stack + local, compiled.metadata.shared)


def _tool(name: str, *arguments: str) -> str:
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name
    return subprocess.run([tool, *arguments], check=True, capture_output=True, text=True).stdout


def _of_amdgcn(compiled: Any) -> Figures:
    text: str = compiled.asm["amdgcn"]

    def figure(name: str) -> int:
        found = re.search(rf"\.{name}:\s+(\d+)", text)
        if found is None:
            raise RuntimeError(f"the assembly does not say {name}")
        return int(found[1])

    spilled = sum(map(figure, ("vgpr_spill_count", "sgpr_spill_count", "private_segment_fixed_size")))
    return _figures(text, False, figure("vgpr_count"), spilled, compiled.metadata.shared)


def _figures(listing: str, cuda: bool, registers: int, spilled: int, shared: int) -> Figures:
    """Read the assembly: every instruction belongs to the source line that was named last before it."""
    at, matrix, moved = "", Counter[str](), {"load": dict[str, int](), "store": dict[str, int]()}
    accesses = _accesses()
    for line in listing.splitlines():
        if place := _PLACE.search(line):
            at = accesses.get((place[1], int(place[2])), "other")
        elif found := (_SASS if cuda else _AMD).match(line):
            name = found[1]
            if _MATRIX.match(name):
                matrix[name.split(".")[0]] += 1
            elif access := _ACCESS.match(name):
                narrowest = moved["load" if access[0].startswith("LD") or "load" in access[0] else "store"]
                narrowest[at] = min(narrowest.get(at, 16), _width(name))
    return Figures(registers, spilled, shared, *(dict(sorted(each.items())) for each in (matrix, *moved.values())))


def _width(instruction: str) -> int:
    """Bytes that a memory instruction moves in one thread: LDG.E.128, global_load_dwordx4 and so on; a word when unsaid."""
    for mark, width in _WIDTHS.items():
        if re.search(mark, instruction):
            return width
    return 4


@functools.cache
def _accesses() -> dict[tuple[str, int], str]:
    """Which tensor the tl.load or tl.store on a line of this folder is about, by (file, line): `tl.load(b_ptrs` is of b."""
    return {
        (path.name, number): found[1]
        for path in Path(__file__).parent.glob("*.py")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if (found := re.search(r"tl\.(?:load|store)\((\w+?)_", line))
    }


def table(targets: Iterable[str] = TARGETS, workers: int = 2) -> list[CompiledRow]:
    """Compile every configuration for every target anew, in `workers` processes; sorted.

    Raises:
        RuntimeError, ValueError: see `compile_for`.
    """
    jobs = sorted(itertools.product(configurations(), targets), key=lambda job: (str(job[0]), TARGETS.index(job[1])))
    with (
        tempfile.TemporaryDirectory() as cache,
        ProcessPoolExecutor(workers, get_context("spawn"), _compile_into, (cache,)) as pool,
    ):
        figures = pool.map(compile_for, *zip(*jobs, strict=True))
        return [CompiledRow(*job, each) for job, each in zip(jobs, figures, strict=True)]


def _compile_into(cache: str) -> None:
    os.environ["TRITON_CACHE_DIR"] = cache


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the top of this file."""
    parser = argparse.ArgumentParser(
        "python -m soupmix_kernels.jit.aot", description="Compile every kernel without a GPU."
    )
    parser.add_argument(
        "--target", action="append", choices=TARGETS, help="one GPU architecture; may be repeated [all]"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one object per line")
    form.add_argument(
        "--write", type=Path, metavar="FILE", help="replace this Triton version's rows in the committed table"
    )
    asked = parser.parse_args(arguments)
    if asked.write and asked.target:
        parser.error("--write replaces the rows of all targets; leave --target out")
    rows = table(asked.target or TARGETS)
    if asked.write:
        _write(asked.write, rows)
        return
    for row in rows:
        text = json.dumps({row.name: asdict(row.figures)}) if asked.json else f"{row.name:<58} {row.figures}"
        sys.stdout.write(f"{text}\n")


def _write(path: Path, rows: Iterable[CompiledRow]) -> None:
    versions: dict[str, dict[str, Any]] = json.loads(path.read_text()) if path.exists() else {}
    versions[version("triton")] = {row.name: asdict(row.figures) for row in rows}
    parts = []
    for name, part in sorted(versions.items()):
        lines = ",\n".join(f"{json.dumps(row)}: {json.dumps(figures)}" for row, figures in part.items())
        parts.append(f"{json.dumps(name)}: {{\n{lines}\n}}")
    path.write_text("{\n" + ",\n".join(parts) + "\n}\n")


if __name__ == "__main__":
    main()

"""Everything that can be launched compiles for five GPU architectures, as the committed table says. Needs triton, but no GPU."""

import importlib.util
import json
import os
import re
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path

import pytest

from soupmix_kernels.jit import aot, tiles
from soupmix_kernels.jit.aot import CompiledRow, Configuration

COMMITTED = Path(__file__).parents[3] / "kernels" / "aot.json"
KIB = 1024
SHARED = {"sm_80": 163 * KIB, "sm_90": 227 * KIB, "sm_100": 227 * KIB, "gfx90a": 64 * KIB, "gfx942": 64 * KIB}
MATRIX = {"sm_80": "HMMA", "sm_90": "HMMA|HGMMA", "sm_100": "HMMA|UTC.*MMA", "gfx90a": "v_mfma", "gfx942": "v_mfma"}
BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}
# the tensors that are large: read once or once per tile, in the dtype of the model
LARGE = {"merge": ("w", "a", "b"), "shrink": ("x", "a"), "expand": ("b",), "expand_factor": ("b",)}

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed"),
    pytest.mark.skipif(bool(os.environ.get("TRITON_INTERPRET")), reason="TRITON_INTERPRET leaves nothing to compile"),
]


QUICK = ("sm_90", "gfx942")  # one of each maker; all five take minutes


@pytest.fixture(
    scope="module",
    params=[QUICK, pytest.param(tuple(t for t in aot.TARGETS if t not in QUICK), marks=pytest.mark.slow)],
    ids=["quick", "others"],
)
def targets(request: pytest.FixtureRequest) -> tuple[str, ...]:
    return tuple(request.param)


@pytest.fixture(scope="module")
def rows(targets: tuple[str, ...]) -> list[CompiledRow]:
    """All configurations on these targets, compiled anew."""
    return aot.table(targets)


def test_registers_and_shared_memory_are_those_of_the_committed_table(
    rows: list[CompiledRow], targets: tuple[str, ...]
) -> None:
    committed = json.loads(COMMITTED.read_text())
    if version("triton") not in committed:
        pytest.skip(f"{COMMITTED.name} holds triton {', '.join(committed)}, and {version('triton')} is installed")
    found = {row.name: asdict(row.figures) for row in rows}
    known = {name: figures for name, figures in committed[version("triton")].items() if _target(name) in targets}
    assert found == known, f"python -m soupmix_kernels.jit.aot --write kernels/{COMMITTED.name}"


def _target(name: str) -> str:
    return next(target for target in aot.TARGETS if target in name.split())


def test_every_kernel_and_every_choice_of_tiles_is_among_them(
    rows: list[CompiledRow], targets: tuple[str, ...]
) -> None:
    launched = set(re.findall(r"\b([a-z_]+)_kernel\b", Path(tiles.__file__).with_name("launch.py").read_text()))
    assert {row.configuration.kernel for row in rows} == launched
    assert len(rows) == len({row.name for row in rows}) == len(aot.configurations()) * len(targets)
    loose = [row for row in rows if not row.configuration.aligned]
    assert {row.configuration.kernel for row in loose} == launched


def test_nothing_spills(rows: list[CompiledRow]) -> None:
    assert [row.name for row in rows if row.figures.spilled] == []


def test_shared_memory_fits(rows: list[CompiledRow]) -> None:
    assert [row.name for row in rows if row.figures.shared > SHARED[row.target]] == []


def test_every_dot_runs_on_matrix_units(rows: list[CompiledRow]) -> None:
    dots = [row for row in rows if row.configuration.kernel != "coefficients"]
    assert [
        row.name for row in dots if not any(re.match(MATRIX[row.target], name) for name in row.figures.matrix)
    ] == []


def test_large_tensors_are_read_16_bytes_at_a_time(rows: list[CompiledRow]) -> None:
    aligned = [row for row in rows if row.configuration.aligned]
    found = {(row.name, of): _width(row, of) for row in aligned for of in LARGE.get(row.configuration.kernel, ())}
    assert {key: width for key, width in found.items() if width is not None} == {}


def test_nothing_but_columns_of_odd_ranks_is_read_in_less_than_a_word(rows: list[CompiledRow]) -> None:
    aligned = [row for row in rows if row.configuration.aligned]
    narrow = {(row.configuration.kernel, of) for row in aligned for of, width in row.figures.loads.items() if width < 4}
    assert narrow == {("expand_factor", "b")}
    assert all(row.configuration.tile["UNIT"] == 1 for row in aligned if row.figures.loads.get("b", 16) < 4)


def _width(row: CompiledRow, of: str) -> int | None:
    """How many bytes a load of this tensor moves where that is not what it should be, else None.

    In `factor` a load cannot be wider than what the ranks of adapters side by side are a multiple of. On CUDA, Triton 3.9 names
    a wrong line for loads whose values are used as they are; they count as loads of every large tensor that is missing.
    """
    loads, unit = row.figures.loads, dict(row.configuration.tile.constants).get("UNIT", 8)
    wanted = min(16, unit * BYTES[row.configuration.dtype])
    width = loads.get(of, loads.get("other", 0) if row.target.startswith("sm_") else 0)
    return None if width == wanted else width


def test_spills_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    constants = {"ONE": 0, "BLOCK_O": 128, "BLOCK_I": 128, "BLOCK_R": 64, "GROUP": 8}
    large = Configuration("merge", "bf16", tiles.Tile(tuple(constants.items()), num_warps=4, num_stages=2))
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        assert all(figures.spilled for figures in pool.map(aot.compile_for, [large] * 2, ["sm_80", "gfx942"]))


def test_what_cannot_be_compiled_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    configuration = aot.configurations()[0]
    with pytest.raises(ValueError, match=r"sm_61 is not among the targets sm_80, .*gfx942"):
        aot.compile_for(configuration, "sm_61")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with pytest.raises(RuntimeError, match="only without TRITON_INTERPRET"):
        aot.compile_for(configuration, "sm_80")

"""On a processor with AMX (emulated, see tests/support/amx) torch mixes rows of half precision, and soupmix does not."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.amx import emulator

WHY_NOT = emulator.why_not()
pytestmark = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))

ROOT = Path(__file__).parents[2]
MIXING, APART = (7, 31, 33, 65, 80, 100, 176), (16, 48, 64, 72, 96, 112, 576, 1536)  # as seen on Sapphire Rapids


def on_amx(code: str, *, model: str = "sapphire", verbose: bool = False) -> str:
    """What a process that has AMX prints."""
    environment = emulator.environment(model) | {"OMP_NUM_THREADS": "1", "ONEDNN_VERBOSE": str(int(verbose))}
    command = [sys.executable, "-c", f"import torch\n{code}"]
    made = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    return made.stdout


@pytest.mark.parametrize(("model", "dtype"), [("sapphire", "bfloat16"), ("granite", "float16")])
def test_torch_mixes_rows(model: str, dtype: str) -> None:
    """The fault itself. Where this fails, oneDNN has mended it, and the guard may go (oneDNN issue 5717)."""
    said = on_amx(
        f"""
import json
from soupmix_kernels import rows_apart
print(json.dumps({{inner: sorted(rows_apart.leaks(torch.{dtype}, inner)) for inner in {MIXING + APART}}}))
""",
        model=model,
    )
    every = ["addmm", "linear", "mm", "packed"]
    assert json.loads(said) == {str(inner): every if inner in MIXING else [] for inner in MIXING + APART}


def test_soupmix_does_not_but_would_without_its_guard() -> None:
    on_amx("""
from tests.kernels import test_rows_apart as here
from soupmix_kernels import cpu, rows_apart
assert rows_apart.has_tiles(torch.bfloat16, here.CPU)
for path in here.PATHS:
    here.test_on_this_processor_too(path)
for module in (rows_apart, cpu):
    module.inner_step = lambda *_: 1
for path in (here.projected, here.packed, here.op, here.factor, here.merged):
    assert path(here.poisoned(80, torch.bfloat16))[::2].isnan().any(), path
""")


def test_attention_keeps_people_apart() -> None:
    """torch's own, and two batched products as transformers' eager one; what they are filled up with is not ours."""
    on_amx("""
from itertools import product
from torch.nn.functional import scaled_dot_product_attention
draw, others = torch.Generator().manual_seed(0), [0, 1, 3]
for width, (asked, kept), swapped in product((7, 33, 64, 80, 100), ((1, 33), (17, 17), (70, 80), (33, 200)), (False, True)):
    shapes = [(4, 2, length, width) for length in (asked, kept, kept)]
    given = [torch.randn(shape, generator=draw).bfloat16() for shape in shapes]
    if swapped:  # in memory, rows of all heads of a token lie together
        given = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in given]
    for x in given:
        x[2] = torch.nan
    q, k, v = given
    scores = torch.softmax(q @ k.transpose(2, 3) / width**0.5, -1, dtype=torch.float32).bfloat16()
    exact = scaled_dot_product_attention(*(x[others].double() for x in given))
    for made in (scaled_dot_product_attention(q, k, v), scores @ v):
        assert (made[others] - exact).norm() <= 2**-6 * exact.norm(), (width, asked, kept, swapped)
""")


def test_products_are_onednns_own_and_right() -> None:
    """Every number of rows and columns that a tile may be left with, and sums of integers, which are exact."""
    said = on_amx(
        """
from soupmix_kernels.rows_apart import PRODUCTS
draw = torch.Generator().manual_seed(0)
for rows, inner, columns in ((1, 32, 16), (16, 64, 16), (17, 96, 33), (33, 1, 40), (40, 33, 1), (70, 576, 130)):
    x, weight = (torch.randint(-8, 9, (n, inner), generator=draw).bfloat16() for n in (rows, columns))
    exact = (x.long() @ weight.long().t()).bfloat16()
    for name, product in PRODUCTS.items():
        assert torch.equal(product(x, weight), exact), (name, rows, inner, columns)
    x, weight = x.div(3), weight.div(7)
    exact = x.double() @ weight.double().t()
    for name, product in PRODUCTS.items():
        assert (product(x, weight) - exact).norm() <= 2**-8 * exact.norm(), (name, rows, inner, columns)
bytes_ = [torch.randint(-128, 128, shape, generator=draw).to(torch.int8) for shape in ((33, 80), (80, 40))]
assert torch.equal(torch._int_mm(*bytes_).long(), bytes_[0].long() @ bytes_[1].long())
""",
        verbose=True,
    )
    run = [line.split(",") for line in said.splitlines() if line.startswith("onednn_verbose,v1,primitive,exec,")]
    assert {kind for *_, kind, implementation in (line[:7] for line in run) if "amx" in implementation} == {
        "matmul",
        "inner_product",
    }

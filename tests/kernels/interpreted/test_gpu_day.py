"""The GPU day, rehearsed in Triton's interpreter: cheap sections as they are, and what its rivals compute, against float64."""

import json
import re
from pathlib import Path

import pytest
import torch

from benchmarks.gpu_day import page, right, rivals, speed, steps
from benchmarks.gpu_day.day import TOY, Broken, Day
from soupmix_kernels import reference

BF16 = torch.bfloat16


@pytest.fixture
def day(tmp_path: Path) -> Day:
    return Day("cpu", True, tmp_path / "rows.jsonl")


def rows(day: Day) -> list[dict]:
    return [json.loads(line) for line in day.rows.read_text().splitlines()]


@pytest.mark.parametrize("section", [speed.ceilings, speed.merges, right.far, right.shapes])
def test_a_section_runs_and_tells(section, day: Day) -> None:
    section(day)
    assert day.failures == []
    assert {row["section"] for row in rows(day)} == {section.__name__}


def test_a_wrong_kernel_fails_the_day(day: Day, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is judged can be wrong: a soup that forgets a row, one that changes nobody's, and one that writes beside y."""
    add = right.add

    def forgetful(y, *given) -> None:
        add(y, *given)
        y[0] += 1

    def beside(y, *given) -> None:
        add(y, *given)
        y._base.view(-1)[0] = 1.0

    pool = day.pool(32, (32, 16, 16))
    for wrong, what in ((lambda *_: None, "error"), (forgetful, "error|nobody"), (beside, "beside")):
        monkeypatch.setattr(right, "add", wrong)
        for rows in range(3, 9):
            assert re.search(what, right._wrong(day, pool, rows, "delta"))


def test_repeats_that_differ_are_noticed(day: Day) -> None:
    out = torch.zeros(3)
    assert right._changes(day, lambda: out.add_(1), out, (), out) == "a repeat has other bits"
    assert right._changes(day, lambda: out.fill_(1), out, (), out) == ""


def test_what_a_soup_is_timed_against_is_right() -> None:
    draw = torch.Generator().manual_seed(0)
    count, inputs, widths, R = 5, 40, (16, 24), 32
    x, W, A, B = (
        (torch.randn(*shape, generator=draw) / shape[1] ** 0.5).to(BF16)
        for shape in ((count, inputs), (sum(widths), inputs), (len(widths) * R, inputs), (sum(widths), R))
    )
    c, who = torch.rand(4, len(widths) * R, generator=draw), torch.tensor([0, -1, 3, 1, 2], dtype=torch.int32)
    c[:, 3:6] = 0
    exact = reference.soup_linear(x.double() @ W.double().T, x, A, B, c, who, widths)
    wide = torch.full((count, inputs + len(A)), float("nan"), dtype=BF16)
    wide[:, :inputs] = x
    one = rivals.tail(wide, inputs, A, who, c).double() @ rivals.wide_weight(W, B, widths).double().T
    assert (one - exact).norm() < 0.01 * exact.norm()
    own_A, own_B = torch.randn(3, 16, inputs, generator=draw).to(BF16), torch.randn(3, 40, 16, generator=draw).to(BF16)
    mine = torch.tensor([0, 2, 1, 1, 0], dtype=torch.int32)
    y = torch.zeros(count, 40, dtype=BF16)
    rivals.gather_(y, x, own_A, own_B, mine)
    exact = torch.stack(
        [own_B[p].double() @ (own_A[p].double() @ row.double()) for p, row in zip(mine, x, strict=True)]
    )
    assert (y.double() - exact).norm() < 0.01 * exact.norm()


def test_a_step_is_judged_before_it_is_timed(day: Day) -> None:
    batch = steps.Batch(day, steps.Net(day, TOY["toy"]), 3)
    assert batch.off() == ""
    batch.c["o"] = batch.c["o"] * float("inf")
    assert batch.off().startswith("o: ")
    assert {"base", "soup delta", "gather of merged adapters", "one GEMM over [W | B]"} <= batch.variants().keys()


def test_a_device_that_is_gone_ends_the_process(day: Day, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(_: Day) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(Day, "wait", gone)
    with pytest.raises(Broken):
        day.fail("far", "wrong")
    assert rows(day) == [{"section": "far", "failed": "wrong"}]


def test_the_page_says_that_there_was_no_day_and_is_what_is_there() -> None:
    told = page.page(json.loads(page.DATA.read_text()) if page.DATA.exists() else None)
    assert page.PAGE.read_text() == told
    assert "It has not run on a GPU" in page.page(None)

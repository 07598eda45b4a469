"""Sections that say whether what is computed is right: real shapes, bits, graphs, far addresses, compiled code."""

import torch
from torch import Tensor
from torch.nn.functional import linear

from benchmarks.gpu_day.day import OPS, RANK, Day, K, add, groups
from soupmix_kernels import reference

EVERY, HALF = (torch.bfloat16, torch.float16, torch.float32), (torch.bfloat16,)


def bits(day: Day) -> None:
    """The same bits a hundred times, beside a busy stream, too; in a graph, with other weights, rows and inputs."""
    inputs, widths = groups(day.models["toy" if day.tiny else "1B"])["q|k|v"]
    pool = day.pool(inputs, widths, seed=3)
    low, high = torch.zeros(K, device=day.device), torch.ones(K, device=day.device)
    for method, rank in (("delta", 0), ("factor", RANK)):
        for count in (1, 3) if day.tiny else (1, 16, 64, 200):
            x, y = day.random(count, inputs, seed=1), day.random(count, sum(widths), seed=2)
            weights, who, out = torch.rand(count, K, device=day.device), _who(day, count, count), y.clone()

            def step(x=x, y=y, weights=weights, who=who, out=out, method=method, rank=rank) -> None:
                out.copy_(y)
                c = pool.coefficients(weights, low, high, method).values
                add(out, x, (pool.A, pool.B), c, who, widths, rank)

            with torch.inference_mode():
                if what := _changes(day, step, out, (weights, x, y), who):
                    day.fail("bits", f"{method}, {count} rows: {what}")
    day.note("bits", done=True)


def _who(day: Day, rows: int, people: int) -> Tensor:
    draw = torch.Generator(day.device).manual_seed(rows)
    return torch.randint(-1, people, (rows,), device=day.device, dtype=torch.int32, generator=draw)


def _changes(day: Day, step, out: Tensor, changed: tuple[Tensor, ...], who: Tensor) -> str:
    """Which repeat of a step gave other bits; nothing if none did."""
    step()
    first = out.clone()
    if day.gpu:
        busy, load = torch.cuda.Stream(), day.random(4096, 4096)
        with torch.cuda.stream(busy):
            for _ in range(200):
                load @ load
    for _ in range(3 if day.tiny else 100):
        step()
        if not torch.equal(out, first):
            return "a repeat has other bits"
    if day.gpu:
        replay = day.clocked(step)
        for _ in range(5):
            for each in changed:
                each.uniform_()
            who.copy_(_who(day, len(who), len(who)))
            replay()
            replayed = out.clone()
            step()
            if not torch.equal(out, replayed):
                return "the replay of a graph has other bits than the step"
    return ""


def shapes(day: Day) -> None:
    """Real shapes, every method and dtype, against float64: at most twice what rounding costs, and nothing beside y is written."""
    checked = 0
    for model, shape in day.models.items():
        for name, (inputs, widths) in groups(shape).items():
            for dtype in EVERY if model in ("135M", "1B") else HALF:
                pool = day.pool(inputs, widths, dtype)
                for rows in (3,) if day.tiny else (1, 3, 16, 17, 64, 65, 300):
                    if day.left() < 2:
                        return day.note("shapes", checked=checked, stopped=f"{model} {name} {dtype} {rows}")
                    for method in ("delta", "factor"):
                        checked += 1
                        if what := _wrong(day, pool, rows, method):
                            day.fail("shapes", f"{model} {name} {dtype}, {rows} rows, {method}: {what}")
    return day.note("shapes", checked=checked)


def _wrong(day: Day, pool, rows: int, method: str) -> str:
    dtype, inputs, out = pool.A.dtype, pool.A.shape[1], sum(pool.widths)
    x, c = day.random(rows, inputs, dtype=dtype, seed=rows), day.people(pool, 7, method, rows).values
    who, rank = _who(day, rows, 8), RANK if method == "factor" else 0
    frame = torch.full((rows + 2, out + 16), float("nan"), device=day.device, dtype=dtype)
    y = frame[1:-1, 8:-8]
    y.copy_(day.random(rows, out, dtype=dtype, seed=rows + 1))
    before = y.clone()
    add(y, x, (pool.A, pool.B), c, who, pool.widths, rank)
    given = before.double(), x, pool.A, pool.B, c, who, pool.widths
    exact = reference.soup_linear_factor(*given, rank) if rank else reference.soup_linear(*given)
    rounding, error = (exact.to(dtype).double() - exact).norm(), (y.double() - exact).norm()
    nobody, after = (who < 0) | (who >= 7), y.clone()
    y.fill_(float("nan"))
    if not bool(frame.isnan().all()):
        return "something beside y was written"
    if not torch.equal(after[nobody], before[nobody]):
        return "a row of nobody has changed"
    fine = bool(error <= 2 * rounding + 2e-6 * exact.norm())
    return "" if fine else f"error {error:.3g}, rounding {rounding:.3g}, norm {exact.norm():.3g}"


def far(day: Day) -> None:
    """Elements beyond 2^31: rows of y, and merges of many people; the last ones are looked at."""
    rows, out, R, people = (70, 64, 16, 3) if day.tiny else (90_000, 28_672, 32, 41)
    x, A, B = day.random(rows, 64, seed=1), day.random(R, 64, seed=2), day.random(out, R, seed=3)
    y, c = torch.zeros(rows, out, device=day.device, dtype=x.dtype), torch.rand(5, R, device=day.device)
    who = (torch.arange(rows, device=day.device) % 5).int()
    OPS.soup_linear_(y, x, A, B, c, who, [out])
    last, zero = slice(rows - 40, rows), torch.zeros(40, out, device=day.device, dtype=torch.float64)
    _near(day, "rows of y", y[last], reference.soup_linear(zero, x[last], A, B, c, who[last], [out]))
    del y
    out, inputs = (128, 64) if day.tiny else (14_336, 4_096)
    W, A, B = day.random(out, inputs, seed=4), day.random(R, inputs, seed=5), day.random(out, R, seed=6)
    c = torch.rand(people, R, device=day.device)
    made = OPS.merge(W, A, B, c)
    _near(day, "merges", made[-1, -64:], reference.merge(W[-64:].double(), A, B[-64:], c[-1:])[0])
    day.note("far", done=True)


def _near(day: Day, what: str, got: Tensor, exact: Tensor) -> None:
    if not bool((got.double() - exact).norm() <= 0.01 * exact.norm()):
        day.fail("far", f"the last {what} are wrong")


def compiled(day: Day) -> None:
    """A layer with its soup under `torch.compile(fullgraph=True)`, with and without CUDA graphs, is near the same one uncompiled."""
    inputs, widths = groups(day.models["toy" if day.tiny else "1B"])["gate|up"]
    pool, W = day.pool(inputs, widths), day.random(sum(widths), inputs) / inputs**0.5
    x, who = day.random(16, inputs, seed=2), torch.arange(16, device=day.device, dtype=torch.int32)
    weights, low, high = (
        torch.rand(16, K, device=day.device),
        *(t(K, device=day.device) for t in (torch.zeros, torch.ones)),
    )

    def layer(x: Tensor, weights: Tensor) -> Tensor:
        y = linear(x, W)
        c, _ = OPS.coefficients(weights, low, high, pool.columns, pool.scale)
        OPS.soup_linear_(y, x, pool.A, pool.B, c, who, list(widths))
        return y * 2

    how = {"default": {"mode": "default"}, "reduce-overhead": {"mode": "reduce-overhead"}}
    for name, options in {"eager backend": {"backend": "eager"}}.items() if day.tiny else how.items():
        with torch.inference_mode():
            made, expected = torch.compile(layer, fullgraph=True, **options), layer(x, weights)
            for _ in range(3):
                got = made(x, weights).clone()
        off = float((got.float() - expected.float()).norm() / expected.float().norm())
        day.note("compiled", mode=name, off=off)
        if not off < 0.01:
            day.fail("compiled", f"{name}: off by {off:.3g}")

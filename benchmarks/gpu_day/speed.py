"""Sections that take time: ceilings of the machine, decode steps, merges, single launches, PEFT's own layers."""

import contextlib

import torch

from benchmarks.gpu_day import steps
from benchmarks.gpu_day.day import OPS, RANK, Day, K, groups, own
from soupmix_kernels.jit import launch, traffic

BF16 = torch.bfloat16


def ceilings(day: Day) -> None:
    """What a copy and a large product reach here: everything else is told as a part of them."""
    count, side = (1 << 12, 64) if day.tiny else (1 << 30, 8192)
    x, a, b = day.random(count), day.random(side, side, seed=1), day.random(side, side, seed=2)
    y = torch.empty_like(x)
    copy, product = day.one(lambda: y.copy_(x)), day.one(lambda: torch.mm(a, b))
    day.note("ceilings", copy_bytes_per_s=2 * x.nbytes / copy, flops_per_s=2 * side**3 / product)


def decode(day: Day) -> None:
    """All linear layers of a model, a token a row; every variant over the same weights, which no cache holds, in a graph each."""
    for model, shape in day.models.items():
        net = steps.Net(day, shape)
        for rows in (3,) if day.tiny else (1, 8, 16, 32, 64, 128):
            if day.left() < 12 and not day.tiny:
                return day.note("decode", stopped=f"{model}, {rows} rows")
            _step(day, model, net, rows)
        del net
        if day.gpu:
            torch.cuda.empty_cache()
    return None


def _step(day: Day, model: str, net: steps.Net, rows: int) -> None:
    if day.gpu:
        torch.cuda.empty_cache()  # what is free decides which variants fit
    batch = steps.Batch(day, net, rows)
    if off := batch.off():
        day.fail("decode", f"{model}, {rows} rows: {off}")
    works = batch.variants()
    found = day.timed(works, 0.02 if day.tiny else 0.5)
    eager = day.timed({"base": works["base"], "soup delta": works["soup delta"]}, 0.1, graph=False)
    whole = net.layers / net.held
    counted = [t for i, w in net.groups.values() for t in traffic.soup_traffic(rows, rows, i, w, K * RANK, BF16)]
    day.note(
        "decode",
        model=model,
        rows=rows,
        layers=net.layers,
        held=net.held,
        seconds={name: [each * whole for each in quartiles] for name, quartiles in found.items()},
        eager={name: [each * whole for each in quartiles] for name, quartiles in eager.items()},
        weights=round(net.bytes * whole),
        soup_bytes=sum(t.compulsory for t in counted) * net.layers,
        requested=sum(t.requested for t in counted) * net.layers,
        launches=len(counted) * net.layers,
    )
    ratios = {name: round(each[1] / found["base"][1], 3) for name, each in found.items() if "base" in found}
    print(f"decode {model}, {rows} rows:", ratios, flush=True)


def merges(day: Day) -> None:
    """A matrix of every model merged for one and four people, beside addmm and a copy."""
    for model, shape in day.models.items():
        inputs, out, R = shape[0], shape[2], K * RANK
        for people in (1, 4):
            _merge(day, model, (inputs, out, R), people)


def _merge(day: Day, model: str, shape: tuple[int, int, int], people: int) -> None:
    inputs, out, R = shape
    W, A, B = day.random(out, inputs, seed=1), day.random(R, inputs, seed=2), day.random(out, R, seed=3)
    c, made = torch.rand(people, R, device=day.device), torch.empty(people, out, inputs, device=day.device, dtype=BF16)
    works = {
        "merge": lambda: OPS.merge_out(made, W, A, B, c),
        "addmm": lambda: [torch.addmm(W, (B * p).to(BF16), A, out=o) for p, o in zip(c, made, strict=True)],
        "copy": lambda: [each.copy_(W) for each in made],
    }
    counted = traffic.merge_traffic(out, inputs, R, people, BF16)
    bytes_ = {"compulsory": counted.compulsory, "requested": counted.requested}
    day.note("merges", model=model, people=people, seconds=day.timed(works), **bytes_)


def launches(day: Day) -> None:
    """Each kernel alone, over the factors of many layers in turn, so that these come from memory."""
    for model, shape in day.models.items():
        for name, (inputs, widths) in groups(shape).items():
            pool = day.pool(inputs, widths)
            turns = 2 if day.tiny else max(2, min(40, int(400e6 // (pool.A.nbytes + pool.B.nbytes))))
            held = [own(pool) for _ in range(turns)]
            for rows in (1,) if day.tiny else (1, 16, 64, 128, 2048):
                if day.left() < 2:
                    return day.note("launches", stopped=f"{model} {name} {rows}")
                _launch(day, {"model": model, "group": name, "rows": rows}, held, (inputs, widths))
    return None


def _launch(day: Day, told: dict[str, object], held, layer) -> None:
    (inputs, widths), rows = layer, told["rows"]
    x, y = day.random(rows, inputs, seed=1), day.random(rows, sum(widths), seed=2)
    c, who = torch.rand(rows, len(held[0][0]), device=day.device), torch.arange(rows, device=day.device).int()
    h = launch.shrink(x, held[0][0])
    works = {
        "shrink": lambda: [launch.shrink(x, A) for A, _ in held],
        "expand": lambda: [launch.expand_into(y, h, B, c, who, widths) for _, B in held],
    }
    found = day.timed(works, 0.1)
    for counted in traffic.soup_traffic(rows, rows, inputs, widths, K * RANK, BF16):
        if counted.kernel in found:
            seconds = [each / len(held) for each in found[counted.kernel]]
            bytes_ = {"compulsory": counted.compulsory, "requested": counted.requested}
            day.note("launches", **told, kernel=counted.kernel, seconds=seconds, programs=counted.programs, **bytes_)


def peft(day: Day) -> None:
    """benchmarks/cpu_layer.py with its tensors on the device: PEFT itself, one adapter and a mixed batch, eager as it runs."""
    from benchmarks import cpu_layer  # it takes PEFT, and so transformers

    for model in ("toy",) if day.tiny else ("1B", "8B"):
        with torch.device(day.device), torch.inference_mode(), _toy(cpu_layer):
            layer = cpu_layer.build(model, torch.float32 if day.tiny else BF16)
            for rows in (3,) if day.tiny else (1, 16, 64):
                batch = cpu_layer.batch(layer, rows)
                works = cpu_layer.decode(layer, batch)
                wanted = {n: works[n] for n in ("base", "soup unpacked", "peft one", "peft mixed")}
                day.note("peft", model=model, rows=rows, seconds=day.timed(wanted, 0.5, graph=False))


@contextlib.contextmanager
def _toy(module):
    before, module.SHAPES = module.SHAPES, module.SHAPES | {"toy": (32, 16, 48)}
    try:
        yield
    finally:
        module.SHAPES = before

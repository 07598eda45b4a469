"""One transformer layer's linears under test: every decode and merge variant of cpu_kernels.py, and the gates they must pass."""

import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from torch.nn.functional import linear

import soupmix_kernels as kernels
from soupmix_kernels import reference

SHAPES = {"135M": (576, 192, 1536), "1B": (2048, 512, 8192), "8B": (4096, 1024, 14336)}
GROUPS = (("q", "k", "v"), ("o",), ("gate", "up"), ("down",))
PEOPLE, K, RANK = 64, 6, 16
Work = Callable[[], Any]


class Layer(NamedTuple):
    """Base weights (each a part of its group's), packed groups, an adapter per person, the pools of the first K."""

    groups: list[Tensor]
    weights: dict[str, Tensor]
    packed: list[Tensor | None]
    A: dict[str, Tensor]  # [people, in, rank]
    B: dict[str, Tensor]  # [people, rank, out]
    pools: dict[tuple[str, ...], kernels.Pool]  # of groups, and of single matrices
    peft: PeftModel


def build(shape: str, dtype: torch.dtype) -> Layer:
    h, kv, f = SHAPES[shape]
    sizes = {"q": (h, h), "k": (h, kv), "v": (h, kv), "o": (h, h), "gate": (h, f), "up": (h, f), "down": (f, h)}
    A = {n: torch.randn(PEOPLE, i, RANK, dtype=dtype).div_(i**0.5) for n, (i, _) in sizes.items()}
    B = {n: torch.randn(PEOPLE, RANK, o, dtype=dtype).mul_(0.2) for n, (_, o) in sizes.items()}
    groups: list[Tensor] = []
    weights: dict[str, Tensor] = {}
    pools: dict[tuple[str, ...], kernels.Pool] = {}
    single: set[tuple[str, ...]] = {(n,) for n in sizes}
    for names in GROUPS:
        inputs, widths = sizes[names[0]][0], [sizes[n][1] for n in names]
        groups.append(torch.randn(sum(widths), inputs, dtype=dtype).div_(inputs**0.5))
        weights |= zip(names, torch.split(groups[-1], widths), strict=True)
    for members in single.union(GROUPS):
        slices = [[kernels.Part(k, A[n][k].t(), B[n][k].t(), 1.0) for k in range(K)] for n in members]
        inputs, widths = sizes[members[0]][0], [sizes[n][1] for n in members]
        pools[members] = kernels.Pool.stack(slices, widths, inputs=inputs, dtype=dtype, device=groups[0].device)
    return Layer(groups, weights, [kernels.pack(W) for W in groups], A, B, pools, peft_model(weights, A, B))


def peft_model(weights: dict[str, Tensor], A: dict[str, Tensor], B: dict[str, Tensor]) -> PeftModel:
    """Bare linears with one adapter per person, named by number; the first is active."""
    bare, config = nn.Module(), LoraConfig(r=RANK, lora_alpha=RANK, target_modules=list(weights))
    for name, weight in weights.items():
        bare.add_module(name, nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta"))
        bare.get_submodule(name).weight = nn.Parameter(weight, requires_grad=False)
    model = get_peft_model(bare, config, adapter_name="0", low_cpu_mem_usage=True)
    for person in map(str, range(PEOPLE)):
        if person != "0":
            model.add_adapter(person, config, low_cpu_mem_usage=True)
        for name in weights:
            for held, mine in ((getattr(bare, name).lora_A, A), (getattr(bare, name).lora_B, B)):
                held[person].weight = nn.Parameter(mine[name][int(person)].t().contiguous(), requires_grad=False)
    return model.eval()


class Batch(NamedTuple):
    """Inputs of every group; coefficients of rows: everybody different, the same for `factor`, and for the gate adapter 0 alone."""

    x: list[Tensor]
    people: Tensor
    coefficients: dict[str, list[kernels.RowCoefficients]]


def batch(layer: Layer, rows: int) -> Batch:
    narrow, wide = (torch.randn(rows, layer.groups[g].shape[1], dtype=layer.groups[g].dtype) for g in (0, 3))
    random, alone, lo, hi = torch.rand(rows, K), torch.eye(K)[:1].repeat(rows, 1), torch.zeros(K), torch.ones(K)
    kinds: dict[str, tuple[Tensor, Any]] = {"soup": (random, "delta"), "factor": (random, "factor")}
    kinds["alone"] = (alone, "delta")
    people = torch.arange(rows, dtype=torch.int32)
    made = {n: [layer.pools[g].coefficients(w, lo, hi, how) for g in GROUPS] for n, (w, how) in kinds.items()}
    coefficients = {n: [kernels.RowCoefficients(c, people) for c in each] for n, each in made.items()}
    return Batch([narrow, narrow, narrow, wide], people, coefficients)


def decode(layer: Layer, b: Batch) -> dict[str, Work]:
    """All variants; each answers with its outputs, side by side the same numbers in the same order."""
    inputs = {n: x for names, x in zip(GROUPS, b.x, strict=True) for n in names}
    modules = {n: getattr(layer.peft.base_model.model, n) for n in inputs}
    rows, everyone = b.people.long(), [str(person) for person in b.people.tolist()]
    pools, plain = [layer.pools[g] for g in GROUPS], [None] * len(GROUPS)
    slices = [B for p in pools for B in torch.split(p.B, list(p.widths))]
    expand = [(B.new_zeros(len(rows), len(B)), B.new_zeros(len(rows), B.shape[1]), B.t()) for B in slices]

    def base(packed: Sequence[Tensor | None]) -> list[Tensor]:
        held = zip(b.x, layer.groups, packed, strict=True)
        return [linear(x, W) if p is None else kernels.packed_linear(x, p) for x, W, p in held]

    def soup(packed: Sequence[Tensor | None], kind: str, add: Callable[..., Tensor]) -> list[Tensor]:
        held = zip(base(packed), b.x, pools, b.coefficients[kind], strict=True)
        return [add(y, x, p, c) for y, x, p, c in held]

    def gather(n: str, x: Tensor) -> Tensor:
        h = torch.bmm(x[:, None], layer.A[n].index_select(0, rows))
        return linear(x, layer.weights[n]).add_(torch.bmm(h, layer.B[n].index_select(0, rows))[:, 0])

    return {
        "base": lambda: [linear(x, layer.weights[n]) for n, x in inputs.items()],
        "base packed": lambda: base(layer.packed),
        "soup": lambda: soup(layer.packed, "soup", kernels.soup_linear_),
        "soup factor": lambda: soup(layer.packed, "factor", kernels.soup_linear_factor_),
        "soup unpacked": lambda: soup(plain, "soup", kernels.soup_linear_),
        "soup alone": lambda: soup(layer.packed, "alone", kernels.soup_linear_),
        "peft one": lambda: [modules[n](x) for n, x in inputs.items()],
        "peft mixed": lambda: [modules[n](x, adapter_names=everyone) for n, x in inputs.items()],
        "gather": lambda: [gather(n, x) for n, x in inputs.items()],
        "(shrink)": lambda: [torch.mm(x, p.A.t()) for x, p in zip(b.x, pools, strict=True)],
        "(expand)": lambda: [y.addmm_(h, B) for y, h, B in expand],
    }


def gate(layer: Layer, b: Batch, work: dict[str, Work]) -> dict[str, float]:
    """Relative errors: against float64, and of soup with one adapter alone against PEFT, and of the gather against PEFT."""
    truth: dict[str, list[Tensor]] = {"base": [], "soup": [], "factor": []}
    plain: dict[str, list[Tensor]] = {"base": work["base"](), "soup": [], "factor": []}
    for g, (names, W, x) in enumerate(zip(GROUPS, layer.groups, b.x, strict=True)):
        p, y = layer.pools[names], x.double() @ W.double().t()
        c, f = (b.coefficients[kind][g].values for kind in ("soup", "factor"))
        truth["base"].append(y)
        truth["soup"].append(reference.soup_linear(y, x.double(), p.A, p.B, c, b.people, p.widths))
        truth["factor"].append(reference.soup_linear_factor(y, x.double(), p.A, p.B, f, b.people, p.widths, RANK))
        for kind, mine in (("soup", c), ("factor", f)):
            own = mine.to(x.dtype).view(len(x), len(names), K, RANK)
            h = (x @ p.A.t()).view_as(own) * own
            h = h.sum(2, keepdim=True) * own if kind == "factor" else h
            deltas = [h[:, s].flatten(1) @ B.t() for s, B in enumerate(torch.split(p.B, list(p.widths)))]
            plain[kind].append(linear(x, W) + torch.cat(deltas, 1))

    def error(got: list[Tensor], exact: list[Tensor]) -> float:
        want = torch.cat(exact, 1).double()
        return float((torch.cat(got, 1) - want).norm() / want.norm())

    limits, errors = {of: 2 * error(got, truth[of]) for of, got in plain.items()}, {}
    judged = {"base packed": "base", "soup": "soup", "soup unpacked": "soup", "soup factor": "factor"}
    for name, of in judged.items():
        errors[name], limits[name] = error(work[name](), truth[of]), limits[of]
    for ours, theirs in (("soup alone", "peft one"), ("gather", "peft mixed")):
        errors[ours], limits[ours] = error(work[ours](), work[theirs]()), 2 * limits["soup"]
    return checked(errors, limits)


def checked(errors: dict[str, float], limits: dict[str, float]) -> dict[str, float]:
    """Under 1e-6 nobody is judged: a product of one row sums in another order than one of many."""
    if wrong := {name: e for name, e in errors.items() if not e <= max(limits[name], 1e-6)}:
        sys.exit(f"nothing is timed, for these are wrong: {wrong}; the limits are {limits}")
    return errors


def merging(layer: Layer) -> tuple[dict[str, Work], dict[str, Work], dict[str, float]]:
    """Variants that merge one person's soup into every matrix, what to do before each, and the errors."""
    W, share = {n: w.clone() for n, w in layer.weights.items()}, torch.rand(1, K)
    pools, modules = {n: layer.pools[n,] for n in W}, {n: getattr(layer.peft.base_model.model, n) for n in W}
    A, B = {n: p.A.contiguous() for n, p in pools.items()}, {n: p.B.contiguous() for n, p in pools.items()}
    six = [str(k) for k in range(K)]
    c = {n: p.coefficients(share, torch.zeros(K), torch.ones(K)) for n, p in pools.items()}
    out, dtype = {n: torch.empty_like(w) for n, w in W.items()}, layer.groups[0].dtype

    def restore(scales: list[float]) -> None:
        for n, module in modules.items():
            module.merged_adapters.clear()
            module.get_base_layer().weight.copy_(W[n])
            for name, scale in zip(six, scales, strict=True):
                module.set_scale(name, scale)
        if "cat" in layer.peft.peft_config:
            layer.peft.base_model.delete_adapter("cat")

    def cat() -> None:
        layer.peft.base_model.add_weighted_adapter(six, share[0].tolist(), "cat", combination_type="cat")
        for module in modules.values():
            module.merge(adapter_names=["cat"])

    before: dict[str, Work] = {"peft six": lambda: restore(share[0].tolist()), "peft cat": lambda: restore([1.0] * K)}
    work: dict[str, Work] = {
        "copy": lambda: [out[n].copy_(w) for n, w in W.items()],
        "addmm": lambda: [torch.addmm(W[n], (B[n] * c[n].values).to(dtype), A[n], out=out[n]) for n in W],
        "merge": lambda: [kernels.merge(w, A[n], B[n], c[n], out=out[n][None]) for n, w in W.items()],
        "peft six": lambda: [module.merge(adapter_names=six) for module in modules.values()],
        "peft cat": cat,
    }
    exact, errors = {n: reference.merge(w.double(), A[n], B[n], c[n].values)[0] for n, w in W.items()}, {}
    for name in ("addmm", "merge", "peft six", "peft cat"):
        before.get(name, dict)()
        work[name]()
        got = {n: modules[n].get_base_layer().weight if name in before else out[n] for n in W}
        errors[name] = max(float((got[n] - exact[n]).norm() / exact[n].norm()) for n in W)
    six_roundings = {"peft six": K * errors["addmm"]}
    return work, before, checked(errors, dict.fromkeys(errors, 2 * errors["addmm"]) | six_roundings)

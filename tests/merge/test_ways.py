"""Every method of load time against a float64 reference of its equation, and the laws that all of them keep."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import permutations

import pytest
import torch
from torch import Tensor

from soupmix.errors import AdapterError, RecipeError
from soupmix.merge.entries import Entries, Merged
from soupmix.merge.methods import Contribution, generator, merge_modules
from soupmix.methods import DEFAULT, METHODS, options_of
from soupmix.store.adapter import Adapter, Factors
from tests.support.uniform import uniform

SHAPES = {"model.layers.0.self_attn.q": (13, 7), "model.layers.0.mlp.up": (9, 17), "model.layers.2.mlp.up": (9, 17)}
LATER = [name for name, method in METHODS.items() if method.request is None]
ARCS = {"slerp": 2}  # how many adapters a method takes

Deltas = list[Tensor]
Weights = list[float]
Reference = Callable[..., Tensor]


def adapter(name: str, *, seed: int, rank: int = 3, scaling: float = 2.0, near: int | None = None) -> Adapter:
    """Random factors, those of one `near` at an acute angle."""
    values, shared = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(near or 0)
    modules = {}
    for path, (rows, columns) in sorted(SHAPES.items()):
        A, B = torch.randn(rank, columns, generator=values), torch.randn(rows, rank, generator=values)
        if near is not None:
            A = A * 0.4 + torch.randn(rank, columns, generator=shared)
            B = B * 0.4 + torch.randn(rows, rank, generator=shared)
        modules[path] = Factors(A, B, scaling)
    return Adapter(name, f"sha256:{seed:064x}", f"sha256:{'b' * 64}", modules)


def soup(method: str, near: int | None = None) -> list[tuple[Adapter, float]]:
    found = [
        (adapter("a", seed=1, near=near), 0.5),
        (adapter("b", seed=2, rank=3 if near else 5, scaling=0.7, near=near), 0.3),
        (adapter("c", seed=3, rank=3 if near else 2, scaling=1.5, near=near), 0.9),
    ]
    return found[: ARCS.get(method, 3)]


def matrix(merged: Merged) -> Tensor:
    return merged.matrix().double() if isinstance(merged, Entries) else merged.scaled() @ merged.A.double()


def deltas_of(weighted: list[tuple[Adapter, float]], path: str) -> Deltas:
    modules = [one.modules[path] for one, _ in weighted]
    return [f.scaling * f.B.double() @ f.A.double() for f in modules]


# References: the equations as they are printed, on whole float64 matrices.


def plain(deltas: Deltas, weights: Weights, **_: object) -> Tensor:
    return sum((w * d for w, d in zip(weights, deltas, strict=True)), start=torch.zeros(()))


def svd(deltas: Deltas, weights: Weights, *, svd_rank: int | None, **_: object) -> Tensor:
    u, s, v = torch.linalg.svd(plain(deltas, weights), full_matrices=False)
    r = svd_rank or 5
    return u[:, :r] * s[:r] @ v[:r]


def slerp(deltas: Deltas, weights: Weights, **_: object) -> Tensor:
    one, other = deltas
    total, t = sum(weights), weights[1] / sum(weights)
    angle = torch.acos((one * other).sum() / one.norm() / other.norm())
    return total * (torch.sin((1 - t) * angle) * one + torch.sin(t * angle) * other) / torch.sin(angle)


def karcher(deltas: Deltas, weights: Weights, **_: object) -> Tensor:
    """By gradient steps on the squared angles in the whole space."""
    units = [d / d.norm() for d in deltas]
    u = plain(units, weights)
    for _step in range(400):
        u = (u / u.norm()).detach().requires_grad_()
        v = u / u.norm()
        loss = sum(w * torch.acos((v * x).sum()) ** 2 for w, x in zip(weights, units, strict=True))
        (slope,) = torch.autograd.grad(loss, u)
        u = u.detach() - 0.25 * slope
    return sum(w * d.norm() for w, d in zip(weights, deltas, strict=True)) * u / u.norm()


def model_stock(deltas: Deltas, weights: Weights, **_: object) -> Tensor:
    count = len(deltas)
    pairs = [(a * b).sum() / a.norm() / b.norm() for i, a in enumerate(deltas) for b in deltas[:i]]
    cosine = max(sum(pairs) / len(pairs), torch.zeros(()))
    return count * cosine / (1 + (count - 1) * cosine) * plain(deltas, weights)


def top(delta: Tensor, density: float) -> Tensor:
    order = delta.abs().flatten().argsort(descending=True)[: max(int(density * delta.numel()), 1)]
    kept = torch.zeros(delta.numel(), dtype=torch.float64)
    kept[order] = 1
    return delta * kept.view(delta.shape)


def elected(kept: Deltas, weights: Weights, elect: str, normalize: bool) -> Tensor:
    x, w = torch.stack(kept), torch.tensor(weights, dtype=torch.float64)[:, None, None]
    mass = (w * x).sum(0) if elect == "mass" else x.sign().sum(0)
    agree = (x.sign() == torch.where(mass >= 0, 1.0, -1.0)).double()
    found = (w * x * agree).sum(0)
    share = (w * agree).sum(0) / sum(weights)
    return torch.where(share > 0, found / share, 0.0) if normalize else found


def ties(deltas: Deltas, weights: Weights, *, density: float, elect: str, normalize: bool, **_: object) -> Tensor:
    return elected([top(d, density) for d in deltas], weights, elect, normalize)


def magnitude_prune(deltas: Deltas, weights: Weights, *, density: float, **_: object) -> Tensor:
    return plain([top(d, density) for d in deltas], weights)


def crumbs(delta: Tensor, density: float, gamma: float) -> Tensor:
    return top(delta - top(delta, gamma) * (int(gamma * delta.numel()) > 0), density)


def breadcrumbs(deltas: Deltas, weights: Weights, *, density: float, gamma: float, **_: object) -> Tensor:
    return plain([crumbs(d, density, gamma) for d in deltas], weights)


def breadcrumbs_ties(deltas: Deltas, weights: Weights, *, density: float, gamma: float, **said: object) -> Tensor:
    return elected([crumbs(d, density, gamma) for d in deltas], weights, said["elect"], said["normalize"])


def thinned(deltas: Deltas, draws: Deltas, density: float, rescale: str, epsilon: float = 0.0, **_: object) -> Deltas:
    found = []
    for delta, draw in zip(deltas, draws, strict=True):
        places = delta.abs().argsort(1).argsort(1) / (delta.shape[1] - 1)
        chance = density + epsilon * (2 * places - 1)
        kept = delta * (draw < chance)
        by = {"probability": 1 / chance, "none": 1.0, "l1": delta.abs().sum() / kept.abs().sum()}
        found.append(kept * by[rescale])
    return found


def dare_linear(deltas: Deltas, weights: Weights, **said: object) -> Tensor:
    return plain(thinned(deltas, **said), weights)


def dare_ties(deltas: Deltas, weights: Weights, **said: object) -> Tensor:
    return elected(thinned(deltas, **said), weights, said["elect"], said["normalize"])


def sce(deltas: Deltas, weights: Weights, *, select: float, **_: object) -> Tensor:
    x = torch.stack([w * d for w, d in zip(weights, deltas, strict=True)])
    x = x * (top(x.var(0), select) > 0)
    q = x.square().sum((1, 2))
    agree = (q / q.sum())[:, None, None] * (x.sign() == torch.where(x.sum(0) >= 0, 1.0, -1.0))
    return (agree * x).sum(0) / agree.sum(0).clamp(min=1e-12)


def knots(deltas: Deltas, weights: Weights, *, inner: str, draws: Deltas, **said: object) -> Tensor:
    u, s, v = torch.linalg.svd(torch.cat(deltas, 1), full_matrices=False)
    live = s > 1e-9
    blocks = list((s[live, None] * v[live]).split(deltas[0].shape[1], 1))
    return u[:, live] @ REFERENCES[inner](blocks, weights, draws=[d[: int(live.sum())] for d in draws], **said)


REFERENCES: Mapping[str, Reference] = {
    "svd": svd,
    "slerp": slerp,
    "karcher": karcher,
    "model_stock": model_stock,
    "sce": sce,
    "knots": knots,
    "magnitude_prune": magnitude_prune,
    "ties": ties,
    "dare_linear": dare_linear,
    "dare_ties": dare_ties,
    "della": dare_ties,
    "della_linear": dare_linear,
    "breadcrumbs": breadcrumbs,
    "breadcrumbs_ties": breadcrumbs_ties,
}

CASES = [
    *((name, {}) for name in LATER),
    ("svd", {"svd_rank": 2}),
    ("ties", {"density": 0.3, "elect": "count"}),
    ("ties", {"density": 0.3, "normalize": True}),
    ("ties", {"density": 1}),
    ("dare_ties", {"rescale": "l1", "normalize": True}),
    ("dare_linear", {"rescale": "none", "seed": 7, "density": 0.9}),
    ("della", {"density": 0.6, "epsilon": 0.3, "rescale": "l1"}),
    ("della_linear", {"density": 0.4, "epsilon": 0.2}),
    ("breadcrumbs", {"density": 0.5, "gamma": 0.2}),
    ("breadcrumbs_ties", {"density": 0.4, "gamma": 0.3, "normalize": True, "elect": "count"}),
    ("sce", {"select": 0.4}),
    ("knots", {"inner": "dare_linear", "density": 1}),
    ("knots", {"density": 0.5, "normalize": True}),
]


def draws_of(weighted: list[tuple[Adapter, float]], path: str, seed: int, shape: tuple[int, int]) -> Deltas:
    parts = [Contribution(one.name, weight, one.modules[path], one.digest) for one, weight in weighted]
    return [uniform(generator(seed, path, part), shape) for part in parts]


@pytest.mark.parametrize(("method", "options"), CASES, ids=lambda value: str(value))
@pytest.mark.parametrize("near", [None, 77], ids=["apart", "near"])
def test_a_method_is_its_equation(method: str, options: dict[str, object], near: int | None) -> None:
    weighted, said = soup(method, near), options_of(method, options)
    made = merge_modules(weighted, method, options)
    assert set(made) == set(SHAPES)
    for path, merged in made.items():
        deltas, weights = deltas_of(weighted, path), [weight for _, weight in weighted]
        rows = 10 if method == "knots" and not near else 9 if method == "knots" else SHAPES[path][0]
        given = {
            **said,
            "draws": draws_of(weighted, path, said.get("seed", 0), (min(rows, SHAPES[path][0]), SHAPES[path][1])),
        }
        if method == "svd" and near:
            given["svd_rank"] = said["svd_rank"] or 3
        expected = REFERENCES[method](deltas, weights, **given)
        tolerance = 2e-5 * max(expected.abs().max().item(), 1.0)
        torch.testing.assert_close(matrix(merged), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("method", LATER)
def test_twice_the_weights_are_twice_the_update_so_that_no_method_undoes_a_clamp(method: str) -> None:
    whole, half = soup(method), [(one, weight / 2) for one, weight in soup(method)]
    for path, merged in merge_modules(whole, method).items():
        torch.testing.assert_close(2 * matrix(merge_modules(half, method)[path]), matrix(merged), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", LATER)
def test_the_order_of_adapters_and_another_adapter_of_no_weight_change_nothing(method: str) -> None:
    weighted = soup(method)
    sick = adapter("sick", seed=9)
    for factors in sick.modules.values():
        factors.A.fill_(math.nan)
    expected = {path: matrix(merged) for path, merged in merge_modules(weighted, method).items()}
    for order in permutations(weighted):
        for path, merged in merge_modules([(sick, 0.0), *order], method).items():
            assert torch.equal(matrix(merged), expected[path])
            assert torch.equal(matrix(merged), matrix(merged)), "what is made twice is the same"


@pytest.mark.parametrize("method", [name for name in LATER if not name.startswith(("d", "knots"))])
def test_opposite_deltas_give_the_opposite_where_an_adapter_changes_nothing_too(method: str) -> None:
    """An entry that is 0 has no sign: it agrees with neither."""
    weighted = soup(method)
    for factors in weighted[-1][0].modules.values():
        factors.B[::2] = 0.0
    opposite = [
        (replace(one, modules={p: replace(f, scaling=-f.scaling) for p, f in one.modules.items()}), weight)
        for one, weight in weighted
    ]
    for path, merged in merge_modules(opposite, method).items():
        expected = -matrix(merge_modules(weighted, method)[path])
        torch.testing.assert_close(matrix(merged), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", LATER)
def test_inputs_are_left_untouched(method: str) -> None:
    used = soup(method)
    for merged in merge_modules(used, method).values():
        matrix(merged).zero_()
    for (fresh, _), (one, _) in zip(soup(method), used, strict=True):
        for path, factors in fresh.modules.items():
            assert torch.equal(factors.A, one.modules[path].A)
            assert torch.equal(factors.B, one.modules[path].B)


WHOLE = {"density": 1.0, "gamma": 0.0, "rescale": "none", "select": 1.0}


@pytest.mark.parametrize("method", [name for name in LATER if name not in ("della", "della_linear")])
def test_one_adapter_alone_is_its_delta_where_nothing_is_left_out(method: str) -> None:
    one = adapter("a", seed=4)
    known = {option.name for option in METHODS[method].options}
    inside = {"inner": "dare_ties"} if method == "knots" else {}  # which has all of them
    made = merge_modules([(one, 0.25)], method, inside | {k: v for k, v in WHOLE.items() if k in known})
    for path, factors in one.modules.items():
        exact = 0.25 * factors.scaling * factors.B.double() @ factors.A.double()
        torch.testing.assert_close(matrix(made[path]), exact, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["dare_linear", "dare_ties", "della", "della_linear", "knots"])
def test_a_seed_decides_what_is_drawn_whatever_else_is_merged(method: str) -> None:
    one, other = adapter("a", seed=1), adapter("b", seed=2)
    options = {"inner": "dare_linear"} if method == "knots" else {}
    path = next(iter(SHAPES))
    makes = [matrix(merge_modules([(one, 1.0)], method, {**options, "seed": seed})[path]) for seed in (0, 0, 1)]
    assert torch.equal(makes[0], makes[1])
    assert not torch.equal(makes[0], makes[2])
    if method in ("dare_linear", "della_linear"):
        both = matrix(merge_modules([(one, 1.0), (other, 1.0)], method)[path])
        torch.testing.assert_close(both, makes[0] + matrix(merge_modules([(other, 1.0)], method)[path]))


def test_layers_take_a_part_of_a_weight_by_name_and_by_place() -> None:
    weighted = [(adapter("a", seed=1), 0.5), (adapter("b", seed=2), 0.4)]
    rules = {"a": [{"filter": "mlp", "value": [0, 1]}, {"value": 0.5}], "*": [{"filter": "self_attn", "value": 0}]}
    made = merge_modules(weighted, DEFAULT, {"layers": rules})
    parts = {
        "model.layers.0.self_attn.q": (0.25, 0.0),
        "model.layers.0.mlp.up": (0.0, 0.4),
        "model.layers.2.mlp.up": (0.5, 0.4),
    }
    for path, weights in parts.items():
        torch.testing.assert_close(matrix(made[path]), plain(deltas_of(weighted, path), list(weights)))
    assert merge_modules(weighted, DEFAULT, {"layers": {"*": [{"value": 0}]}}) == {}
    half = merge_modules(weighted, DEFAULT, {"layers": {"*": [{"value": [1, 0.5, 0]}]}})
    assert {path: round(float(stack.weights.max()), 6) for path, stack in half.items()} == dict.fromkeys(
        list(SHAPES)[:2], 0.5
    )


@pytest.mark.parametrize("method", LATER)
def test_what_is_more_than_factors_of_linear_layers_is_refused(method: str) -> None:
    one = adapter("a", seed=1)
    for change in ({"gain": torch.ones(13)}, {"kind": "embedding"}):
        path, factors = next(iter(one.modules.items()))
        odd = replace(one, modules={path: replace(factors, **change)})
        with pytest.raises(AdapterError) as caught:
            merge_modules([(odd, 1.0)], method)
        assert caught.value.reason == "whole"
        assert method in str(caught.value)


@pytest.mark.parametrize(
    ("method", "options", "reason"),
    [
        ("slerp", {}, "two-adapters"),
        ("della", {"density": 0.95}, "bad-option"),
        ("breadcrumbs", {"density": 0.95, "gamma": 0.1}, "bad-option"),
        ("knots", {"inner": "dare_linear", "elect": "count"}, "unknown-option"),
        ("knots", {"seed": 3}, "unknown-option"),
        ("ties", {"gamma": 0.1}, "unknown-option"),
        ("svd", {"svd_rank": 0}, "bad-option"),
        (DEFAULT, {"density": 0.5}, "unknown-option"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(method: str, options: dict[str, object], reason: str) -> None:
    with pytest.raises(RecipeError) as caught:
        merge_modules(soup("all"), method, options)
    assert caught.value.reason == reason


def test_deltas_that_are_parallel_opposite_or_nothing_have_an_answer() -> None:
    one = adapter("a", seed=1)
    minus = replace(one, name="m", digest="sha256:m", modules={p: replace(f, B=-f.B) for p, f in one.modules.items()})
    none = replace(one, name="n", digest="sha256:n", modules={p: replace(f, B=0 * f.B) for p, f in one.modules.items()})
    same = replace(one, name="s", digest="sha256:s")
    for method in ("slerp", "karcher", "model_stock", "sce", "knots", "ties", "svd"):
        for other, times in ((same, 0.75), (minus, 0.25), (none, 0.5)):
            for path, merged in merge_modules([(one, 0.5), (other, 0.25)], method).items():
                found = matrix(merged)
                assert torch.isfinite(found).all(), (method, other.name)
                if method in ("slerp", "svd") or (method == "karcher" and other is not minus):
                    expected = times * matrix(merge_modules([(one, 1.0)])[path])
                    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
